"""Numerical precision of the training: fp32, or mixed with bfloat16 or float16, on GPUs and CPUs."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from mogacore.errors import UserError

from .optim import sub_wrappers

PRECISIONS = ('fp32', 'bf16', 'fp16')
DTYPES = {'bf16': 'bfloat16', 'fp16': 'float16'}
# Keys of the AMP wrappers that the others lack.
AMP_KEYS = ('dtype', 'loss_scale', 'use_fsdp')
WRAPPERS = ('OptimWrapper', 'AmpOptimWrapper', 'CpuAmpOptimWrapper')


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Optimizer wrapper that runs the forward pass under CPU autocast in bfloat16.

    mmengine's ``AmpOptimWrapper`` requires an accelerator; with this wrapper, a config that trains in mixed precision
    also runs on a CPU. bfloat16 has the range of fp32, so no loss scaling is needed.
    """

    @contextmanager
    def optim_context(self, model: nn.Module):
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield


def optim_wrappers(cfg: Config) -> Iterator[ConfigDict]:
    """Yield the config of every optimizer wrapper: one, or one per sub-model."""
    optim_wrapper = cfg.get('optim_wrapper') or ConfigDict()
    yield from sub_wrappers(optim_wrapper) or ([optim_wrapper] if optim_wrapper else [])


def set_precision(cfg: Config, precision: str | None = None) -> None:
    """Set the precision of every optimizer wrapper, in place, to one that the device runs at a useful speed.

    A CPU trains in bfloat16 instead of float16, and in fp32 if it has no instructions for bfloat16, where a step takes
    many times longer than in fp32. A GPU without bfloat16 trains in float16. Each replacement is logged.

    Args:
        cfg: Training config.
        precision: One of ``PRECISIONS``; 'amp' for mixed precision in the config's type, or in bfloat16; None for the
            config's precision.

    Raises:
        UserError: If the precision cannot be set on this device or on this kind of wrapper.
    """
    for wrapper in optim_wrappers(cfg):
        kind = wrapper.get('type', 'OptimWrapper')
        is_amp = kind in ('AmpOptimWrapper', 'CpuAmpOptimWrapper')
        if precision is None and not is_amp:
            continue
        if kind not in WRAPPERS:
            raise UserError(f'the config sets the precision of its {kind}: omit --precision and --amp')
        in_config = {'bfloat16': 'bf16'}.get(str(wrapper.get('dtype')).removeprefix('torch.'), 'fp16')
        automatic = in_config if is_amp else 'bf16'
        is_forced = precision in PRECISIONS
        _apply(wrapper, supported_precision(str(precision) if is_forced else automatic, is_forced))


def supported_precision(wanted: str, is_forced: bool = False) -> str:
    """The precision to use instead of ``wanted`` on this device; a difference is logged.

    Args:
        wanted: One of ``PRECISIONS``.
        is_forced: Keep ``wanted`` if the device is only slow at it.

    Raises:
        UserError: If ``wanted`` is forced and does not work on this device.
    """
    if wanted == 'fp32':
        return wanted
    if torch.cuda.is_available():
        if wanted == 'bf16' and not torch.cuda.is_bf16_supported():
            _warn('this GPU has no bfloat16: training in float16 with loss scaling')
            return 'fp16'
        return wanted
    if wanted == 'fp16' and is_forced:
        raise UserError('precision fp16 needs a GPU: use bf16 or fp32 on a CPU')
    if not cpu_has_bf16():
        if not is_forced:
            _warn('this CPU has no bfloat16 instructions: training in fp32, see --precision')
            return 'fp32'
        _warn('this CPU has no bfloat16 instructions: a step takes many times longer than in fp32')
    return 'bf16'


def cpu_has_bf16(cpuinfo: str | Path = '/proc/cpuinfo') -> bool:
    """Whether the CPU multiplies in bfloat16: AVX-512 BF16 or AMX on x86, BF16 on Arm. True if it is unknown."""
    try:
        text = Path(cpuinfo).read_text()
    except OSError:
        return True
    return re.search(r'\b(avx512_bf16|amx_bf16|bf16)\b', text) is not None


def _apply(wrapper: ConfigDict, precision: str) -> None:
    if precision == 'fp32' or not torch.cuda.is_available():
        wrapper.type = 'OptimWrapper' if precision == 'fp32' else CpuAmpOptimWrapper.__name__
        for key in AMP_KEYS:
            wrapper.pop(key, None)
        return
    wrapper.type = 'AmpOptimWrapper'
    if wrapper.get('dtype') != DTYPES[precision]:
        wrapper.dtype = DTYPES[precision]
        wrapper.loss_scale = 'dynamic'


def _warn(message: str) -> None:
    print_log(message, 'current', logging.WARNING)
