"""Check of COCO boxes and masks, as mmdet's CocoDataset reads them."""

from pathlib import Path

from mogacore.errors import UserError

from .coco_files import check_annotations, check_images, check_keys, check_masks, read_coco
from .common import COCO_CLASSES, check_num_classes, read_classes, shorten


def check_coco(dataset, num_classes):
    metainfo = dataset.get('metainfo') or {}
    ann_file = Path(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    content = read_coco(ann_file)
    annotations = content['annotations']
    _check_classes(content['categories'], ann_file, metainfo.get('classes'), num_classes)
    check_keys(annotations, 'annotations', ('bbox', 'area'), ann_file)
    check_annotations(content, annotations, ann_file)
    check_masks(dataset, content, annotations, ann_file)
    folder = Path(dataset.get('data_root') or '', (dataset.get('data_prefix') or {}).get('img') or '')
    check_images(content['images'], folder, ann_file)


def _check_classes(categories, ann_file, classes, num_classes):
    classes = read_classes(classes)
    if classes is not None:
        names = [category['name'] for category in categories]
        if unknown := [name for name in classes if name not in names]:
            problem = f'metainfo.classes has {shorten(unknown)}, but {ann_file} has the categories {shorten(names)}'
            raise UserError(f'{problem}: use the names in the file')
        in_file = [name for name in names if name in classes]
        if in_file != classes:  # mmdet takes the indices from the file, but the names from metainfo
            problem = f'differs from the categories of {ann_file} in its order, or one of them repeats a name'
            raise UserError(f'metainfo.classes {problem}: use {shorten(in_file)}')
    check_num_classes(num_classes, COCO_CLASSES if classes is None else len(classes), classes is not None)
