"""Runs end at numbers that are not finite, with the last good checkpoint kept."""

import itertools
import logging
import math

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS, OPTIM_WRAPPERS
from mmengine.structures import BaseDataElement
from torch.utils.data import Dataset

from mogacore.checkpoint import read
from mogacore.datasets import TaxiBJ
from mogacore.engine import numbers
from mogacore.engine.numbers import MAX_SKIPPED, FiniteHook, check_batch
from mogacore.engine.runner import test as run_test
from mogacore.engine.runner import train
from mogacore.errors import UserError

CONFIG = """
model = dict(type='FiniteToy')
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(type='FiniteData'))
test_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(type='FiniteData'))
test_evaluator = dict(type='FiniteMetric')
test_cfg = dict()
train_cfg = dict(by_epoch=True, max_epochs=3)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
default_scope = 'mmengine'
log_level = 'WARNING'
"""
STEPS = 3  # per epoch
_numbers = itertools.count()


@MODELS.register_module()
class FiniteToy(BaseModel):
    """A weight and a buffer; at chosen steps, a loss, gradient or the buffer is not finite."""

    def __init__(self, loss_at=(), gradient_at=(), buffer_at=(), value=math.nan):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.register_buffer('average', torch.zeros(1))
        self.register_buffer('mask', torch.full((1,), -math.inf))
        self.loss_at, self.gradient_at, self.buffer_at, self.value = loss_at, gradient_at, buffer_at, value
        self.step = 0

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode != 'loss':
            return data_samples
        self.step += 1
        weight = self.weight * 1
        if self.step in self.gradient_at:
            weight.register_hook(lambda gradient: gradient * self.value)
        if self.step in self.buffer_at:
            self.average[:] = self.value
        error = (weight * torch.stack(inputs).mean()).square().sum()
        factor = self.value if self.step in self.loss_at else 1
        return dict(loss_size=error * 0.5, loss_shape=error * factor, accuracy=error.detach() * math.nan)


@DATASETS.register_module()
class FiniteData(Dataset):
    data_root = 'data/toy'

    def __init__(self, size=6, broken=None, key='inputs'):
        self.size, self.broken, self.key = size, broken, key

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if self.key == 'unreadable' and index == self.broken:
            raise UserError(f'{index}.png is unreadable (OSError: truncated): download it again')
        item = dict(inputs=torch.ones(3), truth=torch.ones(3))
        if index == self.broken:
            item[self.key][1] = math.inf
        sample = BaseDataElement(truth=item['truth'], metainfo=dict(img_path=f'{index}.png'))
        return dict(inputs=item['inputs'], data_samples=sample)


@METRICS.register_module()
class FiniteMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return dict(psnr=math.inf, mIoU=np.float32(math.nan), mse=1.0, note='text')


class Scaler:
    """Stand-in for torch's GradScaler, which works on GPUs only."""

    def __init__(self, scale=65536.0):
        self.scale = scale

    def is_enabled(self):
        return True

    def get_scale(self):
        return self.scale


@OPTIM_WRAPPERS.register_module()
class ScaledWrapper(OptimWrapper):
    """Skips steps with gradients that are not finite and halves the scale, as torch's GradScaler does."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_scaler = Scaler()

    def step(self, **kwargs):
        is_fused = self.optimizer.defaults['fused']
        gradients = [p.grad for group in self.optimizer.param_groups for p in group['params']]
        overflow = torch.stack([(~g.isfinite()).any() for g in gradients]).any().float()
        if overflow:
            self.loss_scaler.scale /= 2
        if self.clip_grad_kwargs:
            self._clip_grad()
        if is_fused:  # such an optimizer is called in any case, and leaves out the step itself
            self.optimizer.grad_scale, self.optimizer.found_inf = torch.ones(()), overflow
        if is_fused or not overflow:
            self.optimizer.step()
        if is_fused:
            del self.optimizer.grad_scale, self.optimizer.found_inf


@HOOKS.register_module()
class SpoilWeightsHook(Hook):
    """Makes a weight infinite after an iteration."""

    priority = 'LOW'

    def __init__(self, at):
        self.at = at

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.at:
            runner.model.weight.data[0] = math.inf


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Function that trains the toy, which must end with a user error, and returns its line."""
    monkeypatch.setattr(Config, 'pretty_text', property(str))

    def call(**options):
        path = tmp_path / 'toy.py'
        path.write_text(CONFIG)
        options = {key.replace('__', '.'): value for key, value in options.items()}
        options['experiment_name'] = f'finite_{next(_numbers)}'
        with pytest.raises(UserError) as raised:
            train(str(path), work_dir=str(tmp_path / 'run'), cfg_options=options)
        assert '\n' not in str(raised.value)
        return str(raised.value)

    return call


