"""Semantic segmentation: the class map as an image file, and the fraction of the image that each class covers."""

from __future__ import annotations

import cv2
import numpy as np

from mogacore.files import write_png
from mogacore.runtime.drawing.canvas import draw_label, enlarge_mask, make_palette, text_height

from .base import Task

OPACITY = 0.6
MIN_LABELED_SHARE = 0.002  # of the image; the label of a smaller class would hide it


class Segmentation(Task):
    """The class of each pixel: ``class_map`` (H, W) of integers.

    Annotations also have ``ignored`` (H, W) bool, the pixels without a class. They stay as they are in a drawing, and
    are 0 in the map.
    """

    has_threshold = False

    def describe(self, result):
        """The fraction of the image that each class covers, largest first."""
        labels, counts = np.unique(result['class_map'], return_counts=True)
        order = np.argsort(-counts, kind='stable')
        total = int(counts.sum())
        return {
            'classes': [
                {'class': self.class_name(label), 'label': label, 'share': count / total}
                for label, count in zip(labels[order].tolist(), counts[order].tolist(), strict=True)
            ]
        }

    def write(self, result, out_dir, name):
        path = f'maps/{name}.png'
        class_map = result['class_map']
        num_classes = max(len(self.classes or ()), int(class_map.max()) + 1)
        write_png(out_dir / path, class_map.astype(np.uint8 if num_classes <= 256 else np.uint16))
        return {'map': path}

    def paint(self, image, result, factor):
        """Color each class, and write its name into the middle of its largest region."""
        class_map = enlarge_mask(result['class_map'], factor)
        ignored = enlarge_mask(result.get('ignored', np.zeros(result['class_map'].shape, bool)), factor)
        labels, counts = np.unique(class_map[~ignored], return_counts=True)
        if not len(labels):
            return image
        self.color(int(labels[-1]))
        colors = np.array(self.palette or make_palette(None, 1), np.uint8)[class_map]
        colors[ignored] = image[ignored]
        image = cv2.addWeighted(image, 1 - OPACITY, colors, OPACITY, 0)
        for label, count in sorted(zip(labels.tolist(), counts, strict=True), key=lambda entry: entry[1]):
            name = self.class_name(label)
            if name and count >= MIN_LABELED_SHARE * class_map.size:
                x, y = _middle((class_map == label) & ~ignored)
                draw_label(image, name, x, y, self.color(label), text_height(image), centered=True)
        return image


def _middle(mask: np.ndarray) -> tuple[int, int]:
    """The point (x, y) of a mask that is farthest from its border, with the border of the image as part of it."""
    distances = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(distances.argmax(), distances.shape)
    return int(x), int(y)
