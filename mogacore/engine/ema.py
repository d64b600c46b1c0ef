"""Averaging of weights, and the running statistics of BatchNorm."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sized
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import cast

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel, ExponentialMovingAverage, is_model_wrapper
from mmengine.registry import HOOKS, MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from .loaders import batch_size


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


def _norms(model: nn.Module) -> Iterator[_BatchNorm]:
    return (m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats)


def _average_over_processes(norm: _BatchNorm) -> None:
    all_reduce(norm.running_mean, op='mean')
    all_reduce(norm.running_var, op='mean')


def _average_of(runner) -> EMAHook | None:
    return next((hook for hook in runner.hooks if isinstance(hook, EMAHook)), None)


@torch.no_grad()
def estimate_statistics(
    model: BaseModel,
    loader: DataLoader,
    num_samples: int,
    context: AbstractContextManager | None = None,
    description: str = '',
) -> None:
    """Set BatchNorm's running statistics to their mean over training batches of all processes.

    The batches go through the model as in training: batch augmentations such as Mixup, drop path and the head's loss
    included.

    Args:
        model: Model whose unfrozen BatchNorm layers are updated; left in training mode.
        loader: Source of the batches.
        num_samples: Number of images over all processes, rounded down to whole batches, at least one per process. The
            data set is passed once at most, also if the sampler is infinite.
        context: Context of the forward passes, such as autocast.
        description: Text of a progress bar on a terminal; '' shows none.
    """
    model.train()
    norms = [norm for norm in _norms(model) if norm.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch then computes the plain mean over batches
    per_step = batch_size(loader) * get_world_size()
    count = min(max(num_samples // per_step, 1), math.ceil(len(cast(Sized, loader.dataset)) / per_step))
    batches: Iterable = islice(loader, count)
    if description and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        batches = track(batches, description, total=count, transient=True, console=Console(stderr=True))
    with context or nullcontext():
        for data in batches:
            model(**model.data_preprocessor(data, True), mode='loss')
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        _average_over_processes(norm)


@HOOKS.register_module()
class PreciseBatchNormHook(Hook):
    """Re-estimates BatchNorm's statistics on training batches at the end of each epoch.

    mmpretrain's PreciseBNHook leaves out the batch augmentations, with which the network is trained, and does not know
    averages of the weights. With an EMAHook, this hook estimates the statistics of the averaged weights and sets them
    in both models, so that validation and checkpoints use them; training itself normalizes with batch statistics.

    Args:
        num_samples: Number of images over all processes.

    Source: OpenMixup, whose PreciseBNHook runs the training forward pass, and whose EMA hook puts the averaged weights
        into the model before.
    """

    def __init__(self, num_samples: int = 8192):
        self.num_samples = num_samples

    def after_train_epoch(self, runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        hook = _average_of(runner)
        estimated = hook.ema_model.module if hook else model
        context = runner.optim_wrapper.optim_context(runner.model)
        estimate_statistics(estimated, runner.train_dataloader, self.num_samples, context)
        if hook:
            for ours, theirs in zip(model.buffers(), estimated.buffers(), strict=True):
                ours.copy_(theirs)


@HOOKS.register_module()
class ReduceStatisticsHook(Hook):
    """Averages BatchNorm's running statistics over all processes at the end of each epoch.

    The statistics of an average of the weights are averaged too. mmengine's SyncBuffersHook covers only the weights
    being trained.

    Source: ``--dist_bn reduce`` of timm's training script.
    """

    def after_train_epoch(self, runner) -> None:
        hook = _average_of(runner)
        for model in (runner.model, hook.ema_model) if hook else (runner.model,):
            for norm in _norms(model):
                _average_over_processes(norm)
