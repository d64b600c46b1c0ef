"""Pose estimation: keypoints of objects in the image."""

from __future__ import annotations

import cv2
import numpy as np

from mogacore.runtime.drawing.canvas import thickness

from .base import Result, Task

BOX_COLOR = (0, 200, 0)
RADIUS, LINE_WIDTH = 3, 2  # pixels in an image of 400 pixels


class Pose(Task):
    """Objects: ``boxes`` (N, 4), ``keypoints`` (N, K, 2) x, y and ``scores`` (N, K).

    Annotations in the crop of an object have no boxes.
    """

    def __init__(self, meta, score_thr):
        super().__init__(meta, score_thr)
        keypoints = meta['keypoints']
        self.names: list[str] = keypoints['names']
        self.links: list[tuple[int, int]] = [(first, second) for first, second in keypoints.get('skeleton') or ()]
        self.colors = _colors(keypoints.get('colors'), len(self.names))
        self.link_colors = _colors(keypoints.get('skeleton_colors'), len(self.links))

    def describe(self, result):
        return {
            'instances': [
                {
                    'bbox': [round(value, 2) for value in box.tolist()],
                    'score': round(scores.mean().item(), 6),
                    'keypoints': [
                        [round(x, 2), round(y, 2), round(score, 6)]
                        for (x, y), score in zip(keypoints[:, :2].tolist(), scores.tolist(), strict=True)
                    ],
                }
                for box, keypoints, scores in zip(result['boxes'], result['keypoints'], result['scores'], strict=True)
            ]
        }

    def report(self):
        return {'keypoint_names': self.names}

    def paint(self, image, result, factor):
        self.paint_keypoints(image, result, factor, self.score_thr)
        return image

    def paint_keypoints(self, image: np.ndarray, result: Result, factor: int, score_thr: float) -> None:
        """Draw boxes, skeletons and keypoints with a score of at least ``score_thr`` in place."""
        width = thickness(image)
        boxes = np.round(result.get('boxes', np.zeros((0, 4))) * factor).astype(int)
        for x1, y1, x2, y2 in boxes:
            cv2.rectangle(image, (x1, y1), (x2, y2), BOX_COLOR, width, cv2.LINE_AA)
        points = (result['keypoints'][..., :2] + 0.5) * factor - 0.5  # 0 is the center of the first pixel
        for person, scores in zip(points, result['scores'], strict=True):
            visible = np.isfinite(person).all(1) & (scores >= score_thr)
            places = [(round(float(x) * 16), round(float(y) * 16)) if seen else (0, 0)
                      for (x, y), seen in zip(person, visible, strict=True)]  # fmt: skip
            for (first, second), color in zip(self.links, self.link_colors, strict=True):
                if visible[first] and visible[second]:
                    cv2.line(image, places[first], places[second], color, LINE_WIDTH * width, cv2.LINE_AA, shift=4)
            for place, color, seen in zip(places, self.colors, visible, strict=True):
                if seen:
                    cv2.circle(image, place, 16 * RADIUS * width, color, -1, cv2.LINE_AA, shift=4)


def _colors(colors: list | None, number: int) -> list[tuple[int, int, int]]:
    """One RGB color for each of ``number`` points or lines; orange if the data set has none."""
    if colors is None or len(colors) != number:
        return [(255, 153, 51)] * number
    return [(int(red), int(green), int(blue)) for red, green, blue in colors]


def no_objects(num_keypoints: int) -> Result:
    """The result for an image without an object."""
    return {
        'boxes': np.zeros((0, 4), np.float32),
        'keypoints': np.zeros((0, num_keypoints, 2), np.float32),
        'scores': np.zeros((0, num_keypoints), np.float32),
    }
