"""Number of CPU threads of a training run, chosen by the size of its convolutions and matrix products.

A second thread gains nothing where operators are small: it costs about 10 microseconds per operator, and more where
other processes use the cores. The choice must not depend on measured times, though: sums over a batch are split among
the threads, so their number changes the last bits of the weights, and a run with the same seed must give the same
weights. The first step therefore counts multiply-adds, and a checkpoint keeps the number for the resumed run.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.utils._python_dispatch import TorchDispatchMode

# Multiply-adds of an average product for each thread, see docs/benchmarks.md.
MACS_PER_THREAD = 2_000_000
USER_VARIABLES = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')


class CountProducts(TorchDispatchMode):
    """Context that counts convolutions and matrix products, those of backward passes included.

    Attributes:
        calls: Number of operators.
        macs: Their multiply-adds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.macs = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        macs = count_product(func.overloadpacket.__name__, args, out)
        self.calls += macs > 0
        self.macs += macs
        return out


def count_product(name: str, args: tuple, out: Any) -> int:
    """Multiply-adds of one call of an ATen operator; 0 if it is neither a convolution nor a matrix product.

    Args:
        name: Name without overload, for example ``convolution``.
        args: Positional arguments.
        out: Result, a tensor or a tuple of tensors.
    """
    if name == 'convolution':
        weight, is_transposed = args[1], args[6]
        return (args[0] if is_transposed else out).numel() * weight[0].numel()
    if name == 'convolution_backward':
        grad, x, weight, is_transposed, mask = args[0], args[1], args[2], args[7], args[10]
        return (x if is_transposed else grad).numel() * weight[0].numel() * sum(mask[:2])
    if name in ('mm', 'bmm'):
        return out.numel() * args[0].shape[-1]
    if name in ('addmm', 'baddbmm'):
        return out.numel() * args[1].shape[-1]
    return 0


def choose_threads(macs_per_product: float, available: int) -> int:
    """Number of threads for products of an average size: one per ``MACS_PER_THREAD``, at most ``available``."""
    return max(1, min(available, math.floor(macs_per_product / MACS_PER_THREAD)))


def is_chosen_by_user(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the user has set the number of threads, by an environment variable or ``torch.set_num_threads``."""
    return any(environ.get(name) for name in USER_VARIABLES) or torch.get_num_threads() not in default_threads()


def default_threads(topology: Path = Path('/sys/devices/system/cpu')) -> set[int]:
    """Numbers of threads that torch may start with: of the logical and of the physical cores of this process.

    Args:
        topology: Folder in which Linux describes the cores.
    """
    cores = os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else range(os.cpu_count() or 1)
    files = [topology / f'cpu{core}' / 'topology' / 'thread_siblings_list' for core in cores]
    return {len(files), len({path.read_text() if path.exists() else path for path in files})}


@HOOKS.register_module()
class ChooseThreadsHook(Hook):
    """Sets the number of threads after the first training step of a run, and keeps it in checkpoints.

    Attributes:
        num_threads: The number, once it is chosen.
    """

    num_threads: int | None = None
    is_set = False

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if runner._resume and (number := checkpoint['meta'].get('num_threads')):
            self.num_threads = number

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint['meta']['num_threads'] = self.num_threads

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        if self.is_set:
            return
        self.is_set = True
        if self.num_threads is None:
            self._count_step(runner)
        else:
            self._set(runner, self.num_threads, 'as before the run was resumed')

    def _count_step(self, runner) -> None:
        """Count the products of the next training step; the method is replaced for that step alone."""
        model, step = runner.model, runner.model.train_step

        def counted(*args, **kwargs):
            del model.train_step
            with CountProducts() as products:
                out = step(*args, **kwargs)
            size = products.macs / max(products.calls, 1)
            self.num_threads = choose_threads(size, torch.get_num_threads())
            self._set(runner, self.num_threads, f'{size / 1e6:.1f} million multiply-adds per convolution or product')
            return out

        model.train_step = counted

    @staticmethod
    def _set(runner, number: int, reason: str) -> None:
        available = torch.get_num_threads()
        torch.set_num_threads(min(number, available))
        runner.logger.info(
            f'training uses {torch.get_num_threads()} of {available} CPU threads ({reason}); to use another number, '
            'set the environment variable OMP_NUM_THREADS'
        )


def add_thread_choice(cfg: Config, launcher: str) -> None:
    """Let a training run on the CPU choose its number of threads; changes the config in place.

    Nothing is chosen on a GPU, for several processes (the launcher divides the cores), for a compiled model, or where
    :func:`is_chosen_by_user`.
    """
    if not (torch.cuda.is_available() or launcher != 'none' or cfg.get('compile') or is_chosen_by_user()):
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type=ChooseThreadsHook.__name__)]
