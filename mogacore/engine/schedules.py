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
    """Momentum, or the first beta of Adam, that goes down while mmengine's OneCycleLR goes up, and up again.

    torch's OneCycleLR does both, mmengine's the rate alone. The momentum goes from ``max_momentum`` to
    ``base_momentum`` and back, in half a cosine each.

    Args:
        optimizer: Optimizer or its wrapper.
        total_steps: Steps of the whole cycle; None is ``end - begin``.
        pct_start: Share of the steps after which the momentum is lowest, 0..1.
        base_momentum: Lowest momentum.
        max_momentum: Momentum at the start and at the end.
        begin: First step.
        end: Step after the last one.
        last_step: As of mmengine's schedulers.
        by_epoch: Whether a step is an epoch; ``convert_to_iter_based=True`` in a config makes it an iteration.
        verbose: As of mmengine's schedulers.

    Raises:
        UserError: If no number of steps is given, or ``pct_start`` leaves no step for one of the ways.

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
                f'OneCycleMomentum cannot turn after {pct_start} of {self.total_steps} steps: give total_steps, or '
                'train longer'
            )
        self.base_momentum, self.max_momentum = base_momentum, max_momentum
        super().__init__(optimizer, begin=begin, end=end, last_step=last_step, by_epoch=by_epoch, verbose=verbose)

    @classmethod
    def build_iter_from_epoch(
        cls, *args, begin=0, end=INF, total_steps=None, by_epoch=True, epoch_length=None, **kwargs
    ):
        """One that steps by iteration, from settings in epochs of ``epoch_length`` iterations."""
        assert by_epoch and epoch_length, 'only settings in epochs of a known length can be converted'
        return cls(
            *args,
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
    """A linear warm-up that jumps onto a cosine which counts from the very start, not from the end of the warm-up.

    At step e below W the rate is ``warmup_start + e * (lr - warmup_start) / W``, later ``eta_min + (lr - eta_min) *
    (1 + cos(pi e / E)) / 2``. mmengine's LinearLR and CosineAnnealingLR in a row multiply the two, or shift the cosine.

    Args:
        optimizer: Optimizer or its wrapper.
        warmup: Steps W of the warm-up.
        warmup_start: Rate of the first step.
        eta_min: Rate that the cosine ends at.
        begin: First step.
        end: Step E after the last one.
        last_step: As of mmengine's schedulers.
        by_epoch: Whether a step is an epoch.
        verbose: As of mmengine's schedulers.

    Raises:
        UserError: If no ``end`` is given, or the warm-up is longer than all.

    Source: the cosine schedule of timm as OpenSTL calls it.
    """

    def __init__(
        self,
        optimizer,
        warmup: int,
        warmup_start: float = 1e-5,
        eta_min: float = 1e-6,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ):
        if end >= INF or not 0 < warmup < end - begin:
            raise UserError(f'a warm-up of {warmup} of {end - begin} steps does not fit: give fewer, and an end')
        self.warmup, self.warmup_start, self.eta_min, self.num_steps = warmup, warmup_start, eta_min, end - begin
        super().__init__(optimizer, begin=begin, end=end, last_step=last_step, by_epoch=by_epoch, verbose=verbose)

    def _get_value(self) -> list[float]:
        step = self.last_step
        if step < self.warmup:
            return [self.warmup_start + step * (lr - self.warmup_start) / self.warmup for lr in self.base_values]
        cosine = (1 + math.cos(math.pi * step / self.num_steps)) / 2
        return [self.eta_min + (lr - self.eta_min) * cosine for lr in self.base_values]
