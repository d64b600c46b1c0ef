"""Averaging of weights, and BatchNorm statistics for the average."""

from __future__ import annotations

from itertools import islice

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel, ExponentialMovingAverage
from mmengine.registry import HOOKS, MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from mogacore.errors import UserError


@MODELS.register_module()
class LinearWarmupEMA(ExponentialMovingAverage):
    """Exponential moving average whose decay increases linearly to its final value.

    Args:
        model: Model to average.
        momentum: Weight of the newest values, 1 - decay, after the warm-up.
        start_factor: Ratio of the first decay to the final one.
        warmup_iters: Number of updates until the final decay.
        **kwargs: Further settings of mmengine's average, such as ``update_buffers``.

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


@torch.no_grad()
def estimate_statistics(model: BaseModel, loader: DataLoader, num_samples: int) -> None:
    """Set BatchNorm's running statistics to their mean over batches of training images of all processes.

    Args:
        model: Model whose unfrozen BatchNorm layers are updated; left in training mode.
        loader: Source of the images; batch augmentations such as Mixup are not applied.
        num_samples: Number of images over all processes, rounded down to whole batches, at least one per process.
    """
    model.train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch then computes the plain mean over batches
    for data in islice(loader, max(num_samples // (loader.batch_size * get_world_size()), 1)):
        model(**model.data_preprocessor(data, False))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        all_reduce(norm.running_mean, op='mean')
        all_reduce(norm.running_var, op='mean')


@HOOKS.register_module()
class AveragePreciseBNHook(Hook):
    """Re-estimates BatchNorm's statistics for the averaged weights at the end of each epoch.

    mmpretrain's PreciseBNHook does this only for the weights being trained. Validation would then combine the averaged
    weights with those statistics, and a checkpoint would combine them with the running statistics: both are wrong, and
    they differ. This hook sets the statistics of the average in both models; training itself normalizes with batch
    statistics.

    Args:
        num_samples: Number of images over all processes.

    Source: OpenMixup, whose EMA hook puts the averaged weights into the model before the statistics are estimated.
    """

    def __init__(self, num_samples: int = 8192):
        self.num_samples = num_samples

    def before_train(self, runner) -> None:
        if not any(isinstance(hook, EMAHook) for hook in runner.hooks):
            raise UserError(
                'AveragePreciseBNHook needs an EMAHook in custom_hooks: add one, or use PreciseBNHook instead'
            )

    def after_train_epoch(self, runner) -> None:
        hook = next(hook for hook in runner.hooks if isinstance(hook, EMAHook))
        average = hook.ema_model.module
        estimate_statistics(average, runner.train_dataloader, self.num_samples)
        for ours, theirs in zip(hook.src_model.buffers(), average.buffers(), strict=True):
            ours.copy_(theirs)
