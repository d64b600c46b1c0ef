import math

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from mogacore.engine.schedules import OneCycleMomentum, WarmupCosineLR
from mogacore.errors import UserError


def make_optimizer(lr=1e-3):
    return torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=lr)


def build(settings, optimizer, epochs, epoch_length):
    """Build a scheduler from its config, as mmengine's Runner does."""
    settings = {'end': epochs, **settings}
    return PARAM_SCHEDULERS.build(settings, default_args=dict(optimizer=optimizer, epoch_length=epoch_length))


@pytest.mark.parametrize('lr, epochs, epoch_length', [(1e-3, 200, 625), (5e-3, 7, 13), (1e-2, 1, 10)])
def test_one_cycle_equals_the_rates_and_betas_of_torch(lr, epochs, epoch_length):
    ours, theirs = make_optimizer(lr), make_optimizer(lr)
    num_steps = epochs * epoch_length
    reference = torch.optim.lr_scheduler.OneCycleLR(theirs, max_lr=lr, epochs=epochs, steps_per_epoch=epoch_length)
    schedulers = [
        build(dict(type=name, by_epoch=True, convert_to_iter_based=True, **settings), ours, epochs, epoch_length)
        for name, settings in (('OneCycleLR', dict(eta_max=lr)), ('OneCycleMomentum', {}))
    ]
    lowest = 1.0
    for step in range(num_steps):
        (group,), (expected,) = ours.param_groups, theirs.param_groups
        assert abs(group['lr'] - expected['lr']) < 1e-12, step
        assert abs(group['betas'][0] - expected['betas'][0]) < 1e-12, step
        assert group['betas'][1] == 0.999
        lowest = min(lowest, group['betas'][0])
        ours.step()
        theirs.step()
        for scheduler in schedulers:
            scheduler.step()
        if step + 1 < num_steps:
            reference.step()
    assert 0.85 <= lowest < 0.86 and group['betas'][0] == pytest.approx(0.95)
    assert group['lr'] == pytest.approx(lr / 25e4)


def test_momentum_of_sgd_is_cycled_through_an_optimizer_wrapper():
    wrapper = OptimWrapper(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9))
    scheduler = OneCycleMomentum(wrapper, total_steps=11, by_epoch=False, base_momentum=0.5, max_momentum=0.9)
    found = [wrapper.param_groups[0]['momentum']]
    for _ in range(10):
        wrapper.step()
        scheduler.step()
        found.append(wrapper.param_groups[0]['momentum'])
    assert found[0] == pytest.approx(0.9) and min(found) < 0.55 and found[-1] == pytest.approx(0.9)


def test_momentum_resumes_where_it_stopped():
    def run(scheduler, optimizer, num_steps):
        for _ in range(num_steps):
            optimizer.step()
            scheduler.step()
        return optimizer.param_groups[0]['betas'][0]

    optimizer = make_optimizer()
    scheduler = OneCycleMomentum(optimizer, total_steps=30, by_epoch=False)
    run(scheduler, optimizer, 12)
    state = scheduler.state_dict()
    expected = run(scheduler, optimizer, 5)
    other = make_optimizer()
    resumed = OneCycleMomentum(other, total_steps=30, by_epoch=False)
    resumed.load_state_dict(state)
    assert run(resumed, other, 5) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize('lr, warmup', [(1e-3, 5), (5e-3, 2)])
def test_cosine_counts_from_the_start_of_the_warm_up(lr, warmup):
    optimizer = make_optimizer(lr)
    scheduler = build(dict(type='WarmupCosineLR', warmup=warmup, by_epoch=True), optimizer, 50, 3)
    for epoch in range(50):
        if epoch < warmup:
            expected = 1e-5 + epoch * (lr - 1e-5) / warmup
        else:
            expected = 1e-6 + 0.5 * (lr - 1e-6) * (1 + math.cos(math.pi * epoch / 50))
        assert abs(optimizer.param_groups[0]['lr'] - expected) < 1e-12, epoch
        optimizer.step()
        scheduler.step()


def test_cosine_ends_before_a_cool_down_at_the_minimum():
    """timm's schedule of 300 epochs with 10 of cool-down."""
    optimizer = make_optimizer()
    settings = dict(type='WarmupCosineLR', warmup=5, eta_min=1e-5, cosine_end=300, by_epoch=True)
    scheduler = build(settings, optimizer, 310, 3)
    rates = []
    for _ in range(310):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    assert rates[:2] == pytest.approx([1e-5, 1e-5 + (1e-3 - 1e-5) / 5], rel=1e-12)
    cosine = [1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * epoch / 300)) / 2 for epoch in range(5, 300)]
    assert rates[5:300] == pytest.approx(cosine, rel=1e-12)
    assert rates[300:] == [1e-5] * 10


def test_cosine_without_warm_up_equals_that_of_mmengine():
    optimizer = make_optimizer(5e-3)
    scheduler = build(dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True), optimizer, 50, 3)
    for epoch in range(50):
        expected = 1e-6 + 0.5 * (5e-3 - 1e-6) * (1 + math.cos(math.pi * epoch / 50))
        assert abs(optimizer.param_groups[0]['lr'] - expected) < 1e-12, epoch
        optimizer.step()
        scheduler.step()


def test_invalid_lengths_are_reported():
    with pytest.raises(UserError, match=r'cannot split 2 steps at pct_start 0\.3'):
        OneCycleMomentum(make_optimizer(), total_steps=2)
    with pytest.raises(UserError, match='set total_steps'):
        OneCycleMomentum(make_optimizer())
    with pytest.raises(UserError, match='warmup 5 is out of range: set end, and choose from 1 to less than 5 steps'):
        WarmupCosineLR(make_optimizer(), warmup=5, end=5)
    with pytest.raises(UserError, match='cosine_end 6 is out of range: choose at most 5 steps'):
        WarmupCosineLR(make_optimizer(), warmup=1, end=5, cosine_end=6)
