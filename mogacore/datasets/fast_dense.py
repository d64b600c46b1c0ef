"""Training transforms of segmentation and detection with the random draws of the toolboxes, in less processor time.

Which ones a config uses is the choice of ``fast_data``, see :mod:`mogacore.engine.fast_data`.
"""

from __future__ import annotations

from importlib import import_module

import cv2
import numpy as np
from mmengine.registry import TRANSFORMS

ATTEMPTS = 10  # to find a crop with enough classes, as in mmseg
EXACT = 2**24  # pixels that the float32 counts of OpenCV's histogram can hold


@TRANSFORMS.register_module()
class FastRandomCrop:
    """mmseg's RandomCrop with the same crops; the classes of a crop are counted by a histogram instead of sorting.

    Args:
        **settings: Those of mmseg's RandomCrop.
    """

    def __init__(self, **settings):
        self.published = TRANSFORMS.build(dict(type='mmseg.RandomCrop', **settings))

    def __call__(self, results: dict) -> dict:
        published, labels = self.published, results['gt_seg_map']
        if labels.dtype != np.uint8 or labels.ndim != 2 or labels.size > EXACT or published.cat_max_ratio >= 1:
            return published(results)
        region = self._choose(labels)
        for key in ('img', *results.get('seg_fields', [])):
            results[key] = published.crop(results[key], region)
        results['img_shape'] = results['img'].shape[:2]
        return results

    def _choose(self, labels: np.ndarray) -> tuple[int, int, int, int]:
        region = self._draw(labels.shape)
        for _ in range(ATTEMPTS):
            counts = cv2.calcHist([self.published.crop(labels, region)], [0], None, [256], [0, 256])[:, 0]
            counts[self.published.ignore_index : self.published.ignore_index + 1] = 0
            if np.count_nonzero(counts) > 1 and counts.max() / counts.sum(dtype=float) < self.published.cat_max_ratio:
                break
            region = self._draw(labels.shape)
        return region

    def _draw(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Top, bottom, left and right of a random crop."""
        height, width = self.published.crop_size
        top = np.random.randint(0, max(shape[0] - height, 0) + 1)
        left = np.random.randint(0, max(shape[1] - width, 0) + 1)
        return top, top + height, left, left + width


@TRANSFORMS.register_module()
class LoadPolygons:
    """mmdet's LoadAnnotations that leaves masks as polygons, to be resized and flipped before they become bitmaps.

    An image with an object whose mask is run-length encoded gets bitmaps at once. Crowds do not count as objects.

    Args:
        **settings: Those of mmdet's LoadAnnotations, without ``poly2mask``.
    """

    def __init__(self, **settings):
        self.bitmaps, self.polygons = (
            TRANSFORMS.build(dict(type='mmdet.LoadAnnotations', poly2mask=poly2mask, **settings))
            for poly2mask in (True, False)
        )

    def __call__(self, results: dict) -> dict:
        is_encoded = any(
            isinstance(one.get('mask'), dict) and not one['ignore_flag'] for one in results.get('instances', ())
        )
        return (self.bitmaps if is_encoded else self.polygons)(results)


@TRANSFORMS.register_module()
class RasterizePolygons:
    """Turns the polygons of :class:`LoadPolygons` into bitmaps of the size of the image."""

    def __call__(self, results: dict) -> dict:
        structures, masks = import_module('mmdet.structures.mask'), results['gt_masks']
        if isinstance(masks, structures.PolygonMasks):
            size = masks.height, masks.width
            bitmaps = np.zeros((len(masks), *size), np.uint8)
            for bitmap, polygons in zip(bitmaps, masks.masks, strict=True):
                _rasterize(polygons, bitmap)
            results['gt_masks'] = structures.BitmapMasks(bitmaps, *size)
        return results


def _rasterize(polygons: list[np.ndarray], bitmap: np.ndarray) -> None:
    """Fill polygons of x and y in turns with ones, by the rules of COCO, in the rectangle around them alone."""
    from pycocotools import mask as coco_masks

    corners = np.concatenate([polygon.reshape(-1, 2) for polygon in polygons])
    limit = bitmap.shape[1], bitmap.shape[0]
    # A margin of two pixels: the rules of COCO round to fifths of a pixel.
    left, top = np.clip(np.floor(corners.min(0)).astype(int) - 2, 0, limit)
    right, bottom = np.clip(np.ceil(corners.max(0)).astype(int) + 2, 0, limit)
    if right > left and bottom > top:
        shifted = [(polygon.reshape(-1, 2) - (left, top)).ravel() for polygon in polygons]
        encoded = coco_masks.merge(coco_masks.frPyObjects(shifted, int(bottom - top), int(right - left)))
        bitmap[top:bottom, left:right] = coco_masks.decode(encoded)
