"""Check of COCO boxes and masks, as mmdet's CocoDataset reads them."""

from collections.abc import Mapping
from pathlib import Path

from mogacore.errors import UserError
from mogacore.text import shorten, type_name

from .coco_files import (
    check_annotations,
    check_encoded_masks,
    check_ids,
    check_image_prefix,
    check_images,
    check_keys,
    check_masks,
    check_objects,
    loads_masks,
    read_coco,
)
from .common import COCO_CLASSES, check_num_classes, read_classes, repeated_names
from .report import Expected, Problems, Sample


def check_coco(dataset: Mapping, expected: Expected, sample: Sample, problems: Problems) -> None:
    """Check boxes and masks: classes, annotations, and images."""
    metainfo = dataset.get('metainfo') or {}
    ann_file = Path(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    check_image_prefix(dataset.get('data_prefix'))
    content = read_coco(ann_file, may_be_empty=expected.may_be_empty)
    annotations = content['annotations']
    if type_name(dataset['type']) == 'CocoDataset':
        check_ids(content, ann_file)
    with problems.collect():
        _check_classes(content['categories'], ann_file, metainfo.get('classes'), expected)
    with problems.collect():
        check_keys(annotations, 'annotations', ('bbox',), ann_file)
        check_annotations(content, annotations, ann_file)
        check_objects(annotations, ann_file)
        if loads_masks(dataset.get('pipeline') or ()):
            check_masks(content, annotations, ann_file)
    folder = Path(dataset.get('data_root') or '', (dataset.get('data_prefix') or {}).get('img') or '')
    with problems.collect():
        check_images(dataset, content['images'], folder, ann_file, sample, problems)
    if loads_masks(dataset.get('pipeline') or ()):
        with problems.collect():
            check_encoded_masks(annotations, ann_file, sample)


def _check_classes(categories, ann_file, classes, expected):
    """Names must agree and be unique; their order and the ids of the categories are free."""
    names = [category['name'] for category in categories]
    classes = read_classes(classes)
    if classes is not None:
        if unknown := [name for name in classes if name not in names]:
            problem = f'metainfo.classes has {shorten(unknown)}, but {ann_file} has the categories {shorten(names)}'
            raise UserError(f'{problem}: use the names in the file, or add a category, which may have no objects')
        if repeated := repeated_names(classes):
            raise UserError(f'metainfo.classes repeats {shorten(repeated)}: list each class once')
    if repeated := repeated_names(names):
        problem = f'{ann_file}: several categories have the name {shorten(repeated)}'
        raise UserError(f'{problem}: give each category its own name, classes are mapped by name')
    if classes is not None:
        check_num_classes(expected.num_classes, len(classes))
        return
    check_num_classes(expected.num_classes, COCO_CLASSES, 'CocoDataset without metainfo.classes')
    if expected.builtin_classes and not set(names) & set(expected.builtin_classes):
        problem = f"{ann_file} has the categories {shorten(names)}, none of which is among COCO's {COCO_CLASSES}"
        raise UserError(f'{problem}: set metainfo=dict(classes=...) of the data set')
