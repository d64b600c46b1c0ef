"""mmpose's CocoDataset with defaults of the metainfo; imported by mmpose's registry, see `mogacore.libraries`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

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
    def _load_metainfo(cls, metainfo: Mapping | None = None) -> dict:
        if metainfo is not None and 'keypoint_info' in metainfo:
            count = len(metainfo['keypoint_info'])
            defaults = dict(
                dataset_name='own', skeleton_info={}, joint_weights=[1.0] * count, sigmas=[SIGMA] * count
            )
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
        return data_list
