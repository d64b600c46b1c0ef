"""Layers of the task libraries rewritten for images of any size.

The originals export without an error, but for the size of the example: they compute sizes as Python numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AdaptivePool(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as two matrix products, each with the shares of rows or columns in the cells.

    Args:
        size: Height and width of the output.
    """

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, *size)."""
        rows, columns = (_shares(length, cells, x) for length, cells in zip(x.shape[2:], self.size, strict=True))
        return rows @ x @ columns.transpose(0, 1)


def _shares(length: int, cells: int, like: Tensor) -> Tensor:
    """(cells, length): row i averages the positions floor(i L / n) to ceil((i + 1) L / n) - 1, L long, in n cells."""
    position = torch.arange(length, device=like.device)
    cell = torch.arange(cells, device=like.device)
    start = torch.div(cell * length, cells, rounding_mode='floor')
    end = torch.div((cell + 1) * length + cells - 1, cells, rounding_mode='floor')
    is_inside = (position >= start[:, None]) & (position < end[:, None])
    return is_inside.to(like.dtype) / (end - start)[:, None].to(like.dtype)


class Enlarge(nn.Module):
    """mmseg's ``Upsample`` by a whole factor.

    Args:
        factors: Factors of height and width.
        mode: Interpolation mode.
        align_corners: As in ``F.interpolate``.
    """

    def __init__(self, factors: tuple[int, int], mode: str, align_corners: bool | None):
        super().__init__()
        self.factors, self.mode, self.align_corners = factors, mode, align_corners

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), height and width multiplied by the factors."""
        size = (x.shape[2] * self.factors[0], x.shape[3] * self.factors[1])
        return F.interpolate(x, size, mode=self.mode, align_corners=self.align_corners)


def reason_for_one_size(model: nn.Module) -> str:
    """Why a file of a model has the height and width of its example; '' if it has no layer that needs that.

    The layers pad by Python numbers that they compute from the size by a division of floats, as those of EfficientNet
    and of mmpretrain's vision transformers.
    """
    names = sorted({type(layer).__name__ for layer in model.modules()} & {'AdaptivePadding', 'Conv2dAdaptivePadding'})
    return f'{names[0]} computes its padding from the size of the image' if names else ''


def replace_sized_layers(model: nn.Module) -> None:
    """Replace, in place, the layers of a model that would export for one image size only."""
    for parent in list(model.modules()):
        layer: Any
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.AdaptiveAvgPool2d:
                given = layer.output_size
                height, width = given if isinstance(given, tuple) else (given, given)
                if height is not None and width is not None and (height, width) != (1, 1):
                    setattr(parent, name, AdaptivePool((height, width)))
            elif type(layer).__name__ == 'Upsample' and type(layer).__module__.startswith('mmseg.'):
                scale = layer.scale_factor
                factors = tuple(scale) if isinstance(scale, tuple) else (scale, scale)
                if not layer.size and all(factor == int(factor) for factor in factors):
                    whole = (int(factors[0]), int(factors[1]))
                    setattr(parent, name, Enlarge(whole, layer.mode, layer.align_corners))
