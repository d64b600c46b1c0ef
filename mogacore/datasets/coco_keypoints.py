"""mmpose's CocoDataset with defaults of the metainfo; imported by mmpose's registry, see `mogacore.libraries`."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

from mmengine.logging import print_log

from mogacore.errors import UserError

from .keypoint_info import read_metainfo

Base: Any = import_module('mmpose.datasets').CocoDataset


@import_module('mmpose.registry').DATASETS.register_module(force=True)
class CocoDataset(Base):
    """As mmpose's, but ``metainfo`` needs only ``keypoint_info``.

    It may also be in a file, see :func:`mogacore.datasets.keypoint_info.read_metainfo`.
    """

    @classmethod
    def _load_metainfo(cls, metainfo: dict | None = None) -> dict:
        if metainfo:
            metainfo = type(metainfo)(read_metainfo(metainfo))
        return super()._load_metainfo(metainfo)

    def load_data_list(self) -> list[dict]:
        """Read the annotations.

        Raises:
            UserError: If the file has no object with a box and visible keypoints.
        """
        data_list = super().load_data_list()
        if not data_list:
            raise UserError(
                f'{self.ann_file} has no object with a box and visible keypoints: correct bbox, keypoints (x, y, '
                'visibility of each) and num_keypoints'
            )
        if lacking := sum('area' not in (entry.get('raw_ann_info') or {'area'}) for entry in data_list):
            print_log(
                f'{self.ann_file}: {lacking} of {len(data_list)} objects have no area, 0.53 times the area of the box '
                'is used, as for persons in COCO',
                'current',
                logging.WARNING,
            )
        return data_list
