"""Volumes of heat from which joints are read in 2.5D: x and y in the picture, depth from the wrist."""

from __future__ import annotations

from typing import ClassVar

import numpy as np


class RootRelativeHeatmap:
    """Codec of one hand's joints for mmpose: the volumes of InterNet with a head and a loss made for pictures.

    mmpose's ``Hand3DHeatmap`` is made for InterNet's head: it wants the labels of two hands and gives four results.
    This one encodes the same volumes, and lets the depths of a joint be channels, so that mmpose's ``HeatmapHead`` with
    ``out_channels`` = joints * depths serves a single hand unchanged.

    Args:
        input_size: Width and height of the network's input in pixels.
        heatmap_size: Width, height and depth of a volume in voxels.
        sigma: Of the Gaussian, in voxels.
        depth_range: Millimetres that the volume is deep, half before the root and half behind it.
        max_value: Of the Gaussian.

    Source: Moon et al., InterHand2.6M, ECCV 2020, arXiv 2008.09309, section 5.
    """

    # What mmpose's GenerateTarget and heads ask of a codec.
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
        self.scale = np.array([*input_size, depth_range], np.float64) / heatmap_size  # pixels, pixels, mm a voxel
        self.sigma = sigma
        self.max_value = max_value

    def encode(self, keypoints: np.ndarray, keypoints_visible: np.ndarray | None = None) -> dict:
        """Volumes of a hand.

        Args:
            keypoints: (1, K, 3): x, y in pixels of the input, z in mm from the root.
            keypoints_visible: (1, K), 0 for joints that are not to be learned; None is all.

        Returns:
            ``heatmaps`` (K * D, H, W) float32, zero beyond 3 sigma along an axis; ``keypoint_weights`` (1, K * D), 0
            for joints that are not visible or deeper or nearer than the volume.
        """
        width, height, depth = self.heatmap_size
        weights = np.ones(keypoints.shape[:2], np.float32) if keypoints_visible is None else keypoints_visible
        x, y, z = self._to_voxels(keypoints[0]).T
        gaussians = []
        for centre, size in ((z, depth), (y, height), (x, width)):
            voxels, centre = np.arange(size), centre[:, None]
            gaussian = np.exp(-((voxels - centre) ** 2) / (2 * self.sigma**2))
            is_near = (voxels >= np.rint(centre - 3 * self.sigma)) & (voxels <= np.rint(centre + 3 * self.sigma))
            gaussians.append(np.where(is_near, gaussian, 0).astype(np.float32))
        heatmaps = self.max_value * np.einsum('kz,ky,kx->kzyx', *gaussians)
        weights = weights * ((z >= 0) & (z < depth))
        return dict(
            heatmaps=heatmaps.reshape(-1, height, width),
            keypoint_weights=np.repeat(weights, depth, axis=1).astype(np.float32),
        )

    def decode(self, encoded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Joints at the peaks of volumes, between voxels as far as a Gaussian through the peak's neighbours says.

        Args:
            encoded: (K * D, H, W).

        Returns:
            Joints (1, K, 3) as :meth:`encode` takes them, and scores (1, K): the height of the peak, 1 for a perfect
            one. A volume without a positive value has its joint at the root's depth in the corner, and score 0.
        """
        width, height, depth = self.heatmap_size
        volumes = np.asarray(encoded, np.float64).reshape(-1, depth, height, width)
        peaks = np.stack(np.unravel_index(volumes.reshape(len(volumes), -1).argmax(1), volumes.shape[1:]), 1)
        values = volumes[(np.arange(len(volumes)), *peaks.T)]
        # The vertex of a parabola through three logarithms is the mean of a Gaussian.
        logs = np.log(np.maximum(np.pad(volumes, [(0, 0), *[(1, 1)] * 3], mode='edge'), 1e-3 * self.max_value))
        found = peaks.astype(np.float64)
        for axis in range(3):
            step = np.eye(3, dtype=int)[axis]
            before, at, after = (logs[(np.arange(len(volumes)), *(peaks + 1 + shift * step).T)] for shift in (-1, 0, 1))
            curvature = before - 2 * at + after
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
