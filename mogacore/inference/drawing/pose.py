"""Pose estimation: keypoints of objects in the image, and 3D joints of hands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from mmengine.structures import BaseDataElement, InstanceData

from mogacore.datasets.hands import BASES, BONES

from .base import Task

# Total length of all bones of a hand of mean size, including those from the wrist to the fingers, in mm.
BONE_LENGTH_SUM = float(np.linalg.norm(BASES, axis=1).sum() + BONES.sum())


class Pose(Task):
    """Keypoints of objects in given boxes, with mmpose."""

    visualizer_type = 'PoseLocalVisualizer'
    meta_keys = ('keypoint_id2name', 'flip_indices', 'keypoint_colors', 'skeleton_links', 'skeleton_link_colors')

    def __init__(self, visualizer, meta, score_thr):
        super().__init__(visualizer, meta, score_thr)
        self.visualizer.set_dataset_meta(meta)

    def inputs(self, image, boxes):
        if boxes is None:
            height, width = image['img_shape']
            boxes = np.array([[0, 0, width, height, 1]], np.float32)
        return [dict(image, bbox=box[None, :4], bbox_score=box[4:], **self.meta) for box in boxes]

    def join(self, samples):
        return BaseDataElement(
            pred_instances=InstanceData.cat([sample.pred_instances for sample in samples] or [InstanceData()])
        )

    def describe(self, sample):
        instances = sample.pred_instances
        if not len(instances):
            return {'instances': []}
        return {
            'instances': [
                {
                    'bbox': [round(value, 2) for value in box.tolist()],
                    'score': round(scores.mean().item(), 6),
                    'keypoints': [
                        [round(x, 2), round(y, 2), round(score, 6)]
                        for (x, y), score in zip(keypoints.tolist(), scores.tolist(), strict=True)
                    ],
                }
                for box, keypoints, scores in zip(
                    instances.bboxes, instances.keypoints, instances.keypoint_scores, strict=True
                )
            ]
        }

    def report(self):
        return {'keypoint_names': [self.meta['keypoint_id2name'][i] for i in sorted(self.meta['keypoint_id2name'])]}

    def paint(self, image, sample, factor):
        return self._paint_keypoints(image, sample, factor, self.score_thr)

    def _paint_keypoints(self, image, sample, factor, score_thr):
        instances = sample.pred_instances
        if not len(instances):
            return image
        enlarged = InstanceData(
            bboxes=instances.bboxes * factor,
            keypoints=(instances.keypoints + 0.5) * factor - 0.5,  # 0 is the center of the first pixel
            keypoints_visible=instances.keypoint_scores,
        )
        with self._thickened(max(1, round(max(image.shape[:2]) / 300))):
            return self.show(image, {'draw_bbox': True, 'kpt_thr': score_thr}, pred_instances=enlarged)

    @contextmanager
    def _thickened(self, scale: int) -> Iterator[None]:
        """Temporarily draw points and lines ``scale`` times as thick; the visualizer has no argument for that."""
        thickness = self.visualizer.radius, self.visualizer.line_width
        self.visualizer.radius, self.visualizer.line_width = (scale * value for value in thickness)
        try:
            yield
        finally:
            self.visualizer.radius, self.visualizer.line_width = thickness


class HandPose(Pose):
    """3D joints of one or two hands, with mmpose; side and top views of the skeletons are drawn next to the image.

    Without camera parameters, the size of a hand is unknown: the skeletons have the mean size.

    Args:
        visualizer: See :class:`Task`.
        meta: See :class:`Task`.
        score_thr: Not used: every joint of a hand is drawn.
        max_score: Score of a perfect joint, used to scale scores to 0..1.
    """

    cell_inches = 4.8

    def __init__(self, visualizer, meta, score_thr, max_score: float = 1.0):
        super().__init__(visualizer, meta, score_thr)
        self.max_score = max_score

    def join(self, samples):
        """Scale scores to 0..1; all joints of a hand that the model predicts to be absent have score 0."""
        joined = super().join(samples)
        instances = joined.pred_instances
        if len(instances):
            instances.keypoint_scores = np.clip(instances.keypoint_scores / self.max_score, 0, 1)
            if 'hand_type' in instances:  # right, left
                num_joints = instances.keypoints.shape[1] // 2
                instances.keypoint_scores = instances.keypoint_scores * np.repeat(instances.hand_type, num_joints, 1)
        return joined

    def describe(self, sample):
        instances = sample.pred_instances
        if not len(instances):
            return {'instances': []}
        flat = BaseDataElement(pred_instances=self._flat(instances))
        records = super().describe(flat)['instances']
        for i, record in enumerate(records):
            record['depths_mm'] = [round(depth, 2) for depth in instances.keypoints[i, :, 2].tolist()]
            if 'hand_type' in instances:
                record['hands'] = [
                    side for side, found in zip(('right', 'left'), instances.hand_type[i], strict=True) if found
                ]
                record['left_wrist_behind_right_mm'] = round(float(instances.rel_root_depth[i]), 2)
        return {'instances': records}

    @staticmethod
    def _flat(instances):
        return InstanceData(
            bboxes=instances.bboxes, keypoints=instances.keypoints[..., :2], keypoint_scores=instances.keypoint_scores
        )

    def paint(self, image, sample, factor):
        instances = sample.pred_instances
        side = image.shape[0] // 2
        if not len(instances):
            return np.pad(image, [(0, 0), (0, side), (0, 0)], constant_values=255)
        flat = BaseDataElement(pred_instances=self._flat(instances))
        painted = self._paint_keypoints(image, flat, factor, score_thr=1e-6)  # excludes absent hands, with score 0
        skeletons = [self._skeleton(instances[i]) for i in range(len(instances))]
        views = [
            draw_skeletons([(joints[:, axes], links, colors) for joints, links, colors in skeletons], side, title)
            for axes, title in (([2, 1], 'from the side: depth right'), ([0, 2], 'from above: depth down'))
        ]
        column = np.concatenate(views)
        missing = len(painted) - len(column)  # one row if the height is odd
        return np.concatenate([painted, np.pad(column, [(0, missing), (0, 0), (0, 0)], mode='edge')], axis=1)

    def _skeleton(self, instance):
        """Joints (K, 3) in mm, the links of the hands that are present, and the link colors."""
        joints, present = instance.keypoints[0].astype(np.float64), instance.keypoint_scores[0] > 0
        if 'hand_type' in instance:
            joints[len(joints) // 2 :, 2] += float(instance.rel_root_depth[0]) if instance.hand_type.all() else 0
        pairs = zip(self.meta['skeleton_links'], self.meta['skeleton_link_colors'], strict=True)
        kept = [(link, color) for link, color in pairs if present[list(link)].all()]
        links, colors = [link for link, _ in kept], [color for _, color in kept]
        joints[:, :2] *= mm_per_pixel(joints, links)
        return joints, links, colors


def mm_per_pixel(joints: np.ndarray, links: list[tuple[int, int]]) -> float:
    """Scale at which the total bone length of the hands is that of an average adult.

    Args:
        joints: (K, 3): x, y in pixels, z in mm.
        links: The bones of the hands, 20 per hand, as pairs of joints.

    Returns:
        mm per pixel; 1 if no bone has a length in the image plane.
    """
    if not links:
        return 1.0
    first, second = np.array(links).T
    steps = joints[first] - joints[second]
    in_plane, in_depth = np.linalg.norm(steps[:, :2], axis=1), abs(steps[:, 2])
    if not in_plane.any():
        return 1.0
    target = BONE_LENGTH_SUM * len(links) / 20
    low, high = 0.0, target / in_plane.sum()
    for _ in range(40):  # bisection
        middle = (low + high) / 2
        low, high = (middle, high) if np.hypot(middle * in_plane, in_depth).sum() < target else (low, middle)
    return high


def draw_skeletons(
    skeletons: list[tuple[np.ndarray, list[tuple[int, int]], list]], size: int, title: str
) -> np.ndarray:
    """Draw 2D skeletons side by side on a white background, all at the same scale.

    Args:
        skeletons: For each, joints (K, 2) in mm, its links, and their colors (RGB).
        size: Width and height of the image in pixels.
        title: Text above the skeletons.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    panel = np.full((size, size, 3), 255, np.uint8)
    title_height = max(14, size // 12)
    cv2.putText(
        panel, title, (4, title_height - 4), cv2.FONT_HERSHEY_SIMPLEX, size / 600, (90, 90, 90), 1, cv2.LINE_AA
    )  # fmt: skip
    drawn = [(joints[np.unique(links)], joints, links, colors) for joints, links, colors in skeletons if links]
    if not drawn:
        return panel
    extent = max((np.ptp(used, axis=0).max() for used, *_ in drawn), default=1.0)
    width = size / len(drawn)
    scale = 0.85 * min(width, size - title_height) / max(extent, 1e-6)
    for i, (used, joints, links, colors) in enumerate(drawn):
        center = (used.min(0) + used.max(0)) / 2
        points = (joints - center) * scale + [(i + 0.5) * width, (size + title_height) / 2]
        for (first, second), color in zip(links, colors, strict=True):
            start, end = (tuple(round(float(value) * 16) for value in points[joint]) for joint in (first, second))
            rgb = tuple(int(value) for value in color)
            cv2.line(panel, start, end, rgb, max(1, size // 90), cv2.LINE_AA, shift=4)
            cv2.circle(panel, end, 16 * max(1, size // 70), rgb, -1, cv2.LINE_AA, shift=4)
    return panel
