"""Boxes of a detector as operations that export: anchors, decoding, non-maximum suppression, pooling of regions.

mmdet's own versions branch on counts and sizes, which an export would fix at those of its example. Boxes are
(x1, y1, x2, y2) in pixels of the input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms, roi_align

SMALLEST_RATIO = 16 / 1000  # limit of the change of a box's sides, default of mmdet's box coders


def image_corners(size: Sequence[int]) -> Tensor:
    """Upper limits of the coordinates in an image of ``size`` (H, W): (4,), W H W H."""
    height, width = (torch.full((1,), side, dtype=torch.float32) for side in size)
    return torch.cat([width, height, width, height])


def anchors_at(generator: Any, level: int, index: Tensor, width: int) -> Tensor:
    """Anchor boxes of a pyramid level.

    Args:
        generator: mmdet's AnchorGenerator.
        level: Level of the pyramid.
        index: (N,) int64, number of an anchor: by row, column and shape.
        width: Width of the map of the level.

    Returns:
        (N, 4).
    """
    shapes = generator.base_anchors[level]
    cell = index // len(shapes)
    columns = torch.full((1,), width, dtype=torch.int64)
    x, y = (cell % columns) * generator.strides[level][0], (cell // columns) * generator.strides[level][1]
    shift = torch.stack([x, y, x, y], 1).to(shapes.dtype)
    return shapes.index_select(0, index % len(shapes)) + shift


def decode(coder: Any, boxes: Tensor, deltas: Tensor, corners: Tensor) -> Tensor:
    """Boxes that a DeltaXYWHBBoxCoder moves and scales by predicted deltas.

    Args:
        coder: mmdet's DeltaXYWHBBoxCoder.
        boxes: (N, 4).
        deltas: Network output, (N, 4): shift relative to the side, and logarithm of the scale.
        corners: See :func:`image_corners`; boxes are clipped to them if the coder clips.

    Source: Ren et al., arXiv 1506.01497, equation 2.
    """
    deltas = deltas * deltas.new_tensor(coder.stds) + deltas.new_tensor(coder.means)
    center, sides = (boxes[:, :2] + boxes[:, 2:]) * 0.5, boxes[:, 2:] - boxes[:, :2]
    shift, log_scale = sides * deltas[:, :2], deltas[:, 2:]
    limit = abs(math.log(SMALLEST_RATIO))
    if coder.add_ctr_clamp:
        shift = shift.clamp(-float(coder.ctr_clamp), float(coder.ctr_clamp))
        log_scale = log_scale.clamp(max=limit)
    else:
        log_scale = log_scale.clamp(-limit, limit)
    center, half = center + shift, sides * log_scale.exp() * 0.5
    boxes = torch.cat([center - half, center + half], 1)
    return torch.minimum(boxes.clamp(min=0.0), corners) if coder.clip_border else boxes


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, nms_cfg: Mapping[str, Any], max_count: int) -> Tensor:
    """Indices of the boxes that non-maximum suppression keeps, by falling score.

    The groups are shifted apart by the same distance as in mmcv's ``batched_nms``, so that its rounding is the same.

    Args:
        boxes: (N, 4); N may be 0.
        scores: (N,).
        groups: (N,) int64, class or pyramid level: boxes suppress those of their own group only.
        nms_cfg: Config of mmcv's ``nms``.
        max_count: Largest number of indices; 0 or less for no limit.
    """
    if not nms_cfg.get('class_agnostic', False):
        apart = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).amax(0) + 1.0
        boxes = boxes + (groups.to(boxes.dtype) * apart)[:, None]
    kept = nms(boxes, scores, float(nms_cfg['iou_threshold']))
    return kept[:max_count] if max_count > 0 else kept


def larger_than(boxes: Tensor, side: float) -> Tensor:
    """Which boxes (N, 4) have both sides above a limit in pixels, (N,) bool; all of them if it is negative."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return (sides[:, 0] > side) & (sides[:, 1] > side) if side >= 0 else sides[:, 0] == sides[:, 0]


def pool_regions(extractor: Any, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Features of regions, each from the pyramid level of its size, as mmdet's SingleRoIExtractor gives them.

    Args:
        extractor: mmdet's SingleRoIExtractor with RoIAlign layers.
        maps: Pyramid of one image, (1, C, H_i, W_i) each.
        boxes: (N, 4).

    Returns:
        (N, C, height, width).

    Source: Lin et al., arXiv 1612.03144, equation 1.
    """
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], 1)
    layers = extractor.roi_layers
    sides = boxes[:, 2:] - boxes[:, :2]
    levels = torch.floor(torch.log2(torch.sqrt(sides[:, 0] * sides[:, 1]) / extractor.finest_scale + 1e-6))
    levels = levels.clamp(0.0, len(layers) - 1.0)
    members = [torch.nonzero(levels == i).flatten() for i in range(len(layers))]
    pooled = [
        roi_align(level, rois.index_select(0, which), layer.output_size, layer.spatial_scale, layer.sampling_ratio,
                  layer.aligned)
        for level, which, layer in zip(maps, members, layers, strict=False)
    ]  # fmt: skip
    order = torch.cat(members)
    place = torch.zeros_like(levels, dtype=torch.int64).scatter(0, order, torch.arange(order.shape[0]))
    return torch.cat(pooled).index_select(0, place)


def match(boxes: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor) -> Tensor:
    """Pair boxes of two detectors with the same label by overlap, the closest pair first.

    Args:
        boxes: (N, 4).
        labels: (N,).
        others: (M, 4).
        other_labels: (M,).

    Returns:
        (P, 2): indices into ``boxes`` and ``others``, each at most once; pairs overlap by an IoU of at least 0.5.
    """
    low = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    area, other_area = (((b[:, 2:] - b[:, :2]).clamp(min=0)).prod(1) for b in (boxes, others))
    overlap = shared / (area[:, None] + other_area - shared).clamp(min=1e-9)
    overlap[labels[:, None] != other_labels] = 0
    pairs = []
    while overlap.numel() and overlap.max() >= 0.5:
        i, j = divmod(int(overlap.argmax()), len(others))
        overlap[i], overlap[:, j] = 0, 0
        pairs.append((i, j))
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
