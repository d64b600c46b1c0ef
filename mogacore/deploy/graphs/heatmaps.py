"""Keypoints from heatmaps: mmpose's decoders, which are numpy loops, as tensor operations that export.

A decoder is a function from heatmaps to keypoints in pixels of the crop and scores. Coordinates of peaks are (x, y).
Corrections within a pixel are computed in float64: the curvature at a peak is a small difference of large numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Decoder(nn.Module):
    """Base class; ``forward`` maps heatmaps (B, K, H, W) to keypoints (B, K, 2) and scores (B, K), both float32.

    Args:
        codec: The codec of mmpose that the decoder stands for.
    """

    scale: Tensor
    crop_size: Tensor

    def __init__(self, codec: Any):
        super().__init__()
        self.register_buffer('scale', torch.tensor(np.asarray(codec.scale_factor, np.float32)), persistent=False)
        self.register_buffer('crop_size', torch.tensor(codec.input_size), persistent=False)


def peaks(heatmaps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Highest value of each heatmap.

    Args:
        heatmaps: (B, K, H, W).

    Returns:
        x and y (B, K), int64, both -1 where no value is positive, as mmpose has it; and the values (B, K).
    """
    values, index = heatmaps.flatten(2).max(2)
    width = heatmaps.shape[3]
    is_found = values > 0
    x, y = index % width, torch.div(index, width, rounding_mode='floor')
    return torch.where(is_found, x, -1), torch.where(is_found, y, -1), values


