"""Images from the tensors of a pipeline or of a network: normalization and channel order undone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

BYTE = 255
WIDE = 1023  # augmentations of 8 bits stay below this, while images with 16 bits exceed it


@dataclass(frozen=True)
class Scale:
    """What the values of a tensor (C, H, W) mean: a value v is ``v * std + mean`` in 0..255.

    Args:
        order: Channels: 'bgr', 'rgb' or 'gray'.
        mean: One per channel, or one for all.
        std: The same.
    """

    order: str
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of_files(cls, order: str) -> Scale:
        """Of a loaded image that is not normalized."""
        return cls(order, np.zeros(1), np.ones(1))

    def flipped(self) -> Scale:
        """With the channels reversed; those of a gray image remain."""
        order = {'bgr': 'rgb', 'rgb': 'bgr'}.get(self.order, self.order)
        return Scale(order, self.mean[::-1], self.std[::-1])

    def normalized(self, mean: Any, std: Any) -> Scale:
        """After ``(v - mean) / std``."""
        mean, std = (np.asarray(value, np.float64).reshape(-1) for value in (mean, std))
        return Scale(self.order, self.mean + mean * self.std, std * self.std)

    def after(self, transform: Callable) -> Scale:
        """After a transform of a pipeline: those of mmcv, mmpretrain and torchvision that change the scale."""
        inner: Any = getattr(transform, 't', transform)  # mmpretrain's wrapper of torchvision's
        kind = type(inner).__name__
        scale = self
        if getattr(inner, 'to_rgb' if kind in ('Normalize', 'NumpyToPIL') else 'to_bgr', False):
            scale = self.flipped() if kind in ('Normalize', 'NumpyToPIL', 'PILToNumpy') else self
        if kind == 'Normalize':
            return scale.normalized(inner.mean, inner.std)
        if kind == 'ToTensor' and inner is not transform:  # torchvision's, while those of OpenMMLab keep the values
            return scale.normalized(0, BYTE)
        return scale

    def preprocessed(self, preprocessor: nn.Module) -> Scale:
        """After the data preprocessor of a model of OpenMMLab."""
        names = ('to_rgb', '_channel_conversion', 'channel_conversion')
        scale = self.flipped() if any(getattr(preprocessor, name, False) for name in names) else self
        if not getattr(preprocessor, '_enable_normalize', False):
            return scale
        return scale.normalized(*(getattr(preprocessor, name).cpu().numpy() for name in ('mean', 'std')))

    def to_image(self, tensor: Tensor) -> np.ndarray:
        """Image (H, W, 3) uint8 RGB of a tensor (C, H, W).

        Of more than three channels, the first three are shown; of two, the first. Values beyond 0..255 are cut off,
        but an image with 16 bits is scaled by its range.
        """
        values = tensor.detach().cpu().numpy().astype(np.float64)
        mean, std = (np.broadcast_to(value, len(values))[:, None, None] for value in (self.mean, self.std))
        values = values * std + mean
        values = values[:3] if len(values) >= 3 else values[:1].repeat(3, axis=0)
        low, high = values.min(initial=0), values.max(initial=0)
        if high > WIDE:
            values = (values - low) * (BYTE / (high - low))
        values = values[::-1] if self.order == 'bgr' else values
        return np.ascontiguousarray(np.round(values).clip(0, BYTE).astype(np.uint8).transpose(1, 2, 0))
