from copy import deepcopy

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mogacore.engine.ema import LinearWarmupEMA
from mogacore.errors import UserError


def averages(values, **kwargs):
    """The average after each update, when ``values`` are the successive values of a model's only weight."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, values[0])
    ema = LinearWarmupEMA(model, **kwargs)
    outs = []
    for value in values:
        nn.init.constant_(model.weight, value)
        ema.update_parameters(model)
        outs.append(ema.module.weight.item())
    return outs


@pytest.mark.parametrize('warmup_iters', [0, 4, 100])
def test_average_equals_the_explicit_recursion(warmup_iters):
    values = np.random.default_rng(0).standard_normal(12)
    expected, average = [], values[0]
    for step, value in enumerate(values):
        if step > 0:  # mmengine copies the weights at the first update
            progress = min(step / warmup_iters, 1) if warmup_iters else 1
            decay = 0.99 * (0.9 + 0.1 * progress)
            average = decay * average + (1 - decay) * value
        expected.append(average)
    ours = averages(values, momentum=0.01, start_factor=0.9, warmup_iters=warmup_iters)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_statistics_of_batch_norm_are_copied_not_averaged():
    model = nn.BatchNorm1d(2)
    ema = LinearWarmupEMA(model, momentum=0.5)
    model.running_mean.fill_(3.0)
    ema.update_parameters(model)
    model.running_mean.fill_(5.0)
    ema.update_parameters(model)
    assert torch.equal(ema.module.running_mean, torch.full((2,), 5.0))


def test_configs_can_name_it():
    assert MODELS.get('LinearWarmupEMA') is LinearWarmupEMA


@pytest.mark.parametrize('interval', [1, 3])
def test_average_moves_at_each_interval_and_warms_up_by_iteration(interval):
    values = np.random.default_rng(1).standard_normal(10)
    expected, average = [], values[0]
    for step, value in enumerate(values):
        if step > 0 and step % interval == 0:
            decay = 0.99 * (0.9 + 0.1 * step / 20)
            average = decay * average + (1 - decay) * value
        expected.append(average)
    ours = averages(values, momentum=0.01, start_factor=0.9, warmup_iters=20, interval=interval)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.fc, self.bn, self.frozen = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4)

    def train(self, mode=True):
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, inputs, mode='tensor'):
        out = self.frozen(self.bn(self.fc(inputs)))
        return {'loss': (out - 1).pow(4).mean()} if mode == 'loss' else out


class Points(Dataset):
    def __init__(self):
        self.points = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)) + 2

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        return {'inputs': self.points[index]}


class Nothing(BaseMetric):
    default_prefix = 'nothing'

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {'at_all': 0.0}


class Validated(Hook):
    """Keeps the weights that the validation uses."""

    priority = 'LOWEST'

    def before_val_epoch(self, runner):
        self.state_dict = deepcopy(runner.model.state_dict())


def trained(work_dir, custom_hooks, **kwargs):
    def loader(shuffle):
        return dict(
            dataset=Points(),
            batch_size=4,
            sampler=dict(type='DefaultSampler', shuffle=shuffle),
            collate_fn=dict(type='default_collate'),
        )

    runner = Runner(
        Toy(),
        work_dir=str(work_dir),
        train_dataloader=loader(False),
        val_dataloader=loader(False),
        val_evaluator=[Nothing()],
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=custom_hooks,
        default_scope='mmengine',
        log_level='ERROR',
        **kwargs,
    )
    runner.train()
    return runner


def ema_hooks():
    return [
        dict(type='AveragePreciseBNHook', num_samples=8),
        dict(type='EMAHook', ema_type='LinearWarmupEMA', momentum=0.1, warmup_iters=4),
    ]


def test_saved_and_validated_weights_agree_and_have_the_statistics_of_the_average(tmp_path):
    spy = Validated()
    runner = trained(
        tmp_path,
        [*ema_hooks(), spy],
        train_cfg=dict(by_epoch=True, max_epochs=2),
        experiment_name='saved',
    )
    saved = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)['state_dict']
    assert saved.keys() == spy.state_dict.keys()
    assert all(torch.equal(saved[name], spy.state_dict[name]) for name in saved)
    assert not torch.equal(saved['fc.weight'], runner.model.fc.weight)

    # Computed directly: the two batches of num_samples through the averaged layer before the norm.
    hidden = torch.nn.functional.linear(Points().points[:8], saved['fc.weight'], saved['fc.bias']).reshape(2, 4, 4)
    torch.testing.assert_close(saved['bn.running_mean'], hidden.mean(dim=(0, 1)))
    torch.testing.assert_close(saved['bn.running_var'], hidden.var(dim=1, unbiased=True).mean(dim=0))
    assert torch.equal(saved['frozen.running_mean'], torch.zeros(4))
    assert runner.model.bn.momentum == 0.1


def test_resumed_run_continues_from_the_raw_weights(tmp_path):
    options = dict(custom_hooks=ema_hooks(), experiment_name='whole')
    whole = trained(tmp_path / 'whole', train_cfg=dict(by_epoch=True, max_epochs=2), **options)
    options = dict(custom_hooks=ema_hooks(), experiment_name='rest', resume=True)
    path = str(tmp_path / 'whole' / 'epoch_1.pth')
    rest = trained(tmp_path / 'rest', train_cfg=dict(by_epoch=True, max_epochs=2), load_from=path, **options)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(rest.model.state_dict()[name], value, msg=name)


def test_statistics_of_an_average_need_an_ema_hook(tmp_path):
    with pytest.raises(UserError, match='needs an EMAHook in custom_hooks: add one'):
        trained(
            tmp_path,
            [dict(type='AveragePreciseBNHook')],
            train_cfg=dict(by_epoch=True, max_epochs=1),
            experiment_name='none',
        )
