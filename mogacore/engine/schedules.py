"""Parameter schedules of the published video predictors that mmengine lacks."""

from __future__ import annotations

import math

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.momentum_scheduler import MomentumSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF, _ParamScheduler
from mmengine.registry import PARAM_SCHEDULERS

from mogacore.errors import UserError


@PARAM_SCHEDULERS.register_module()
class OneCycleMomentum(MomentumSchedulerMixin, _ParamScheduler):
    """Momentum, or Adam's first beta, that falls while mmengine's OneCycleLR rises, and then rises again.

    torch's OneCycleLR schedules both, mmengine's only the learning rate. The momentum goes from ``max_momentum`` to
    ``base_momentum`` and back, each along half a cosine period.

    Args:
        optimizer: Optimizer or its wrapper.
        total_steps: Number of steps of the whole cycle; None means ``end - begin``.
        pct_start: Fraction of the steps after which the momentum is lowest, 0 to 1.
        base_momentum: Lowest momentum.
        max_momentum: Momentum at the start and at the end.
        begin: First step.
        end: Step after the last one.
        last_step: As in mmengine's schedulers.
        by_epoch: Whether a step is an epoch; ``convert_to_iter_based=True`` in a config makes it an iteration.
        verbose: As in mmengine's schedulers.

    Raises:
        UserError: If the number of steps is not given, or ``pct_start`` leaves no step for one of the phases.

    Source: torch.optim.lr_scheduler.OneCycleLR with ``cycle_momentum=True``.
    """

    def __init__(
        self,
        optimizer,
        total_steps: int | None = None,
        pct_start: float = 0.3,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ):
        self.total_steps = end - begin if total_steps is None else total_steps
        self.turn = pct_start * self.total_steps - 1
        if self.total_steps >= INF or not 0 < self.turn < self.total_steps - 1:
            raise UserError(
                f'OneCycleMomentum cannot split {self.total_steps} steps at pct_start {pct_start}: set total_steps, or '
                'train longer'
            )
        self.base_momentum, self.max_momentum = base_momentum, max_momentum
        super().__init__(optimizer, begin=begin, end=end, last_step=last_step, by_epoch=by_epoch, verbose=verbose)

    @classmethod
    def build_iter_from_epoch(
        cls, optimizer, *, begin=0, end=INF, total_steps=None, by_epoch=True, epoch_length=None, **kwargs
    ):
        """Build a schedule that steps per iteration from settings in epochs of ``epoch_length`` iterations."""
        assert by_epoch and epoch_length, 'only settings in epochs of a known length can be converted'
        return cls(
            optimizer,
            begin=begin * epoch_length,
            end=end if end == INF else end * epoch_length,
            total_steps=None if total_steps is None else total_steps * epoch_length,
            by_epoch=False,
            **kwargs,
        )

    def _get_value(self) -> list[float]:
        step = self.last_step
        if step <= self.turn:
            start, end, progress = self.max_momentum, self.base_momentum, step / self.turn
        else:
            start, end = self.base_momentum, self.max_momentum
            progress = (step - self.turn) / (self.total_steps - 1 - self.turn)
        value = end + (start - end) / 2 * (1 + math.cos(math.pi * progress))
        return [value] * len(self.optimizer.param_groups)


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(LRSchedulerMixin, _ParamScheduler):
    """A linear warm-up followed by a cosine that counts from step 0 instead of the end of the warm-up.

    At step e < W the rate is ``warmup_start + e * (lr - warmup_start) / W``, afterwards ``eta_min + (lr - eta_min) *
    (1 + cos(pi e / E)) / 2``, and from step E on ``eta_min``. Chaining mmengine's LinearLR and CosineAnnealingLR
    multiplies the two or shifts the cosine.

    Args:
        optimizer: Optimizer or its wrapper.
        warmup: Number of warm-up steps, W.
        warmup_start: Learning rate at the first step.
        eta_min: Learning rate at the end of the cosine.
        cosine_end: Step at which the cosine ends, E; None means ``end``.
        begin: First step.
        end: Step after the last one.
        last_step: As in mmengine's schedulers.
        by_epoch: Whether a step is an epoch.
        verbose: As in mmengine's schedulers.

    Raises:
        UserError: If ``end`` is not given, the warm-up is not shorter than the cosine, or the cosine ends after it.

    Source: timm's cosine schedule, as used by OpenSTL and, with 10 epochs of cool-down, by the MogaNet release.
    """

    def __init__(
        self,
        optimizer,
        warmup: int,
        warmup_start: float = 1e-5,
        eta_min: float = 1e-6,
        cosine_end: int | None = None,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ):
        num_steps = end - begin if cosine_end is None else cosine_end
        if end >= INF or not 0 < warmup < num_steps:
            raise UserError(
                f'warmup {warmup} is out of range: set end, and choose from 1 to less than {num_steps} steps'
            )
        if num_steps > end - begin:
            raise UserError(f'cosine_end {num_steps} is out of range: choose at most {end - begin} steps')
        self.warmup, self.warmup_start, self.eta_min, self.num_steps = warmup, warmup_start, eta_min, num_steps
        super().__init__(optimizer, begin=begin, end=end, last_step=last_step, by_epoch=by_epoch, verbose=verbose)

    def _get_value(self) -> list[float]:
        step = self.last_step
        if step < self.warmup:
            return [self.warmup_start + step * (lr - self.warmup_start) / self.warmup for lr in self.base_values]
        cosine = (1 + math.cos(math.pi * min(step / self.num_steps, 1))) / 2
        return [self.eta_min + (lr - self.eta_min) * cosine for lr in self.base_values]
