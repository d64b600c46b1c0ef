import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mogacore.engine.ema import LinearWarmupEMA


def averages(values, **kwargs):
    """The average after each of ``values`` was a model's only weight at an update."""
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
def test_average_equals_the_written_out_recursion(warmup_iters):
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


def test_configs_find_it_by_name():
    assert MODELS.get('LinearWarmupEMA') is LinearWarmupEMA
