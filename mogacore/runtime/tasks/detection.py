"""Object detection and instance segmentation: boxes and masks."""

from __future__ import annotations

import cv2
import numpy as np

from mogacore.runtime.drawing.canvas import blend, draw_label, enlarge_mask, outline, text_height, thickness
from mogacore.runtime.rle import encode_rle

from .base import Result, Task

IGNORED_COLOR = (160, 160, 160)


class Detection(Task):
    """Objects: ``boxes`` (N, 4) x1 y1 x2 y2, ``scores`` (N,), ``labels`` (N,), and ``masks`` (N, H, W) bool, if any.

    Annotations have no scores, and may have ``ignored_boxes`` (M, 4), regions that training ignores, such as crowds.
    """

    def select(self, result: Result) -> Result:
        """The instances with a score of at least ``score_thr``, best first."""
        order = np.argsort(-result['scores'], kind='stable')
        order = order[result['scores'][order] >= self.score_thr]
        return {name: values[order] for name, values in result.items()}

    def describe(self, result):
        records = [
            {
                'class': self.class_name(label),
                'label': label,
                'score': round(score, 6),
                'bbox': [round(value, 2) for value in box],
            }
            for label, score, box in zip(
                result['labels'].tolist(), result['scores'].tolist(), result['boxes'].tolist(), strict=True
            )
        ]
        for record, mask in zip(records, result.get('masks', ()), strict=False):
            record['segmentation'] = encode_rle(mask, compressed=True)
        return {'instances': records}

    def paint(self, image, result, factor):
        """Draw translucent masks with contours, then boxes, then labels, the best object on top.

        Without ``scores``, the objects are the truth, and labels are only the names of the classes.
        """
        width, size = thickness(image), text_height(image)
        labels = [int(label) for label in result['labels'][::-1]]
        for mask, label in zip(result.get('masks', np.zeros((0, 0, 0)))[::-1], labels, strict=False):
            mask = enlarge_mask(mask, factor)
            blend(image, mask, self.color(label), 0.45)
            outline(image, mask, self.color(label), width)
        for x1, y1, x2, y2 in np.round(result.get('ignored_boxes', np.zeros((0, 4))) * factor).astype(int):
            cv2.rectangle(image, (x1, y1), (x2, y2), IGNORED_COLOR, width, cv2.LINE_AA)
            draw_label(image, 'ignored', x1 - width // 2, y1, IGNORED_COLOR, size)
        boxes = np.round(result['boxes'][::-1] * factor).astype(int)
        for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
            cv2.rectangle(image, (x1, y1), (x2, y2), self.color(label), width, cv2.LINE_AA)
        names = [self.class_name(label) for label in labels]
        if 'scores' in result:
            names = [f'{name} {score:.2f}' for name, score in zip(names, result['scores'][::-1], strict=True)]
        for (x1, y1, _, _), label, name in zip(boxes, labels, names, strict=True):
            draw_label(image, name, x1 - width // 2, y1, self.color(label), size)
        return image
