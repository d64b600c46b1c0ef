"""float16 on a CPU for training_numbers.py; mogacore offers it on GPUs only, since a step takes 30 times as long."""

from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CpuFloat16OptimWrapper(OptimWrapper):
    """Optimizer wrapper that runs the forward pass under autocast in float16, and scales the loss as on a GPU."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.loss_scaler = torch.amp.GradScaler('cpu')

    @contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.float16):
            yield

    def backward(self, loss, **settings):
        self.loss_scaler.scale(loss).backward(**settings)
        self._inner_count += 1

    def step(self, **settings):
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **settings)
        self.loss_scaler.update()
