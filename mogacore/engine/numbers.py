"""Ends a run at inputs, losses, gradients and weights that are not finite (nan or infinite)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import cast

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn.utils import clip_grad_value_
from torch.optim import Optimizer
from torch.utils.data import Dataset

from mogacore.checkpoint import not_finite
from mogacore.errors import UserError

from .loaders import describe_dataset
from .optim import named_wrappers

# A loss scale of 65,536, the usual first one, falls below 0.0001: no gradient needs that.
MAX_SKIPPED = 30


@HOOKS.register_module()
class FiniteHook(Hook):
    """Ends a run at numbers that are not finite, before a checkpoint contains them; warns of metrics that are not.

    - Inputs and the tensors of data samples are checked before they leave the CPU.
    - Losses are checked after each step. mmengine reads each of them for its log at that point, so that the device is
      idle anyway; losses and norms of the gradients are read together in one transfer.
    - Gradients are checked where the optimizer applies them. A loss scaler skips single steps whose gradients overflow;
      ``MAX_SKIPPED`` of them in a row end the run.
    - What clipping hides is checked, too: an infinite norm of gradients that are finite themselves, since clipping sets
      all of them to 0, and infinite gradients that clipping by value makes finite.
    - Weights are checked before a checkpoint is saved.

    Raises:
        UserError: For the first number that is not finite.
    """

    priority = 'VERY_HIGH'  # after the mean over processes, before weights are averaged or saved

    def __init__(self) -> None:
        self.norms: list[tuple[list[nn.Parameter], Tensor]] = []
        self.overflows: list[Tensor] = []
        self.total_norms: list[Tensor] = []
        self.num_steps = self.num_skipped = 0

    def before_train(self, runner) -> None:
        for wrapper in named_wrappers(runner).values():
            has_scaler = _scaler(wrapper) is not None
            wrapper.optimizer.register_step_pre_hook(
                lambda optimizer, args, kwargs, has_scaler=has_scaler: self._before_step(optimizer, has_scaler)
            )
            if _clips(wrapper):
                wrapper.clip_func = partial(self._clip, wrapper.clip_func, has_scaler)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        self.norms, self.overflows, self.total_norms, self.num_steps = [], [], [], 0
        check_batch(data_batch, runner.train_dataloader.dataset)

    def before_val_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        check_batch(data_batch, runner.val_dataloader.dataset)

    def before_test_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        check_batch(data_batch, runner.test_dataloader.dataset)

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, has_scaler: bool) -> None:
        self.num_steps += 1
        if has_scaler:  # it checks the gradients itself; a fused optimizer then leaves out the step
            if (overflow := getattr(optimizer, 'found_inf', None)) is not None:
                self.overflows.append(overflow)
            return
        self._check_gradients(param for group in optimizer.param_groups for param in group['params'])

    def _clip(self, clip: Callable, has_scaler: bool, params: list[nn.Parameter], **settings) -> Tensor | None:
        """Call ``clip``, and keep what its result no longer shows."""
        if clip is clip_grad_value_ and not has_scaler:  # a scaler has checked the gradients before
            self._check_gradients(params)
        norm = clip(params, **settings)
        if norm is not None and has_scaler:
            self.overflows.append(~norm.isfinite())
        elif norm is not None:
            self.total_norms.append(norm)
        return norm

    @torch.no_grad()
    def _check_gradients(self, params: Iterable[nn.Parameter]) -> None:
        pairs = [(param, param.grad) for param in params if param.grad is not None and param.grad.numel()]
        if pairs:
            self.norms.append(([param for param, _ in pairs], _largest([grad for _, grad in pairs])))

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        losses = {name: value for name, value in (outputs or {}).items() if 'loss' in name and _is_number(value)}
        values = [torch.as_tensor(value).detach().reshape(1) for value in losses.values()]
        values += [norms for _, norms in self.norms] + [norm.detach().reshape(1) for norm in self.total_norms]
        if values:
            numbers = torch.cat([value.to(values[0].device, torch.float32) for value in values]).tolist()
            if not all(map(math.isfinite, numbers)):
                raise UserError(f'{self._name(runner, losses, numbers)} {_place(runner)}: {_advice(runner)}')
        self._count_skipped(runner)

    def _name(self, runner, losses: dict, numbers: list[float]) -> str:
        """Name and value of the first number that is not finite: part of the loss, loss, gradient, or their norm."""
        names = {id(param): name for name, param in _unwrapped(runner.model).named_parameters()}
        gradients = [f'the gradient of {names.get(id(p), "a parameter")}' for params, _ in self.norms for p in params]
        totals = ['the norm of all gradients, by which clipping divides them,'] * len(self.total_norms)
        checked = zip([*losses, *gradients, *totals], numbers, strict=True)
        broken = [pair for pair in checked if not math.isfinite(pair[1])]
        parts = [pair for pair in broken if pair[0] in losses and pair[0] != 'loss']
        name, number = (parts or broken)[0]
        return f'{name} is {number}'

    def _count_skipped(self, runner) -> None:
        wrappers = [wrapper for wrapper in named_wrappers(runner).values() if _scaler(wrapper) is not None]
        if not any(wrapper.should_update() for wrapper in wrappers):
            return
        is_skipped = not self.num_steps or any(overflow.item() for overflow in self.overflows)
        self.num_skipped = self.num_skipped + 1 if is_skipped else 0
        if self.num_skipped == MAX_SKIPPED:
            raise UserError(
                f'gradients are not finite in {MAX_SKIPPED} steps in a row, the last {_place(runner)} with a loss '
                f'scale of {_scaler(wrappers[0]).get_scale():.2g}: {_advice(runner)}'
            )

    @torch.no_grad()
    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        model = _unwrapped(runner.model)
        params = dict(model.named_parameters())
        broken = not_finite({**params, **dict(model.named_buffers())}, params)
        if broken:
            done = checkpoint['meta']['iter']
            raise UserError(f'no checkpoint is saved after iteration {done}, since {broken[0]}: {_advice(runner)}')

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        self._warn(runner, metrics or {})

    def after_test_epoch(self, runner, metrics: dict | None = None) -> None:
        self._warn(runner, metrics or {})

    @staticmethod
    def _warn(runner, metrics: Mapping) -> None:
        broken = [
            f'{name} {value}' for name, value in metrics.items() if _is_number(value) and not math.isfinite(value)
        ]
        if broken:
            runner.logger.warning(
                f'metrics that are not finite: {", ".join(broken)}. A score of a class without samples is nan and the '
                'PSNR of exact frames is inf; otherwise, check the weights and the data'
            )


def check_batch(batch, dataset: Dataset) -> None:
    """Check that the inputs of a batch, and the tensors of its data samples, are finite.

    Tensors on a GPU are not checked, since this would synchronize it.

    Args:
        batch: What the loader yields; only dicts with ``inputs`` are checked.
        dataset: Its data set, for the message.

    Raises:
        UserError: If a number is not finite; the message names the tensor, the sample and the data set.
    """
    if not isinstance(batch, Mapping):
        return
    samples = batch.get('data_samples')
    samples = samples if isinstance(samples, (list, tuple)) else []
    found = [('inputs', index) for index, tensor in _tensors(batch.get('inputs')) if not _is_finite(tensor)]
    for index, sample in enumerate(samples):
        if not found and isinstance(sample, BaseDataElement):
            found = [
                (key, index) for key, value in sample.items() if isinstance(value, Tensor) and not _is_finite(value)
            ]
    if found:
        key, index = found[0]
        of = f' of {_describe_sample(samples[index])}' if index < len(samples) else ''
        raise UserError(
            f'{key}{of} in {describe_dataset(dataset)} contain nan or infinite values: correct this sample, or '
            'remove it from the data set'
        )


def _tensors(inputs) -> Iterator[tuple[int, Tensor]]:
    """Yield each tensor of the inputs with its position in the batch; of a stacked batch, only a sample not finite."""
    if isinstance(inputs, Mapping):
        for value in inputs.values():
            yield from _tensors(value)
    elif isinstance(inputs, (list, tuple)):
        yield from ((index, value) for index, value in enumerate(inputs) if isinstance(value, Tensor))
    elif isinstance(inputs, Tensor) and not _is_finite(inputs):
        yield from enumerate(inputs)


def _is_finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() and tensor.device.type == 'cpu' and tensor.numel()):
        return True
    return all(map(math.isfinite, torch.stack(torch.aminmax(tensor)).tolist()))  # nan if any element is


def _describe_sample(sample) -> str:
    fields = {key: sample.get(key) for key in ('img_path', 'name', 'sample_idx')} if hasattr(sample, 'get') else {}
    return next((str(value) for value in fields.values() if value is not None), 'a sample')


def _largest(tensors: list[Tensor]) -> Tensor:
    """Largest magnitude in each tensor; nan if any element is."""
    tensors = [tensor._values() if tensor.is_sparse else tensor.detach() for tensor in tensors]
    norms = torch._foreach_norm(tensors, math.inf)
    return torch.stack([norm.to(norms[0].device, torch.float32) for norm in norms])


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) or (getattr(value, 'size', None) is not None and _numel(value) == 1)


def _numel(value) -> int:
    return value.numel() if isinstance(value, Tensor) else value.size


def _scaler(wrapper):
    """The loss scaler of an optimizer wrapper, None if there is none that is enabled."""
    scaler = getattr(wrapper, 'loss_scaler', None)
    return scaler if scaler is not None and scaler.is_enabled() else None


def _clips(wrapper) -> bool:
    return bool(getattr(wrapper, 'clip_grad_kwargs', None))


def _unwrapped(model: nn.Module) -> nn.Module:
    return cast('nn.Module', model.module) if is_model_wrapper(model) else model


def _place(runner) -> str:
    return f'at iteration {runner.iter + 1} (epoch {runner.epoch + 1})'


def _advice(runner) -> str:
    wrappers = named_wrappers(runner).values()
    steps = ['check the labels', 'lower the learning rate']
    if not all(map(_clips, wrappers)):
        steps.append('clip the gradients')
    if any(hasattr(wrapper, 'loss_scaler') for wrapper in wrappers):
        steps.append('train with --precision fp32')
    pointer = Path(runner.work_dir) / 'last_checkpoint'
    kept = f'; the last checkpoint, {pointer.read_text().strip()}, is intact' if pointer.is_file() else ''
    comma = ',' if len(steps) > 2 else ''
    return f'{", ".join(steps[:-1])}{comma} or {steps[-1]}{kept}'
