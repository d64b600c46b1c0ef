"""3D joints of hands; side and top views of the skeletons are drawn next to the image."""

from __future__ import annotations

import cv2
import numpy as np

from mogacore.runtime.drawing.canvas import draw_text

from .base import Result
from .pose import Pose

# Total length of all bones of a hand of mean size, including those from the wrist to the fingers, in mm.
BONE_LENGTH_SUM = 854.6857592237068


class HandPose(Pose):
    """3D joints of one or two hands.

    Results: those of :class:`Pose`, with ``keypoints`` (N, K, 3) x, y in pixels and depth relative to the wrist in mm,
    and ``scores`` in 0..1. A model of two hands adds ``hands`` (N, 2), whether the right and the left one are present,
    and ``root_depth`` (N,), the depth of the left wrist relative to the right one in mm; the joints of the right hand
    come first, and those of an absent hand have score 0.

    Without camera parameters, the size of a hand is unknown: the skeletons have the mean size. Every joint of a present
    hand is drawn, whatever its score.
    """

    cell_width = 480
    has_threshold = False

    def describe(self, result):
        records = super().describe(result)['instances']
        for i, record in enumerate(records):
            record['depths_mm'] = [round(depth, 2) for depth in result['keypoints'][i, :, 2].tolist()]
            if 'hands' in result:
                record['hands'] = [
                    side for side, found in zip(('right', 'left'), result['hands'][i], strict=True) if found
                ]
                record['left_wrist_behind_right_mm'] = round(float(result['root_depth'][i]), 2)
        return {'instances': records}

    def paint(self, image, result, factor):
        side = image.shape[0] // 2
        if not len(result['keypoints']):
            return np.pad(image, [(0, 0), (0, side), (0, 0)], constant_values=255)
        self.paint_keypoints(image, result, factor, score_thr=1e-6)  # excludes absent hands, with score 0
        skeletons = [
            self._skeleton({name: values[i] for name, values in result.items()})
            for i in range(len(result['keypoints']))
        ]
        views = [
            draw_skeletons([(joints[:, axes], links, colors) for joints, links, colors in skeletons], side, title)
            for axes, title in (([2, 1], 'from the side: depth right'), ([0, 2], 'from above: depth down'))
        ]
        column = np.concatenate(views)
        missing = len(image) - len(column)  # one row if the height is odd
        return np.concatenate([image, np.pad(column, [(0, missing), (0, 0), (0, 0)], mode='edge')], axis=1)

    def _skeleton(self, instance: Result):
        """Joints (K, 3) in mm, the links of the hands that are present, and the link colors."""
        joints, present = instance['keypoints'].astype(np.float64), instance['scores'] > 0
        if 'hands' in instance and instance['hands'].all():
            joints[len(joints) // 2 :, 2] += float(instance['root_depth'])
        pairs = zip(self.links, self.link_colors, strict=True)
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
    draw_text(panel, title, 4, 2, round(title_height * 0.7), (90, 90, 90))
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
