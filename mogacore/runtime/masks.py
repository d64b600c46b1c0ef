"""Masks of boxes, pasted into the image."""

from __future__ import annotations

import cv2
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
    for target, mask, box in zip(pasted, masks.astype(np.float32), boxes.astype(np.float32), strict=True):
        if not np.isfinite(box).all():
            continue
        left, top = (max(int(value), 0) for value in np.floor(box[:2]) - 1)
        right, bottom = int(min(np.ceil(box[2]) + 1, width)), int(min(np.ceil(box[3]) + 1, height))
        if left >= right or top >= bottom:
            continue
        xs = _positions(left, right, box[0], box[2], mask.shape[1])
        ys = _positions(top, bottom, box[1], box[3], mask.shape[0])
        grid = np.meshgrid(xs, ys)
        sampled = cv2.remap(mask, *grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        target[top:bottom, left:right] = sampled >= threshold
    return pasted


def _positions(start: int, stop: int, low: float, high: float, number: int) -> np.ndarray:
    """Positions of the centers of pixels in a mask of ``number`` elements that covers ``low`` to ``high``."""
    centers = np.arange(start, stop, dtype=np.float32) + np.float32(0.5)
    with np.errstate(divide='ignore', invalid='ignore'):
        relative = (centers - low) / (high - low)
    relative[np.isinf(relative)] = 0.5  # of a box without area
    return relative * number - np.float32(0.5)
