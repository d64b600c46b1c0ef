"""Errors of 3D hand joints: MPJPE relative to the wrist, and PA-MPJPE after Procrustes alignment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from mogacore.errors import UserError


def pixel_to_camera(points: np.ndarray, focal: np.ndarray, principal_point: np.ndarray) -> np.ndarray:
    """Back-project points (..., 3) of a pinhole camera: x, y in pixels and depth in mm to x, y, z in mm."""
    xy = (points[..., :2] - principal_point) * points[..., 2:] / focal
    return np.concatenate([xy, points[..., 2:]], axis=-1)


def mpjpe(predicted: np.ndarray, target: np.ndarray, root: int | None = None) -> np.ndarray:
    """Mean per joint position error.

    Args:
        predicted: (N, K, 3).
        target: (N, K, 3), in the same unit.
        root: Joint that both are translated to; it is included in the mean. None for no translation.

    Returns:
        (N,), in the same unit.
    """
    if root is not None:
        predicted, target = (joints - joints[:, root : root + 1] for joints in (predicted, target))
    return np.linalg.norm(predicted - target, axis=-1).mean(-1)


def align(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Align each predicted hand with its target by the least-squares rotation, scale and translation; no reflection.

    Args:
        predicted: (N, K, 3).
        target: (N, K, 3).

    Returns:
        The aligned prediction, (N, K, 3). A hand whose joints all coincide is only translated.

    Source: Umeyama, Least-squares estimation of transformation parameters between two point patterns, PAMI 1991.
    """
    predicted_mean, target_mean = (joints.mean(1, keepdims=True) for joints in (predicted, target))
    moving, fixed = predicted - predicted_mean, target - target_mean
    left, singular_values, right = np.linalg.svd(moving.transpose(0, 2, 1) @ fixed)
    signs = np.ones_like(singular_values)
    signs[:, -1] = np.sign(np.linalg.det(left) * np.linalg.det(right))
    rotation = (left * signs[:, None]) @ right
    spread = (moving**2).sum((1, 2))
    scale = (singular_values * signs).sum(-1) / np.where(spread > 0, spread, 1)
    return scale[:, None, None] * moving @ rotation + target_mean


def pa_mpjpe(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """:func:`mpjpe` after :func:`align`, (N,)."""
    return mpjpe(align(predicted, target), target)


@METRICS.register_module()
class HandJointMetric(BaseMetric):
    """Root-relative ``MPJPE`` and ``PA-MPJPE`` in mm, averaged over all valid hands, one or two per image.

    Predictions are x and y in pixels and the depth relative to the wrist. As in the InterHand2.6M evaluation, they are
    converted to mm with the true depth of the wrist and the camera. Predictions with ``keypoints_cam``, in mm, are used
    as given. A hand is valid if all its joints are.

    Args:
        root: Index of the wrist among the 21 joints of a hand: 0 in FreiHAND, 20 in InterHand2.6M.
        mean_pose: Also report ``MPJPE_of_mean`` and ``PA-MPJPE_of_mean``, where each prediction is replaced by the mean
            of the true root-relative hands, for left and right hands separately. No constant has a lower squared error
            on this data, so a network that is not better has learned nothing.
        collect_device: See mmengine's BaseMetric.
        prefix: See mmengine's BaseMetric.

    Raises:
        UserError: If ``root`` is out of range, or no hand of the test data is valid.
    """

    num_joints = 21

    def __init__(self, root: int = 0, mean_pose: bool = False, collect_device: str = 'cpu', prefix: str | None = None):
        super().__init__(collect_device=collect_device, prefix=prefix)
        if not 0 <= root < self.num_joints:
            raise UserError(f'root {root} of HandJointMetric is out of range: use a joint from 0 to 20')
        self.root = root
        self.mean_pose = mean_pose

    def process(self, data_batch: Sequence[dict], data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            truth = sample['gt_instances']
            hands = truth['keypoints_cam'].reshape(-1, self.num_joints, 3)
            valid = truth['keypoints_visible'].reshape(-1, self.num_joints).all(1)
            found = sample['pred_instances']
            if 'keypoints_cam' in found:
                predicted = found['keypoints_cam'].reshape(hands.shape).astype(np.float64)
            else:
                predicted = found['keypoints'].reshape(hands.shape).astype(np.float64)
                predicted[..., 2] += np.reshape(sample['abs_depth'], (-1, 1))
                predicted = pixel_to_camera(predicted, sample['focal'], sample['principal_pt'])
            # One result per image, since mmengine truncates the list to the number of images.
            self.results.append(
                [(int(side), predicted[side], hands[side].astype(np.float64)) for side in np.flatnonzero(valid)]
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        valid = [hand for image_hands in results for hand in image_hands]
        if not valid:
            raise UserError(
                'no hand of the test data has 21 valid joints: check the annotations or use other test data'
            )
        sides, predicted, target = (np.stack(column) for column in zip(*valid, strict=True))
        metrics = {'MPJPE': mpjpe(predicted, target, self.root).mean(), 'PA-MPJPE': pa_mpjpe(predicted, target).mean()}
        if self.mean_pose:
            relative = target - target[:, self.root : self.root + 1]
            means = np.stack([relative[sides == side].mean(0) for side in sides])
            metrics['MPJPE_of_mean'] = mpjpe(means, relative, self.root).mean()
            metrics['PA-MPJPE_of_mean'] = pa_mpjpe(means, relative).mean()
        return {name: float(value) for name, value in metrics.items()}