def at(maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Values of maps (B, K, H, W) at positions (B, K); positions outside give the value of the nearest pixel."""
    height, width = maps.shape[2:]
    index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    return maps.flatten(2).gather(2, index[..., None])[..., 0]


class QuarterShift(Decoder):
    """MSRAHeatmap: peaks, moved by a quarter of a pixel toward the higher neighbor."""

    def forward(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        x, y, values = peaks(heatmaps)
        height, width = heatmaps.shape[2:]
        dx = at(heatmaps, x + 1, y) - at(heatmaps, x - 1, y)
        dy = at(heatmaps, x, y + 1) - at(heatmaps, x, y - 1)
        zero = torch.zeros_like(dx)
        dx = torch.where((x > 1) & (x < width - 1) & (y > 0) & (y < height), dx.sign(), zero)
        dy = torch.where((y > 1) & (y < height - 1) & (x > 0) & (x < width), dy.sign(), zero)
        return torch.stack([x + 0.25 * dx, y + 0.25 * dy], 2) * self.scale, values


class Blurring(Decoder):
    """Base class of the decoders that fit a parabola to the logarithm of a blurred heatmap."""

    kernel: Tensor

    def __init__(self, codec: Any):
        super().__init__(codec)
        kernel = cv2.getGaussianKernel(codec.blur_kernel_size, 0)[:, 0]  # as cv2.GaussianBlur without a deviation
        self.register_buffer('kernel', torch.tensor(kernel, dtype=torch.float32), persistent=False)

    def blur(self, heatmaps: Tensor) -> Tensor:
        """Blurred heatmaps with the maxima of the originals."""
        batch, keypoints, height, width = heatmaps.shape
        maps, size = heatmaps.reshape(-1, 1, height, width), len(self.kernel)
        maps = F.conv2d(maps, self.kernel.view(1, 1, 1, size), padding=(0, size // 2))
        maps = F.conv2d(maps, self.kernel.view(1, 1, size, 1), padding=(size // 2, 0))
        maps = maps.reshape(batch, keypoints, height, width)
        return maps * (heatmaps.amax((2, 3), keepdim=True) / maps.amax((2, 3), keepdim=True))


class Dark(Blurring):
    """MSRAHeatmap with ``unbiased=True``: peaks, moved to the vertex of a parabola through pixels at a distance of 2.

    Source: Zhang et al., DarkPose, arXiv 1910.06278, equation 9.
    """

    def forward(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        x, y, values = peaks(heatmaps)
        height, width = heatmaps.shape[2:]
        logs = self.blur(heatmaps).clamp(min=1e-10).log()
        center = at(logs, x, y)
        left, right, above, below = (at(logs, x + i, y + j) for i, j in ((-1, 0), (1, 0), (0, -1), (0, 1)))
        dx, dy = 0.5 * (right - left), 0.5 * (below - above)
        dxx = 0.25 * (at(logs, x + 2, y) - 2 * center + at(logs, x - 2, y))
        dyy = 0.25 * (at(logs, x, y + 2) - 2 * center + at(logs, x, y - 2))
        diagonal = at(logs, x + 1, y + 1) - at(logs, x + 1, y - 1) - at(logs, x - 1, y + 1) + at(logs, x - 1, y - 1)
        dxy = 0.25 * diagonal
        is_inside = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2) & (dxx * dyy - dxy**2 != 0)
        moved = torch.stack([x, y], 2) - torch.where(is_inside[..., None], newton_step(dx, dy, dxx, dxy, dyy), 0.0)
        return moved.float() * self.scale, values


class UDP(Blurring):
    """UDPHeatmap of Gaussians: as :class:`Dark`, with direct neighbors, and pixel centers on the border of the crop.

    Source: Huang et al., arXiv 1911.07524. As in mmpose, the last pixel of a heatmap stands for the width of the crop.
    """

    def __init__(self, codec: Any):
        super().__init__(codec)
        self.scale = torch.tensor(np.asarray(codec.input_size) / (np.asarray(codec.heatmap_size) - 1))

    def forward(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        x, y, values = peaks(heatmaps)
        height, width = heatmaps.shape[2:]
        logs = F.pad(self.blur(heatmaps).clamp(1e-3, 50.0).log(), (1, 1, 1, 1), mode='replicate')
        flat, row = logs.flatten(1), width + 2
        # mmpose indexes all maps of an image as one array, which matters where there is no peak, at -1.
        start = torch.arange(heatmaps.shape[1], device=x.device) * row * (height + 2)
        index = (x + 1) + (y + 1) * row + start

        def neighbor(i: int, j: int) -> Tensor:
            return flat.gather(1, torch.remainder(index + i + j * row, flat.shape[1]))

        center, left, right, above, below = (neighbor(i, j) for i, j in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)))
        dx, dy = 0.5 * (right - left), 0.5 * (below - above)
        dxx, dyy = right - 2 * center + left, below - 2 * center + above
        dxy = 0.5 * (neighbor(1, 1) - right - below + center + center - left - above + neighbor(-1, -1))
        step = newton_step(dx, dy, dxx, dxy, dyy, np.finfo(np.float32).eps.item())
        return ((torch.stack([x, y], 2) - step) * self.scale).float(), values


def newton_step(dx: Tensor, dy: Tensor, dxx: Tensor, dxy: Tensor, dyy: Tensor, ridge: float = 0.0) -> Tensor:
    """Distance of a position from the extremum: the inverse second derivatives times the first, (..., 2) float64."""
    dx, dy, dxx, dxy, dyy = (value.double() for value in (dx, dy, dxx, dxy, dyy))
    dxx, dyy = dxx + ridge, dyy + ridge
    determinant = dxx * dyy - dxy * dxy
    return torch.stack([dyy * dx - dxy * dy, dxx * dy - dxy * dx], -1) / determinant[..., None]


def volume_peaks(volumes: Tensor) -> tuple[Tensor, Tensor]:
    """Highest value of each 3D heatmap.

    Args:
        volumes: (B, K, D, H, W).

    Returns:
        x, y, z (B, K, 3), int64, and the values (B, K).
    """
    height, width = volumes.shape[3:]
    values, index = volumes.flatten(2).max(2)
    x, rest = index % width, torch.div(index, width, rounding_mode='floor')
    return torch.stack([x, rest % height, torch.div(rest, height, rounding_mode='floor')], 2), values


def volume_values(volumes: Tensor, positions: Tensor, offset: Sequence[int]) -> Tensor:
    """Values (B, K) of 3D heatmaps (B, K, D, H, W) at positions (B, K, 3) moved by (x, y, z), clamped to the volume."""
    depth, height, width = volumes.shape[2:]
    moved = [
        (positions[..., axis] + offset[axis]).clamp(0, size - 1) for axis, size in enumerate((width, height, depth))
    ]
    index = (moved[2] * height + moved[1]) * width + moved[0]
    return volumes.flatten(2).gather(2, index[..., None])[..., 0]
