"""Features of images: the last map of a backbone, averaged over the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from mogacore.errors import UserError


def pool(maps: Tensor | Sequence[Tensor]) -> Tensor:
    """Features (B, C) of the images of a batch from the output of a backbone.

    Args:
        maps: One map or several, of which the last one is used: (B, C, H, W), which is averaged over its positions;
            tokens (B, L, C), averaged too; or (B, C).
    """
    last = maps if isinstance(maps, Tensor) else maps[-1]
    if last.ndim == 4:
        return last.float().mean((2, 3))
    return last.float().mean(1) if last.ndim == 3 else last.float()


def backbone_of(model: nn.Module) -> nn.Module:
    """The backbone of a model of a task library.

    Raises:
        UserError: If it has none.
    """
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, nn.Module):
        raise UserError(f'{type(model).__name__} has no backbone whose features could be saved: use another config')
    return backbone


class BackboneMaps:
    """Keeps the output of the backbone of a model in each prediction.

    Args:
        model: The model; its backbone gets a hook.
    """

    def __init__(self, model: nn.Module):
        self._maps: Tensor | Sequence[Tensor] | None = None
        backbone_of(model).register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple, output: Tensor | Sequence[Tensor]) -> None:
        if self._maps is None:  # a flip test runs the backbone on the flipped image, too
            self._maps = output

    def pooled(self) -> np.ndarray:
        """Features (C,) of the image that was predicted since the last call, see :func:`pool`."""
        assert self._maps is not None
        features, self._maps = pool(self._maps), None
        return features[0].cpu().numpy()
