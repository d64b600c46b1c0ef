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
    """Checks every class map of a batch before the model sees it: its size, and its values against the decode head.

    The check before training reads a sample of the maps only. A wrong value would otherwise stop a GPU with an
    unrelated message, or be counted as an error of the model in a test.

    Raises:
        UserError: If a map does not fit; the line names the file.
    """

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        for image, sample in zip(data_batch['inputs'], data_batch['data_samples'], strict=True):
            self._check(runner, sample, tuple(image.shape[-2:]))

    def before_val_iter(self, runner, batch_idx, data_batch=None) -> None:
        for sample in data_batch['data_samples']:
            # With test-time augmentation, each is the sequence of one view of every image.
            for view in sample if isinstance(sample, list | tuple) else [sample]:
                self._check(runner, view, tuple(view.ori_shape))

    before_test_iter = before_val_iter

    def _check(self, runner, sample, size: tuple[int, int]) -> None:
        if 'gt_sem_seg' not in sample:
            return
        values, path = sample.gt_sem_seg.data, sample.get('seg_map_path')
        if values.ndim != 3 or tuple(values.shape[-2:]) != size:
            shape = ' x '.join(map(str, values.squeeze().shape))
            raise UserError(
                f'map {path} becomes {shape} values for an image of {size[0]} x {size[1]} (height x width): make each '
                'map a single-channel image of the size of its image'
            )
        head = _decode_head(runner.model)
        bad = values[(values >= head.num_classes) & (values != head.ignore_index)]
        if len(bad):
            raise UserError(
                f'map {path} has the value {int(bad[0])} where the model has {head.num_classes} classes: 0 to '
                f'{head.num_classes - 1} and {head.ignore_index} are allowed, counted after reduce_zero_label; '
                'correct the map, num_classes or reduce_zero_label'
            )


def _decode_head(model) -> Any:
    while hasattr(model, 'module'):
        model = model.module
    head = model.decode_head
    return head[-1] if isinstance(head, torch.nn.ModuleList) else head
