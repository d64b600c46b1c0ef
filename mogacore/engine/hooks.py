"""Training hooks that no task library provides."""

from __future__ import annotations

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class ReduceLossHook(Hook):
    """Averages the losses of a step over all processes before they are logged.

    Without it the log shows the loss of rank 0 only; the mean is what a single process with the whole batch would log.
    """

    priority = 'HIGHEST'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if outputs is None or get_world_size() == 1:
            return
        names = [name for name, value in outputs.items() if isinstance(value, torch.Tensor) and value.numel() == 1]
        if not names:
            return
        values = torch.stack([outputs[name].detach().float().reshape(()) for name in names])
        all_reduce(values, op='mean')
        outputs.update(zip(names, values, strict=True))
