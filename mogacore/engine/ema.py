"""Averages of weights that mmengine lacks."""

from __future__ import annotations

from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class LinearWarmupEMA(ExponentialMovingAverage):
    """Exponential moving average whose decay grows linearly to its final value.

    Args:
        model: Model to average.
        momentum: Weight of the newest values, 1 - decay, once warm.
        start_factor: First decay over the final one.
        warmup_iters: Updates until the final decay.
        **kwargs: Further settings of mmengine's average, e.g. ``update_buffers``.

    Source: OpenMixup's EMA recipe of MogaNet (decay 0.9 x 0.9999 to 0.9999 over 20 epochs).
    """

    def __init__(
        self, model: nn.Module, momentum: float = 1e-4, start_factor: float = 0.9, warmup_iters: int = 0, **kwargs
    ):
        super().__init__(model, momentum=momentum, **kwargs)
        self.start_factor = start_factor
        self.warmup_iters = warmup_iters

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
        progress = min(steps / self.warmup_iters, 1.0) if self.warmup_iters else 1.0
        decay = (1 - self.momentum) * (self.start_factor + (1 - self.start_factor) * progress)
        averaged_param.lerp_(source_param, 1 - decay)
