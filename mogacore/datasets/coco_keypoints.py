"""mmpose's CocoDataset with defaults of the metainfo; imported by mmpose's registry, see `mogacore.libraries`."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

from mmengine.logging import print_log

from mogacore.errors import UserError

Base: Any = import_module('mmpose.datasets').CocoDataset
SIGMA = 0.067  # mean of COCO's 17 sigmas


@import_module('mmpose.registry').DATASETS.register_module(force=True)
class CocoDataset(Base):
    """As mmpose's, but ``metainfo`` needs only ``keypoint_info``.

    Without the other entries there is no skeleton, every keypoint has the loss weight 1, and sigma is the mean of
    COCO's.
    """

    @classmethod
    def _load_metainfo(cls, metainfo: dict | None = None) -> dict:
        if metainfo is not None and 'keypoint_info' in metainfo:
            count = len(metainfo['keypoint_info'])
            defaults = dict(dataset_name='own', skeleton_info={}, joint_weights=[1.0] * count, sigmas=[SIGMA] * count)
            metainfo = type(metainfo)(defaults | dict(metainfo))
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
