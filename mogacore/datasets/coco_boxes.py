"""mmdet's CocoDataset with labels by class name; imported by mmdet's registry, see `mogacore.libraries`."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from mogacore.datasets.checks.explain import INVALID_MASK, INVALID_MASK_REMEDY
from mogacore.errors import UserError
from mogacore.text import shorten

Base: Any = import_module('mmdet.datasets').CocoDataset


@import_module('mmdet.registry').DATASETS.register_module(force=True)
class CocoDataset(Base):
    """As mmdet's, but a label is the index of the class name in ``metainfo.classes``.

    The order and the ids of the categories in the file do not matter, and a file may lack some of the classes. In
    mmdet, labels follow the order of the file. Annotations without ``iscrowd`` are single objects, and those without
    ``area``, or with 0, have the area of their box. A file without annotations holds background images, which
    ``filter_cfg.filter_empty_gt`` keeps.
    """

    filter_cfg: dict | None

    def COCOAPI(self, path: str) -> Any:
        """Read an annotation file."""
        coco = Base.COCOAPI(path)
        self._names = {category['id']: category['name'] for category in coco.dataset['categories']}
        self._is_background = not coco.anns
        for annotation in coco.anns.values():
            if annotation.get('area', 0) <= 0:  # a placeholder; mmdet would drop the object
                _, _, width, height = annotation['bbox']
                annotation['area'] = width * height
        return coco

    def load_data_list(self) -> list[dict]:
        """Read the annotations.

        Raises:
            UserError: If the file has none of the classes.
        """
        data_list = super().load_data_list()
        classes = list(self.metainfo['classes'])
        labels = [classes.index(self._names[category]) for category in self.cat_ids]
        if not labels:
            raise UserError(
                f'{self.ann_file} has none of the classes of the data set ({shorten(classes)}), its categories are '
                f'{shorten(list(self._names.values()))}: set metainfo=dict(classes=...) to the names in the file'
            )
        self.cat2label = dict(zip(self.cat_ids, labels, strict=True))
        for image in data_list:
            for instance in image['instances']:
                instance['bbox_label'] = labels[instance['bbox_label']]
        return data_list

    def filter_data(self) -> list[dict]:
        """Apply ``filter_cfg`` to training data.

        Raises:
            UserError: If no image is left.
        """
        if self._is_background and self.filter_cfg is not None:
            self.filter_cfg = dict(self.filter_cfg, filter_empty_gt=False)
        kept = super().filter_data()
        if not kept:
            raise UserError(
                f'{self.ann_file}: filter_cfg={dict(self.filter_cfg or {})} removes all {len(self.data_list)} images: '
                'change it, or add images that are large enough and have objects of the classes'
            )
        return kept

    def prepare_data(self, idx: int) -> Any:
        """Load a sample.

        Raises:
            UserError: If a mask cannot be decoded; the line names the annotation file and the image.
        """
        try:
            return super().prepare_data(idx)
        except (RuntimeError, ValueError) as error:
            if not re.search(INVALID_MASK, str(error)):
                raise
            image = self.get_data_info(idx)['img_path']
            raise UserError(f'{self.ann_file}: a mask of image {image} {INVALID_MASK_REMEDY}') from error