def checkpoints(folder):
    """Names of the checkpoints of a run; their weights must be finite."""
    paths = sorted((folder / 'run').glob('*.pth'))
    assert all(read(path)['state_dict']['weight'].isfinite().all() for path in paths)
    return [path.name for path in paths]


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_and_is_named(run, tmp_path, value):
    line = run(model__loss_at=[STEPS + 2], model__value=value)
    assert line.startswith(f'loss_shape is {value} at iteration 5 (epoch 2): check the labels, lower the learning rate')
    assert line.endswith(f'the last checkpoint, {tmp_path}/run/epoch_1.pth, is intact')
    assert checkpoints(tmp_path) == ['epoch_1.pth']


@pytest.mark.parametrize('wrapper', ['OptimWrapper', 'CpuAmpOptimWrapper'])
def test_a_gradient_that_is_applied_and_not_finite_ends_the_run_and_is_named(run, tmp_path, wrapper, monkeypatch):
    monkeypatch.setattr('mogacore.engine.amp.cpu_has_bf16', lambda: True)
    line = run(model__gradient_at=[2], model__value=math.inf, optim_wrapper__type=wrapper)
    assert line.startswith('the gradient of weight is inf at iteration 2 (epoch 1): ')
    assert checkpoints(tmp_path) == [] and 'intact' not in line


def test_gradients_of_the_last_step_of_an_accumulation_are_checked(run, tmp_path):
    line = run(model__gradient_at=[4], optim_wrapper__accumulative_counts=2)
    assert line.startswith('the gradient of weight is nan at iteration 4 (epoch 2)')


def clipping(clip_type):
    return dict(type='value', clip_value=1.0) if clip_type == 'value' else dict(max_norm=1.0)


@pytest.mark.parametrize(
    'clip_type, value, name',
    [('norm', 1e30, 'the norm of all gradients, by which clipping divides them, is inf'),
     ('norm', math.inf, 'the gradient of weight is nan'), ('value', math.inf, 'the gradient of weight is inf'),
     ('value', math.nan, 'the gradient of weight is nan')],
)  # fmt: skip
def test_what_clipping_hides_ends_the_run(run, tmp_path, clip_type, value, name):
    """Gradients of 1e30 are finite, but their norm is not, so that clipping sets them to 0."""
    line = run(
        model__gradient_at=[STEPS + 2], model__value=value, optim_wrapper__clip_grad=clipping(clip_type)
    )  # fmt: skip
    assert line.startswith(f'{name} at iteration 5 (epoch 2): check the labels or lower the learning rate; the last')
    assert checkpoints(tmp_path) == ['epoch_1.pth']


@pytest.mark.parametrize('clip_type', ['norm', 'value'])
def test_clipping_changes_the_step_as_without_the_check(tmp_path, monkeypatch, clip_type):
    monkeypatch.setattr(Config, 'pretty_text', property(str))
    (tmp_path / 'toy.py').write_text(CONFIG)
    settings = clipping(clip_type)
    options = {'optim_wrapper.clip_grad': dict(settings), 'experiment_name': f'finite_{next(_numbers)}'}
    runner = train(str(tmp_path / 'toy.py'), work_dir=str(tmp_path / 'run'), cfg_options=options)
    model = FiniteToy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    settings.pop('type', None)
    clip = dict(norm=torch.nn.utils.clip_grad_norm_, value=torch.nn.utils.clip_grad_value_)[clip_type]
    for _ in range(3 * STEPS):
        optimizer.zero_grad()
        (model.weight.square().sum() * 1.5).backward()
        clip(model.parameters(), **settings)
        optimizer.step()
    torch.testing.assert_close(runner.model.weight, model.weight)


