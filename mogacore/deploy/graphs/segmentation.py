"""Segmentation: the class of each pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mogacore.errors import UserError

from .base import Graph, refuse_queries
from .layers import replace_sized_layers


class Segmentation(Graph):
    """Output: ``class_map`` (B, h, w) int64, of mmseg's EncoderDecoder.

    The second input, ``output_size`` (2,) int64, is h and w: the size of the image before resizing, since mmseg resizes
    the logits, not the classes.
    """

    task = 'segmentation'
    input_names = ('images', 'output_size')
    output_names = ('class_map',)

    def __init__(self, model: nn.Module, cfg: Mapping[str, Any], meta: Mapping[str, Any] | None = None):
        super().__init__(model, cfg, meta)
        replace_sized_layers(model)
        self.align_corners = bool(self.model.align_corners)
        self.is_binary = int(self.model.out_channels) == 1
        self.threshold = float(getattr(self.model.decode_head, 'threshold', None) or 0.0)

    def forward(self, images: Tensor, output_size: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]  # one more
        x = self.normalize(images)
        logits = self.model.decode_head(self.model.extract_feat(x))
        logits = self._resize(logits, (x.shape[2], x.shape[3]))[:, :, : images.shape[2], : images.shape[3]]
        height, width = output_size.unbind()
        logits = self._resize(logits, (_size(height), _size(width)))
        if self.is_binary:
            return ((logits[:, 0].sigmoid() > self.threshold).long(),)
        return (logits.argmax(1),)

    def _resize(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(logits, size, mode='bilinear', align_corners=self.align_corners)

    def example(self, shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, ...]:
        height, width = shape[2:]
        return (*super().example(shape, dtype, seed), torch.tensor([height + height // 3, width - width // 5]))

    def dynamic_shapes(self, axes: dict[int, Any]) -> tuple:
        return axes, None


def _size(number: Tensor) -> int:
    """A number of a tensor as a size that an export keeps variable."""
    size: Any = number.item()  # int() of it would fix it
    torch._check(size > 1)
    return size


def create(model: nn.Module, cfg: Mapping[str, Any], meta: Mapping[str, Any] | None = None) -> Graph:
    """The graph of a segmentation model.

    Raises:
        UserError: If it is not an EncoderDecoder that processes whole images.
    """
    if not hasattr(model, 'decode_head') or isinstance(model.decode_head, nn.ModuleList):
        raise UserError(f'{type(model).__name__} cannot be exported: use a config with an EncoderDecoder')
    refuse_queries(model)
    if cfg['model'].get('test_cfg', {}).get('mode', 'whole') != 'whole':
        raise UserError(
            'a model that is tested on sliding windows cannot be exported: use --cfg-options model.test_cfg.mode=whole'
        )
    return Segmentation(model, cfg, meta)
