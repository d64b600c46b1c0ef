"""Mixed precision on a CPU, which mmengine does not offer."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn


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
