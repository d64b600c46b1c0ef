"""Annotations and results in COCO format: the class of ``xtcocotools.coco``, based on faster-coco-eval."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from os import PathLike

import numpy as np
from faster_coco_eval.core.coco import COCO as FasterCOCO

from ..errors import UserError

__all__ = ['COCO']


class COCO(FasterCOCO):
    """Annotations of a data set, or results of a model, with an index.

    It differs from faster-coco-eval's class as xtcocotools does: ``getAnnIds`` keeps the order of ``imgIds`` and
    includes the lower bound of an area range, a name may be a single string, every annotation has ``iscrowd``, and ids
    may start at 0. In addition, keypoints may be nested, as in ``[[x, y, v], ...]``.

    Args:
        annotation_file: JSON file in COCO format.
        test_index: Indices of the keypoints to keep in each annotation, in this order; None keeps all.
        ann_data: Content of the file, if it has already been read.

    Raises:
        UserError: If the file is not an ordinary one, such as a FIFO, which would be waited for.
    """

    anno_file: list

    def __init__(
        self,
        annotation_file: str | PathLike | None = None,
        test_index: Sequence[int] | None = None,
        ann_data: dict | None = None,
    ) -> None:
        source = annotation_file if ann_data is None else ann_data
        if isinstance(source, str | PathLike) and os.path.exists(source) and not os.path.isfile(source):
            raise UserError(f'annotation file {source} is not an ordinary file: use a JSON file')
        super().__init__(source)
        self.anno_file = [annotation_file]
        self.test_index = test_index
        for ann in self.dataset.get('annotations', ()):
            if ann.get('iscrowd') is None:
                ann['iscrowd'] = False
            points = ann.get('keypoints')
            if points and isinstance(points[0], list):
                ann['keypoints'] = [value for point in points for value in point]
            if test_index is not None:
                ann['keypoints'] = np.reshape(ann['keypoints'], (-1, 3))[test_index].ravel().tolist()

    def createIndex(self) -> None:
        """Index annotations, images and categories by id."""
        with warnings.catch_warnings():
            # Only faster-coco-eval's evaluation mistakes id 0 for "no match"; ours passes ids from 1.
            warnings.filterwarnings('ignore', 'Found annotation id 0')
            super().createIndex()

    def getAnnIds(
        self,
        imgIds: int | Sequence[int] | None = None,
        catIds: int | Sequence[int] | None = None,
        areaRng: Sequence[float] | None = None,
        iscrowd: bool | None = None,
    ) -> list[int]:
        """Ids of the annotations that meet all conditions, in the order of the images.

        Args:
            imgIds: Image ids; all if None or empty.
            catIds: Category ids; all if None or empty.
            areaRng: Half-open range of areas [smallest, largest), in pixels.
            iscrowd: True for crowd regions only, False for none, None for all annotations.
        """
        images, categories = _as_list(imgIds), set(_as_list(catIds))
        if images:
            anns = [ann for image in images for ann in self.imgToAnns.get(image, ())]
        else:
            anns = self.dataset['annotations']
        return [
            ann['id']
            for ann in anns
            if (not categories or ann['category_id'] in categories)
            and (areaRng is None or len(areaRng) == 0 or areaRng[0] <= ann['area'] < areaRng[1])
            and (iscrowd is None or bool(ann['iscrowd']) == bool(iscrowd))
        ]

    def getCatIds(
        self,
        catNms: str | Sequence[str] | None = None,
        supNms: str | Sequence[str] | None = None,
        catIds: int | Sequence[int] | None = None,
    ) -> list[int]:
        """Ids of the categories that meet all conditions: names, names of supercategories, ids."""
        return super().getCatIds(_as_list(catNms), _as_list(supNms), catIds)

    def loadRes(self, resFile: str | PathLike | list | np.ndarray, resData: list | None = None) -> COCO:
        """Load the results of a model; each gets ``id`` and ``area``, and ``bbox`` if it has none.

        Args:
            resFile: JSON file, list of results, or array (N, 7) of image id, x, y, width, height, score, category id.
            resData: Content of the file, if it has already been read.

        Returns:
            The results, as an indexed data set of the same images.

        Raises:
            AssertionError: If a result belongs to no image of this data set.
        """
        if len(self.anno_file) == 1:
            self.anno_file.append(resFile)
        results = type(self)()
        results.dataset = super().loadRes(resFile if resData is None else resData).dataset
        results.createIndex()
        return results


def _as_list(values: object) -> list:
    """Wrap a single value in a list; None becomes an empty list."""
    if values is None:
        return []
    return list(values) if hasattr(values, '__iter__') and not isinstance(values, str) else [values]
