"""Errors of 3D joints: MPJPE from the wrist, and PA-MPJPE after a similarity that lays one hand on the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from mogacore.errors import UserError


def pixel_to_camera(points: np.ndarray, focal: np.ndarray, principal_point: np.ndarray) -> np.ndarray:
    """Points (..., 3) of x, y in pixels and depth in mm as the pinhole camera saw them: x, y, z in mm."""
    xy = (points[..., :2] - principal_point) * points[..., 2:] / focal
    return np.concatenate([xy, points[..., 2:]], axis=-1)


def mpjpe(predicted: np.ndarray, target: np.ndarray, root: int | None = None) -> np.ndarray:
    """Mean distance of the joints (Mean Per Joint Position Error).

    Args:
        predicted: (N, K, 3).
        target: (N, K, 3), in the same unit.
        root: Joint at which both are laid on each other; it counts among the K. None leaves them where they are.

    Returns:
        (N,), in that unit.
    """
    if root is not None:
        predicted, target = (joints - joints[:, root : root + 1] for joints in (predicted, target))
    return np.linalg.norm(predicted - target, axis=-1).mean(-1)


def align(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Lay each predicted hand on its target by the rotation, scale and shift of least squares; no mirroring.

    Args:
        predicted: (N, K, 3).
        target: (N, K, 3).

    Returns:
        (N, K, 3); a hand whose joints are all in one place is shifted alone.

    Source: Umeyama, Least-squares estimation of transformation parameters between two point patterns, PAMI 1991.
    """
    predicted_mean, target_mean = (joints.mean(1, keepdims=True) for joints in (predicted, target))
    moving, fixed = predicted - predicted_mean, target - target_mean
    left, strengths, right = np.linalg.svd(moving.transpose(0, 2, 1) @ fixed)
    signs = np.ones_like(strengths)
    signs[:, -1] = np.sign(np.linalg.det(left) * np.linalg.det(right))
    rotation = (left * signs[:, None]) @ right
    spread = (moving**2).sum((1, 2))
    scale = (strengths * signs).sum(-1) / np.where(spread > 0, spread, 1)
    return scale[:, None, None] * moving @ rotation + target_mean


def pa_mpjpe(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """:func:`mpjpe` of the hands as :func:`align` lays them, (N,)."""
    return mpjpe(align(predicted, target), target)


@METRICS.register_module()
class HandJointMetric(BaseMetric):
    """Root-relative ``MPJPE`` and ``PA-MPJPE`` in mm of one hand or two a picture, all valid hands alike.

    x and y are read in the picture and the depth from the wrist: with the wrist's true depth the camera gives them in
    mm, as InterHand2.6M's own measure does. A model that gives ``keypoints_cam`` in mm is taken at its word. A hand
    counts if all its joints are valid.

    Args:
        root: The wrist among the 21 joints of a hand: 0 of FreiHAND, 20 of InterHand2.6M.
        mean_pose: Tell also ``MPJPE_of_mean`` and ``PA-MPJPE_of_mean``: of the mean of the true root-relative hands in
            place of each prediction, left and right on their own. It is the constant with the least squared error
            here, so no network has learned anything that is not better.
        collect_device: As mmengine's BaseMetric takes it.
        prefix: As mmengine's BaseMetric takes it.
    """

    num_joints = 21

    def __init__(self, root: int = 0, mean_pose: bool = False, collect_device: str = 'cpu', prefix: str | None = None):
        super().__init__(collect_device=collect_device, prefix=prefix)
        if not 0 <= root < self.num_joints:
            raise UserError(f'root {root} of HandJointMetric is out of range: give a joint from 0 to 20')
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
            # One result a picture: mmengine cuts the list to the number of pictures.
            self.results.append(
                [(int(side), predicted[side], hands[side].astype(np.float64)) for side in np.flatnonzero(valid)]
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        found = [hand for picture in results for hand in picture]
        if not found:
            raise UserError('no hand of the test data has all its joints valid: there is nothing to measure')
        sides, predicted, target = (np.stack(column) for column in zip(*found, strict=True))
        metrics = {'MPJPE': mpjpe(predicted, target, self.root).mean(), 'PA-MPJPE': pa_mpjpe(predicted, target).mean()}
        if self.mean_pose:
            relative = target - target[:, self.root : self.root + 1]
            means = np.stack([relative[sides == side].mean(0) for side in sides])
            metrics['MPJPE_of_mean'] = mpjpe(means, relative, self.root).mean()
            metrics['PA-MPJPE_of_mean'] = pa_mpjpe(means, relative).mean()
        return {name: float(value) for name, value in metrics.items()}
