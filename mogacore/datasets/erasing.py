"""Random erasing as timm applies it to normalized images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from mmengine.registry import TRANSFORMS

ATTEMPTS = 10


@TRANSFORMS.register_module()
class NormalizedRandomErasing:
    """Replace a random rectangle by values that become standard normal noise when the image is normalized.

    mmpretrain's RandomErasing writes 8-bit pixels: its noise is rounded and cut off at 0 and 255, 2 standard deviations
    from the mean of ImageNet. Here the image becomes float32, and the rectangle gets ``mean + std * noise``, so the
    normalization with the same mean and std leaves the noise itself.

    Args:
        mean: Mean of each channel with which the image is normalized, in the channel order of the image.
        std: Standard deviation of each channel, in the same order.
        erase_prob: Probability of erasing.
        min_area_ratio: Least area of the rectangle, relative to the image.
        max_area_ratio: Greatest area of the rectangle, relative to the image.
        min_aspect_ratio: Least ratio of height to width; the greatest is its reciprocal.

    Source: ``RandomErasing(mode='pixel')`` of timm 0.6.12, after ``Normalize``.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        erase_prob: float = 0.25,
        min_area_ratio: float = 0.02,
        max_area_ratio: float = 1 / 3,
        min_aspect_ratio: float = 0.3,
    ):
        self.mean, self.std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        self.erase_prob = erase_prob
        self.area_ratios = min_area_ratio, max_area_ratio
        self.log_aspect_ratios = math.log(min_aspect_ratio), -math.log(min_aspect_ratio)

    def __call__(self, results: dict) -> dict:
        image = results['img'].astype(np.float32)
        if np.random.rand() < self.erase_prob and (rectangle := self._rectangle(*image.shape[:2])):
            top, left, height, width = rectangle
            noise = np.random.standard_normal((height, width, image.shape[2])).astype(np.float32)
            image[top : top + height, left : left + width] = self.mean + self.std * noise
        results['img'] = image
        return results

    def _rectangle(self, image_height: int, image_width: int) -> tuple[int, int, int, int] | None:
        """Top, left, height and width; None if no rectangle of ``ATTEMPTS`` is smaller than the image."""
        for _ in range(ATTEMPTS):
            area = np.random.uniform(*self.area_ratios) * image_height * image_width
            aspect = math.exp(np.random.uniform(*self.log_aspect_ratios))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height < image_height and width < image_width:
                top = np.random.randint(image_height - height + 1)
                left = np.random.randint(image_width - width + 1)
                return top, left, height, width
        return None
