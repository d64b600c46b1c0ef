"""Training hooks that no task library provides."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mogacore.errors import UserError


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


@HOOKS.register_module()
class CheckMapsHook(Hook):
    """Checks the values of every class map of a batch against the decode head before the model sees it.

    The check before training reads a sample of the maps only. A wrong value would otherwise stop a GPU with an
    unrelated message, or be counted as an error of the model in a test.

    Raises:
        UserError: If a value is too high; the line names the file.
    """

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        head = _decode_head(runner.model)
        for sample in data_batch['data_samples']:
            # With test-time augmentation, each is the sequence of one view of every image.
            for view in sample if isinstance(sample, list | tuple) else [sample]:
                _check_values(view, head)

    before_val_iter = before_test_iter = before_train_iter


def _check_values(sample, head) -> None:
    if 'gt_sem_seg' not in sample:
        return
    values = sample.gt_sem_seg.data
    bad = values[(values >= head.num_classes) & (values != head.ignore_index)]
    if len(bad):
        raise UserError(
            f'map {sample.get("seg_map_path")} has the value {int(bad[0])} where the model has {head.num_classes} '
            f'classes: 0 to {head.num_classes - 1} and {head.ignore_index} are allowed, counted after '
            'reduce_zero_label; correct the map, num_classes or reduce_zero_label'
        )


def _decode_head(model) -> Any:
    while hasattr(model, 'module'):
        model = model.module
    head = model.decode_head
    return head[-1] if isinstance(head, torch.nn.ModuleList) else head
