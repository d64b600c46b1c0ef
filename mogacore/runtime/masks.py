"""Masks of boxes, pasted into the image."""

from __future__ import annotations

import numpy as np


def paste_masks(masks: np.ndarray, boxes: np.ndarray, height: int, width: int, threshold: float = 0.5) -> np.ndarray:
    """Resize the mask of each box to the box, bilinearly, and compare it with a threshold.

    Args:
        masks: Probabilities (N, h, w); outside they are 0.
        boxes: (N, 4) x1 y1 x2 y2 in pixels of the image.
        height: Height of the image.
        width: Its width.
        threshold: Lowest probability of a pixel of the mask.

    Returns:
        (N, height, width) bool.
    """
    pasted = np.zeros((len(masks), height, width), bool)
    boxes = boxes.astype(np.float32)
    # As mmdet does, a pixel beyond the box takes part: its center may still get a part of the outermost element.
    starts: np.ndarray = np.maximum(np.floor(boxes[:, :2]) - 1, 0).astype(int)
    stops: np.ndarray = np.minimum(np.ceil(boxes[:, 2:]) + 1, [width, height]).astype(int)
    for i, (mask, box) in enumerate(zip(masks.astype(np.float32), boxes, strict=True)):
        (left, top), (right, bottom) = starts[i].tolist(), stops[i].tolist()
        if left < right and top < bottom:
            across = _weights(left, right, box[0], box[2], masks.shape[2])
            down = _weights(top, bottom, box[1], box[3], masks.shape[1])
            pasted[i, top:bottom, left:right] = down @ mask @ across.T >= threshold
    return pasted


def _weights(start: int, stop: int, low: float, high: float, number: int) -> np.ndarray:
    """Weights (stop - start, number) of ``number`` elements, which cover ``low`` to ``high``, for each pixel."""
    centers = np.arange(start, stop, dtype=np.float32) + np.float32(0.5)
    with np.errstate(divide='ignore', invalid='ignore'):
        relative = (centers - low) / (high - low)
    relative[np.isinf(relative)] = 0.5  # of a box without area
    positions = np.nan_to_num(relative, nan=-2) * number - np.float32(0.5)
    return np.maximum(0, 1 - abs(positions[:, None] - np.arange(number, dtype=np.float32)))
