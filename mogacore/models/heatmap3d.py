"""3D heatmaps for joints in 2.5D: x and y in the image, depth relative to the wrist."""

from __future__ import annotations

from typing import ClassVar

import numpy as np


class RootRelativeHeatmap:
    """mmpose codec for the joints of one hand: the 3D heatmaps of InterNet for a head and a loss for 2D heatmaps.

    mmpose's ``Hand3DHeatmap`` is made for InterNet's head, with labels for two hands and four outputs. This codec
    encodes the same heatmaps, but stores the depth bins of a joint as channels. So mmpose's ``HeatmapHead`` with
    ``out_channels`` = joints * depth bins works for a single hand without changes.

    Args:
        input_size: Width and height of the network input in pixels.
        heatmap_size: Width, height and depth of a heatmap in voxels.
        sigma: Standard deviation of the Gaussian, in voxels.
        depth_range: Depth of a heatmap in mm, half in front of the root and half behind it.
        max_value: Maximum of the Gaussian.

    Source: Moon et al., InterHand2.6M, ECCV 2020, arXiv 2008.09309, section 5.
    """

    # Attributes that mmpose's GenerateTarget and heads read.
    auxiliary_encode_keys: ClassVar[set] = set()
    field_mapping_table: ClassVar[dict] = {}
    instance_mapping_table: ClassVar[dict] = {}
    label_mapping_table: ClassVar[dict] = {}
    support_batch_decoding = False

    def __init__(
        self,
        input_size: tuple[int, int],
        heatmap_size: tuple[int, int, int],
        sigma: float = 2.5,
        depth_range: float = 400.0,
        max_value: float = 255.0,
    ):
        self.heatmap_size = tuple(heatmap_size)
        self.scale = np.array([*input_size, depth_range], np.float64) / heatmap_size  # pixels, pixels, mm per voxel
        self.sigma = sigma
        self.max_value = max_value

    def encode(self, keypoints: np.ndarray, keypoints_visible: np.ndarray | None = None) -> dict:
        """Encode the joints of a hand.

        Args:
            keypoints: (1, K, 3): x, y in pixels of the input, z in mm relative to the root.
            keypoints_visible: (1, K), 0 for joints without loss; None for all visible.

        Returns:
            ``heatmaps`` (K * D, H, W) float32, zero beyond 3 sigma along an axis; ``keypoint_weights`` (1, K * D), 0
            for joints that are not visible or outside the depth range.
        """
        width, height, depth = self.heatmap_size
        weights = np.ones(keypoints.shape[:2], np.float32) if keypoints_visible is None else keypoints_visible
        x, y, z = self._to_voxels(keypoints[0]).T
        gaussians = []
        for center, size in ((z, depth), (y, height), (x, width)):
            voxels, center = np.arange(size), center[:, None]
            gaussian = np.exp(-((voxels - center) ** 2) / (2 * self.sigma**2))
            is_near = (voxels >= np.rint(center - 3 * self.sigma)) & (voxels <= np.rint(center + 3 * self.sigma))
            gaussians.append(np.where(is_near, gaussian, 0).astype(np.float32))
        heatmaps = self.max_value * np.einsum('kz,ky,kx->kzyx', *gaussians)
        weights = weights * ((z >= 0) & (z < depth))
        return dict(
            heatmaps=heatmaps.reshape(-1, height, width),
            keypoint_weights=np.repeat(weights, depth, axis=1).astype(np.float32),
        )

    def decode(self, encoded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the joints at the heatmap peaks, with subvoxel accuracy from a Gaussian through the neighbors.

        Args:
            encoded: (K * D, H, W).

        Returns:
            Joints (1, K, 3) in the format of :meth:`encode`, and scores (1, K), the heights of the peaks, 1 if perfect.
            For a heatmap without a positive value, joint and score are 0.
        """
        width, height, depth = self.heatmap_size
        volumes = np.asarray(encoded, np.float64).reshape(-1, depth, height, width)
        peaks = np.stack(np.unravel_index(volumes.reshape(len(volumes), -1).argmax(1), volumes.shape[1:]), 1)
        values = volumes[(np.arange(len(volumes)), *peaks.T)]
        # The vertex of the parabola through three logarithms is the mean of the Gaussian.
        logs = np.log(np.maximum(np.pad(volumes, [(0, 0), *[(1, 1)] * 3], mode='edge'), 1e-3 * self.max_value))
        found = peaks.astype(np.float64)
        for axis in range(3):
            step = np.eye(3, dtype=int)[axis]
            before, peak, after = (
                logs[(np.arange(len(volumes)), *(peaks + 1 + shift * step).T)] for shift in (-1, 0, 1)
            )
            curvature = before - 2 * peak + after
            is_inside = (peaks[:, axis] > 0) & (peaks[:, axis] < volumes.shape[1 + axis] - 1) & (curvature < 0)
            shift = 0.5 * (before - after) / np.where(is_inside, curvature, 1)
            found[:, axis] += np.where(is_inside, shift.clip(-0.5, 0.5), 0)
        keypoints = self._from_voxels(found[:, ::-1])
        keypoints[values <= 0] = 0
        return keypoints[None].astype(np.float32), (values / self.max_value).clip(0)[None].astype(np.float32)

    def _to_voxels(self, keypoints):
        return keypoints / self.scale + [0, 0, self.heatmap_size[2] / 2]

    def _from_voxels(self, voxels):
        return (voxels - [0, 0, self.heatmap_size[2] / 2]) * self.scale