def test_an_infinite_norm_under_a_loss_scaler_is_a_skipped_step(run, monkeypatch):
    monkeypatch.setattr(numbers, 'MAX_SKIPPED', 3)
    line = run(
        model__gradient_at=[1, 3, 4, 6, 7, 8], model__value=1e30, optim_wrapper__type='ScaledWrapper',
        optim_wrapper__clip_grad=clipping('norm'),
    )  # fmt: skip
    assert line.startswith('gradients are not finite in 3 steps in a row, the last at iteration 8 (epoch 3) with')


@pytest.mark.parametrize('fused', [False, True])
def test_single_overflows_under_a_loss_scaler_do_not_end_the_run(tmp_path, monkeypatch, fused):
    monkeypatch.setattr(Config, 'pretty_text', property(str))
    monkeypatch.setattr(numbers, 'MAX_SKIPPED', 2)
    (tmp_path / 'toy.py').write_text(CONFIG)
    options = {'optim_wrapper.type': 'ScaledWrapper', 'model.gradient_at': [1, 3, 6], 'model.value': math.inf}
    options |= {'optim_wrapper.optimizer.fused': fused, 'experiment_name': f'finite_{next(_numbers)}'}
    runner = train(str(tmp_path / 'toy.py'), work_dir=str(tmp_path / 'run'), cfg_options=options)
    assert runner.optim_wrapper.loss_scaler.scale == 65536 / 8
    assert checkpoints(tmp_path) == ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth']


@pytest.mark.parametrize('fused', [False, True])
def test_gradients_that_stay_infinite_under_a_loss_scaler_end_the_run(run, tmp_path, fused):
    line = run(
        model__gradient_at=list(range(STEPS + 1, 99)), model__value=math.inf, train_cfg__max_epochs=20,
        optim_wrapper__type='ScaledWrapper', optim_wrapper__optimizer__fused=fused,
    )  # fmt: skip
    place = f'at iteration {STEPS + MAX_SKIPPED} (epoch 11)'
    assert line.startswith(f'gradients are not finite in {MAX_SKIPPED} steps in a row, the last {place}')
    advice = 'check the labels, lower the learning rate, clip the gradients, or train with --precision fp32'
    assert f'with a loss scale of {65536 / 2**MAX_SKIPPED:.2g}: {advice}' in line
    assert 'epoch_10.pth' in checkpoints(tmp_path)


def test_accumulation_under_a_loss_scaler_is_no_overflow(tmp_path, monkeypatch):
    monkeypatch.setattr(Config, 'pretty_text', property(str))
    monkeypatch.setattr(numbers, 'MAX_SKIPPED', 1)
    (tmp_path / 'toy.py').write_text(CONFIG)
    options = {'optim_wrapper.type': 'ScaledWrapper', 'optim_wrapper.accumulative_counts': 3}
    options['experiment_name'] = f'finite_{next(_numbers)}'
    train(str(tmp_path / 'toy.py'), work_dir=str(tmp_path / 'run'), cfg_options=options)
    assert checkpoints(tmp_path)


@pytest.mark.parametrize(
    'options, name',
    [
        (dict(custom_hooks=[dict(type='SpoilWeightsHook', at=2 * STEPS)]), 'weight is inf'),
        (dict(model__buffer_at=[2 * STEPS]), 'average is nan'),
    ],
)
def test_weights_that_are_not_finite_are_never_saved(run, tmp_path, options, name):
    line = run(**options)
    assert line.startswith(f'no checkpoint is saved after iteration {2 * STEPS}, since {name}: ')
    assert checkpoints(tmp_path) == ['epoch_1.pth']  # its mask is infinite, which is legal


