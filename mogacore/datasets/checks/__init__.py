"""Checks of user data before training: each error is reported in one line that names the file and the fix.

The checks interpret a dataset config as mmdet's and mmpose's CocoDataset and mmseg's BaseSegDataset do, but do not
import them. In large data sets they check an evenly spaced sample: the files of ``MAX_LISTED`` entries, the size of
``MAX_OPENED`` images and the values of ``MAX_DECODED`` maps.
"""

from collections.abc import Mapping

from .coco import check_coco
from .explain import explain
from .hands import check_freihand, check_interhand
from .keypoints import check_keypoints
from .maps import check_segmentation

__all__ = ['check_dataset', 'explain']


def check_dataset(dataset: Mapping, num_classes: int | None = None, num_keypoints: int | None = None) -> None:
    """Check the files of a data set for errors that would stop training or silently degrade it.

    Args:
        dataset: Config of a single data set without wrapper, with an absolute ``data_root``. Types other than
            CocoDataset, BaseSegDataset, ADE20KDataset, InterHand3DDataset and FreiHAND are not checked.
        num_classes: Number of classes of the model's head; None to skip this check.
        num_keypoints: Number of keypoints of the model's head; None to skip this check.

    Raises:
        UserError: For the first error found.
    """
    kind = str(dataset['type']).rpartition('.')[2]
    if kind == 'CocoDataset':
        has_keypoints = 'data_mode' in dataset or 'keypoint_info' in (dataset.get('metainfo') or {})
        if has_keypoints or num_keypoints is not None:
            check_keypoints(dataset, num_keypoints)
        else:
            check_coco(dataset, num_classes)
    elif kind in ('BaseSegDataset', 'ADE20KDataset'):
        check_segmentation(dataset, num_classes, is_ade=kind == 'ADE20KDataset')
    elif kind == 'InterHand3DDataset':
        check_interhand(dataset)
    elif kind == 'FreiHAND':
        check_freihand(dataset)
