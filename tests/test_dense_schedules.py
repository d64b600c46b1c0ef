"""The learning rate of the published schedules at every iteration: mmcv's warm-up times its poly or step decay."""

import mmengine.optim  # noqa: F401, registers the schedulers
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

# Published: warm-up iterations, their first factor, and either power and iterations or steps and epochs.
POLY = {
    'segmentation/semantic-fpn_moganet-tiny_80k_ade20k-512x512': (0, 1.0, 0.9, 80000),
    'segmentation/upernet_moganet-tiny_160k_ade20k-512x512': (1500, 1e-6, 1.0, 160000),
}
STEP = {
    'detection/retinanet_moganet-tiny_fpn_1x_coco': (500, 0.001, (8, 11), 12),
    'detection/mask-rcnn_moganet-tiny_fpn_ms-3x_coco': (500, 0.001, (27, 33), 36),
    'detection/cascade-mask-rcnn_moganet-base_fpn_4conv1fc-giou_ms-3x_coco': (1000, 0.001, (27, 33), 36),
    'pose/td-hm_moganet-tiny_210e_coco-256x192': (500, 0.001, (170, 200), 210),
}


def warmup_factor(iteration, warmup, first):
    """mmcv 1.x, LrUpdaterHook with warmup='linear'."""
    return 1 - (1 - iteration / warmup) * (1 - first) if iteration < warmup else 1.0


def schedulers(name):
    """Optimizer with rate 1, and the config's schedulers by unit."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py', import_custom_modules=False)
    built = [
        PARAM_SCHEDULERS.build(scheduler, default_args=dict(optimizer=optimizer)) for scheduler in cfg.param_scheduler
    ]
    return optimizer.param_groups[0], [s for s in built if not s.by_epoch], [s for s in built if s.by_epoch]


def step_all(schedulers):
    for scheduler in schedulers:
        scheduler.step()


@pytest.mark.parametrize('name', POLY)
def test_poly_counts_from_iteration_0_times_the_warm_up(name):
    warmup, first, power, iterations = POLY[name]
    group, by_iteration, by_epoch = schedulers(name)
    assert not by_epoch
    worst = 0.0
    for i in range(iterations):
        expected = (1 - i / iterations) ** power * warmup_factor(i, warmup, first)
        worst = max(worst, abs(group['lr'] / expected - 1))
        step_all(by_iteration)
    assert worst < 1e-8


@pytest.mark.parametrize('name', STEP)
def test_step_decay_after_a_linear_warm_up(name):
    warmup, first, steps, epochs = STEP[name]
    group, by_iteration, by_epoch = schedulers(name)
    iteration = 0
    for epoch in range(epochs):
        for _ in range(warmup + 10 if epoch == 0 else 2):
            expected = 0.1 ** sum(epoch >= step for step in steps) * warmup_factor(iteration, warmup, first)
            assert group['lr'] == pytest.approx(expected, rel=1e-9)
            iteration += 1
            step_all(by_iteration)
        step_all(by_epoch)
