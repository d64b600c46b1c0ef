"""The published initialization, shared by the backbone, its ablations and the video predictor."""

from __future__ import annotations

import math

from torch import nn


def init_convolutions(module: nn.Module) -> None:
    """Initialize every convolution in ``module`` as published: normal with std sqrt(2 / fan_out), zero bias."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            fan_out = math.prod(m.kernel_size) * m.out_channels // m.groups
            nn.init.normal_(m.weight, std=math.sqrt(2 / fan_out))
            if m.bias is not None:
                nn.init.zeros_(m.bias)