@pytest.mark.parametrize('key', ['inputs', 'truth'])
@pytest.mark.parametrize('num_workers', [0, 1])
def test_an_input_that_is_not_finite_ends_the_run_and_is_named(run, key, num_workers):
    line = run(
        train_dataloader__dataset__broken=3, train_dataloader__dataset__key=key,
        train_dataloader__num_workers=num_workers,
    )  # fmt: skip
    assert line.startswith(f'{key} of 3.png in the data set FiniteData (data/toy) contain nan or infinite values: ')


@pytest.mark.parametrize('num_workers', [0, 1])
def test_an_error_in_a_worker_is_the_same_line_as_in_the_main_process(run, num_workers):
    line = run(
        train_dataloader__dataset__broken=3, train_dataloader__dataset__key='unreadable',
        train_dataloader__num_workers=num_workers,
    )  # fmt: skip
    assert line == '3.png is unreadable (OSError: truncated): download it again'


def test_taxi_flow_that_is_not_finite_is_named_in_stacked_batches(tmp_path):
    arrays = {f'{part}_train': np.zeros((3, 4, 2, 4, 4), np.float32) for part in 'XY'}
    for part, key in (('X', 'inputs'), ('Y', 'gt_frames')):
        broken = {name: array.copy() for name, array in arrays.items()}
        broken[f'{part}_train'][2, 1, 0, 3, 3] = math.nan
        np.savez(tmp_path / 'dataset.npz', **broken)
        dataset = TaxiBJ(tmp_path)
        items = [dataset[index] for index in range(3)]
        samples = [item['data_samples'] for item in items]
        for inputs in ([item['inputs'] for item in items], torch.stack([item['inputs'] for item in items])):
            message = rf'{key} of sequence 2 in the data set TaxiBJ \({tmp_path}\) contain nan'
            with pytest.raises(UserError, match=message):
                check_batch(dict(inputs=inputs, data_samples=samples), dataset)
            check_batch(dict(inputs=inputs[:2], data_samples=samples[:2]), dataset)


def test_batches_of_any_structure_are_checked():
    dataset = FiniteData()
    broken = torch.tensor([1.0, math.nan])
    for batch in (dict(inputs=dict(a=[broken])), dict(inputs=(broken, broken)), dict(inputs=broken.bfloat16())):
        with pytest.raises(UserError, match='inputs in the data set FiniteData'):
            check_batch(batch, dataset)
    for batch in ([broken], dict(inputs=torch.ones(2, dtype=torch.uint8)), dict(), dict(inputs=None), None):
        check_batch(batch, dataset)


def test_metrics_that_are_not_finite_are_a_warning(tmp_path, monkeypatch, caplog):
    lines = []
    monkeypatch.setattr(logging.Logger, 'warning', lambda self, message, *args: lines.append(message))
    (tmp_path / 'toy.py').write_text(CONFIG)
    torch.save({'state_dict': FiniteToy().state_dict()}, tmp_path / 'toy.pth')
    run_test(str(tmp_path / 'toy.py'), str(tmp_path / 'toy.pth'), work_dir=str(tmp_path / 'run'))
    (line,) = [line for line in lines if 'not finite' in line]
    assert line.startswith('metrics that are not finite: psnr inf, mIoU nan. ')


def test_a_test_on_inputs_that_are_not_finite_ends_in_one_line(tmp_path):
    (tmp_path / 'toy.py').write_text(CONFIG)
    torch.save({'state_dict': FiniteToy().state_dict()}, tmp_path / 'toy.pth')
    with pytest.raises(UserError, match=r'inputs of 4\.png in the data set FiniteData'):
        run_test(
            str(tmp_path / 'toy.py'), str(tmp_path / 'toy.pth'), work_dir=str(tmp_path / 'run'),
            cfg_options={'test_dataloader.dataset.broken': 4},
        )  # fmt: skip


def test_parameters_without_gradient_or_elements_are_skipped():
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)] + [torch.nn.Parameter(torch.ones(0))]
    params[0].grad, params[2].grad = torch.tensor([1.0, -3.0]), torch.ones(0)
    hook = FiniteHook()
    hook._before_step(torch.optim.SGD(params, 0.1), has_scaler=False)
    ((checked, norms),) = hook.norms
    assert checked == [params[0]] and norms.tolist() == [3]
