"""Activation checkpointing that keeps BatchNorm statistics correct."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class FrozenRunningStats:
    """Context in which BatchNorm layers of ``module`` normalize as usual but do not update their running statistics.

    Without it, recomputing a block would count its batch twice.
    """

    def __init__(self, module: nn.Module):
        norms = (m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
        self.norms = [norm for norm in norms if norm.num_batches_tracked is not None]

    def __enter__(self):
        self.saved = [(norm.momentum, norm.get_buffer('num_batches_tracked').clone()) for norm in self.norms]
        for norm in self.norms:
            norm.momentum = 0.0

    def __exit__(self, *exc):
        for norm, (momentum, num_batches) in zip(self.norms, self.saved, strict=True):
            norm.momentum = momentum
            norm.get_buffer('num_batches_tracked').copy_(num_batches)


def recompute(block: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Compute ``run(x)``; its activations are recomputed in the backward pass instead of stored.

    Args:
        block: Module with the BatchNorm layers that ``run`` uses.
        run: The block, or an equivalent function.
        x: Input of the block.
    """
    return checkpoint(run, x, use_reentrant=False, context_fn=lambda: (nullcontext(), FrozenRunningStats(block)))
