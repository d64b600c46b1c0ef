"""Training with the model divided among two processes, against the same training with whole models."""

import json
import os
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from conftest import ROOT, TINY_ARCH, free_ports
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mogacore.checkpoint import read
from mogacore.datasets.digits import write_digits
from mogacore.engine.runner import train
from mogacore.errors import UserError

pytest.importorskip('mmpretrain')
DIVIDED = {'strategy.type': 'ShardedStrategy'}


@HOOKS.register_module()
class ShareHook(Hook):
    """Writes how many numbers of the parameters each process keeps."""

    def after_train(self, runner):
        share = sum(p.numel() for group in runner.optim_wrapper.param_groups for p in group['params'])
        Path(runner.work_dir, f'share_{runner.rank}.json').write_text(json.dumps(share))


def train_all(rank, folder, ports):
    """Whole models, divided ones, divided from the middle on, from weights of a whole one, and from misfits."""
    os.chdir(folder)
    os.environ.update(MASTER_ADDR='127.0.0.1', WORLD_SIZE='2', RANK=str(rank), LOCAL_RANK=str(rank))

    def run(work_dir, options, resume=None):
        os.environ['MASTER_PORT'] = str(ports.pop())
        train('config.py', work_dir=work_dir, resume=resume, launcher='pytorch', cfg_options=options)

    run('whole', {})
    run('divided', DIVIDED)
    run('resumed', DIVIDED, resume='divided/iter_3.pth')
    run('begun', DIVIDED | {'load_from': 'whole/iter_6.pth'})
    with pytest.raises(UserError, match=r'iter_6.pth: the weights do not fit .* \(10, 32\) against \(7, 32\)'):
        run('misfit', DIVIDED | {'load_from': 'whole/iter_6.pth', 'model.head.num_classes': 7})


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('divided')
    write_digits(folder / 'data' / 'digits', parts=('classification',))
    (folder / 'config.py').write_text(f"""
_base_ = '{ROOT / 'configs' / 'classification' / 'moganet-xtiny_digits.py'}'
model = dict(backbone=dict(arch=dict(_delete_=True, **{TINY_ARCH}), drop_path_rate=0.0), head=dict(in_channels=32))
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(times=1, dataset=dict(indices=48))
)
val_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(indices=9))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1)
# Plain steps: AdamW makes large differences of small ones. Gradients have to be clipped by the norm of all of them.
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.05, _delete_=True), clip_grad=dict(max_norm=0.5)
)
custom_hooks = [dict(type='ShareHook')]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(by_epoch=False, interval=3, max_keep_ckpts=-1))
""")
    mp.spawn(train_all, (str(folder), free_ports(5)), nprocs=2)
    return folder


def largest_difference(ours, theirs):
    ours, theirs = (read(path)['state_dict'] for path in (ours, theirs))
    assert ours.keys() == theirs.keys()
    return max((ours[name].double() - theirs[name].double()).abs().max().item() for name in ours)


def scalars(work_dir, name):
    lines = next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()
    return [value[name] for value in map(json.loads, lines) if name in value]


def test_divided_and_whole_models_train_the_same_weights(trained):
    assert largest_difference(trained / 'divided' / 'iter_6.pth', trained / 'whole' / 'iter_6.pth') <= 1e-6
    assert largest_difference(trained / 'divided' / 'iter_6.pth', trained / 'divided' / 'iter_3.pth') > 1e-3
    norms = scalars(trained / 'divided', 'grad_norm')
    assert norms == pytest.approx(scalars(trained / 'whole', 'grad_norm'), rel=1e-4) and min(norms) > 0.5


def test_each_process_keeps_its_share_alone(trained):
    whole, divided = (
        [json.loads((trained / name / f'share_{rank}.json').read_text()) for rank in (0, 1)]
        for name in ('whole', 'divided')
    )
    assert whole[0] == whole[1]
    assert whole[0] <= sum(divided) < 1.001 * whole[0]  # a part may be filled up by a number
    assert max(divided) < 0.51 * whole[0]


def test_resumed_divided_training_ends_with_the_same_weights_to_the_bit(trained):
    divided, resumed = (read(trained / name / 'iter_6.pth') for name in ('divided', 'resumed'))
    assert largest_difference(trained / 'resumed' / 'iter_6.pth', trained / 'divided' / 'iter_6.pth') == 0
    for name, state in divided['optimizer']['state'].items():
        assert torch.equal(state['momentum_buffer'], resumed['optimizer']['state'][name]['momentum_buffer'])


def test_divided_training_begins_with_weights_of_a_whole_model(trained):
    assert scalars(trained / 'begun', 'loss')[0] < scalars(trained / 'divided', 'loss')[0] - 0.05


@pytest.mark.parametrize(
    'launcher, hooks, told',
    [
        ('none', [], 'strategy divides a model among processes: start them with'),
        ('pytorch', [dict(type='EMAHook')], 'strategy leaves no whole model of which EMAHook could average'),
    ],
)
def test_what_cannot_be_divided_is_told(trained, monkeypatch, launcher, hooks, told):
    monkeypatch.chdir(trained)
    for name, value in dict(RANK='1', WORLD_SIZE='2', LOCAL_RANK='1').items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=told):
        train('config.py', work_dir='refused', launcher=launcher, cfg_options=DIVIDED | {'custom_hooks': hooks})
