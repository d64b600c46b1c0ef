"""Number of CPU threads: counted products, the rule, and runs that keep the number when they resume."""

import re

import pytest
import torch
import toy_runs
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mogacore.engine.plain_config import plain_config
from mogacore.engine.threads import (
    MACS_PER_THREAD,
    ChooseThreadsHook,
    CountProducts,
    add_thread_choice,
    choose_threads,
    default_threads,
)

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason='the number of CPU threads is not chosen')


@MODELS.register_module()
class WideToy(toy_runs.ToyLine):
    """A line that also computes a product of 67 million multiply-adds, without an effect on the loss."""

    def forward(self, inputs, target, mode='tensor'):
        out = super().forward(inputs, target, mode)
        if mode == 'loss':
            out['loss'] = out['loss'] + (torch.zeros(64, 512) @ torch.ones(512, 2048)).sum()
        return out


@pytest.fixture
def two_threads(monkeypatch):
    """Pretend that this process has two cores and that the user has set no number of threads."""
    before = torch.get_num_threads()
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.delenv('MKL_NUM_THREADS', raising=False)
    monkeypatch.setattr('mogacore.engine.threads.default_threads', lambda: {2})
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_products_are_counted_as_torch_counts_them():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, 2), nn.Flatten(), nn.Linear(400, 5)
    )
    x, matrices = torch.randn(2, 3, 11, 11, requires_grad=True), torch.randn(3, 4, 5)
    with FlopCounterMode(display=False) as flops, CountProducts() as products:
        (net(x).square().sum() + (matrices @ matrices.mT).sum()).backward()
    assert products.macs == flops.get_total_flops() // 2
    assert products.calls == 8  # four in the forward pass; two gradients of Linear, one call per convolution


def test_depthwise_convolutions_count_one_input_channel():
    x = torch.randn(2, 6, 5, 5, requires_grad=True)
    with CountProducts() as products:
        nn.Conv2d(6, 6, 3, padding=1, groups=6)(x).sum().backward()
    assert products.macs == 3 * x.numel() * 9  # the convolution and two gradients


@pytest.mark.parametrize(
    ('size', 'available', 'threads'), [(0, 8, 1), (1.9, 8, 1), (2, 8, 2), (7.5, 8, 7), (100, 8, 8), (100, 1, 1)]
)
def test_each_thread_gets_a_minimum_of_work(size, available, threads):
    assert choose_threads(size * MACS_PER_THREAD, available) == threads


def logged(folder, name):
    return re.findall(r'training uses (\d) of (\d) CPU threads \((.*?)\)', toy_runs.log(folder, name))


@pytest.mark.parametrize(('model', 'expected'), [('ToyLine', 1), ('WideToy', 2)])
def test_a_run_chooses_its_threads_and_a_resumed_run_keeps_them(two_threads, tmp_path, model, expected):
    settings = dict(model__type=model, log_level='INFO', train_cfg__max_epochs=2)
    toy_runs.toy_run(tmp_path, 'run', **settings)
    assert torch.get_num_threads() == expected
    [(number, available, reason)] = logged(tmp_path, 'run')
    assert (int(number), int(available)) == (expected, 2)
    assert 'million multiply-adds' in reason
    path = tmp_path / 'run' / 'epoch_1.pth'
    assert torch.load(path, weights_only=False)['meta']['num_threads'] == expected
    torch.set_num_threads(2)
    toy_runs.toy_run(tmp_path, 'rest', path, **settings)
    assert torch.get_num_threads() == expected
    assert logged(tmp_path, 'rest') == [(str(expected), '2', 'as before the run was resumed')]
    whole, rest = (torch.load(tmp_path / name / 'epoch_2.pth', weights_only=False) for name in ('run', 'rest'))
    assert all(torch.equal(whole['state_dict'][key], rest['state_dict'][key]) for key in whole['state_dict'])


def hooks(launcher='none', **settings):
    cfg = Config(settings)
    add_thread_choice(cfg, launcher)
    return [hook['type'] for hook in cfg.get('custom_hooks', [])]


def test_settings_of_the_user_and_of_launchers_are_left_alone(two_threads, monkeypatch):
    assert hooks() == [ChooseThreadsHook.__name__]
    assert hooks('pytorch') == hooks(compile=True) == []
    torch.set_num_threads(1)  # as in a script that calls train()
    assert hooks() == []
    torch.set_num_threads(2)
    for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
        with monkeypatch.context() as context:
            context.setenv(name, '2')
            assert hooks() == []


def test_torch_starts_with_the_logical_or_the_physical_cores_of_the_process(tmp_path, monkeypatch):
    """Of four cores with two threads each, the process may use both threads of one and one of another."""
    for core in range(8):
        path = tmp_path / f'cpu{core}' / 'topology' / 'thread_siblings_list'
        path.parent.mkdir(parents=True)
        path.write_text(f'{core % 4},{core % 4 + 4}\n')
    monkeypatch.setattr('mogacore.engine.threads.os.sched_getaffinity', lambda pid: {1, 2, 5}, raising=False)
    assert default_threads(tmp_path) == {2, 3}
    assert default_threads(tmp_path / 'missing') == {3}


def test_the_hook_is_not_part_of_the_config_that_a_user_would_write(two_threads):
    cfg = Config(dict(custom_hooks=[dict(type='EMAHook')]))
    add_thread_choice(cfg, 'none')
    assert len(cfg.custom_hooks) == 2
    assert plain_config(cfg).custom_hooks == [dict(type='EMAHook')]
