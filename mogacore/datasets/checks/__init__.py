"""Checks of user data: each problem is one line that names the file, the value and the remedy.

The checks interpret a dataset config as the task libraries do, but do not import them. They look at every annotation,
and at as many files as a :class:`Sample` allows: the sizes of images and the values of maps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mogacore.text import type_name

from .coco import check_coco
from .common import check_channels, check_num_classes, read_classes
from .explain import explain
from .folders import check_class_folders
from .hands import check_freihand, check_interhand
from .keypoints import check_keypoints
from .maps import check_segmentation
from .report import Expected, Problems, Sample
from .sequences import check_sequences

__all__ = ['Expected', 'Problems', 'Sample', 'check_dataset', 'explain', 'find_problems']

CHECKS: dict[str, Callable] = {
    'CustomDataset': check_class_folders,
    'ClassFolders': check_class_folders,
    'ImageNet': check_class_folders,
    'ImageNet21k': check_class_folders,
    'CocoLabels': check_coco,
    'BaseSegDataset': check_segmentation,
    'ADE20KDataset': check_segmentation,
    'InterHand3DDataset': check_interhand,
    'FreiHAND': check_freihand,
    **dict.fromkeys(
        (
            'SequenceFile',
            'FrameFolders',
            'KTH',
            'KittiCaltech',
            'TaxiBJ',
            'MovingMNIST',
            'MovingDigits',
            'WeatherBench',
        ),
        check_sequences,
    ),
}


def find_problems(dataset: Mapping, expected: Expected, sample: Sample) -> Problems:
    """Find what would stop or silently spoil training or testing with a data set.

    Args:
        dataset: Config of a single data set without wrapper, with an absolute ``data_root``.
        expected: What the model expects.
        sample: How many files to read.
    """
    problems = Problems()
    kind = type_name(dataset['type'])
    with problems.collect():
        check_channels(dataset, expected.in_channels)
    check = CHECKS.get(kind, _check_count)
    if kind == 'CocoDataset':
        has_keypoints = 'data_mode' in dataset or {'keypoint_info', 'from_file'} & set(dataset.get('metainfo') or {})
        check = check_keypoints if has_keypoints or expected.num_keypoints is not None else check_coco
    with problems.collect():
        check(dataset, expected, sample, problems)
    return problems


def check_dataset(dataset: Mapping, num_classes: int | None = None, num_keypoints: int | None = None) -> None:
    """Check a data set completely against one head, see :func:`find_problems`.

    Raises:
        UserError: For all problems found.
    """
    counts = {} if num_classes is None else {'model.head': num_classes}
    find_problems(dataset, Expected(counts, num_keypoints), Sample()).refuse()


def _check_count(dataset, expected, sample, problems):
    if (classes := read_classes((dataset.get('metainfo') or {}).get('classes'))) is not None:
        check_num_classes(expected.num_classes, len(classes))
    elif expected.builtin_classes is not None:
        check_num_classes(expected.num_classes, len(expected.builtin_classes), f'{dataset["type"]} of this data set')
