"""Own data as a new user would set it up: each mismatch has the right result, or the same line from every command.

A row is a kind of data, a change of a valid project, and its outcome: the scores of a test, which an oracle predicts
perfectly, or parts of the line with which training, test and dry run refuse. The checks of files are tested in detail
in ``tests/datasets/checks``; here whole commands are.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import own_data_makers as own_data
import pytest
from conftest import ROOT
from own_data_makers import BOXES, CLASSES, POINTS, SIZE, corners, gray, keypoint_info, stripes, write_maps
from PIL import Image

from mogacore.coco_eval import mask
from mogacore.datasets.checks.coco_files import check_annotations
from mogacore.errors import UserError
from mogacore.inference.predictor import infer
from mogacore.runtime.inputs import Boxes

for library in ('mmpretrain', 'mmdet', 'mmseg', 'mmpose'):
    pytest.importorskip(library)

pytestmark = pytest.mark.usefixtures('frozen_objects', 'fast_runs')
ALL = ('train', 'test', 'dry-run')
TRAINING = ('train', 'dry-run')
FOLDERS, LISTS, COCO, MASKS, KEYPOINTS, MAPS, SEQUENCES = (
    'class_folders', 'list_files', 'coco', 'instance_masks', 'keypoints', 'class_maps', 'sequences',
)  # fmt: skip
CASES = {}


def case(kind, name, *outcome, stages=ALL):
    """Add a row whose change of the project is the decorated function.

    Args:
        kind: Maker of the project.
        name: What is changed.
        *outcome: Parts of the line of ``stages``, or the scores of a test.
        stages: Commands that refuse.
    """

    def add(change):
        assert (kind, name) not in CASES
        CASES[kind, name] = change, outcome, stages
        return change

    return add


def accept(kind, name, **scores):
    return case(kind, name, {key.replace('__', '/'): value for key, value in scores.items()})


def rows(kind, table):
    """Add rows from a dict: name to change and outcome."""
    for name, (change, *outcome) in table.items():
        case(kind, name, *outcome)(change)


# Class folders

TOP1 = {'accuracy/top1': 100.0}
accept(FOLDERS, 'valid', accuracy__top1=100.0)(lambda p: None)


@case(FOLDERS, 'val lacks a folder', TOP1)
def _(p):
    remove(p.data / 'val/b')


@case(FOLDERS, 'val lacks a folder, no training data, names in the checkpoint', TOP1)
def _(p):
    remove(p.data / 'val/b', p.data / 'train')
    p.saved = dict(classes=CLASSES)


@case(FOLDERS, 'val lacks a folder, no training data, no names',
      'folder ROOT/val (a, c) has 2 classes, but the model has 3', 'change the class folders',
      stages=['test'])  # fmt: skip
def _(p):
    remove(p.data / 'val/b', p.data / 'train')


@case(FOLDERS, 'names of the checkpoint differ from the folders',
      "folder ROOT/val has the class folder 'c', but the model is trained with the classes a, b, x: remove or rename",
      stages=['test'])  # fmt: skip
def _(p):
    p.saved = dict(classes=('a', 'b', 'x'))


@case(FOLDERS, 'all names of the checkpoint differ', 'weights.pth was trained with other names of classes',
      "number 0 is 'x' in the file and 'a' in the data", 'load_allow_other_classes=True', stages=['test'])  # fmt: skip
def _(p):
    p.saved = dict(classes=('x', 'y', 'z'))


@case(FOLDERS, 'some other names of the checkpoint are accepted', TOP1)
def _(p):
    p.saved = dict(classes=('a', 'b', 'x'))
    p.config.load_allow_other_classes = True


@case(FOLDERS, 'other names of the checkpoint are accepted', TOP1)
def _(p):
    p.saved = dict(classes=('x', 'y', 'z'))
    p.config.load_allow_other_classes = True


def add_folder(p, name, split='train'):
    gray(p.data / split / name / '0.png', 0, (4, 4))


@case(FOLDERS, 'images sorted into hidden folders too', TOP1)
def _(p):
    for split in ('train', 'val'):
        add_folder(p, '.ipynb_checkpoints', split)


@case(FOLDERS, 'flat val', 'folder ROOT/val has no class folders, only 1 files, such as 0.png: sort the images')
def _(p):
    remove(p.data / 'val')
    gray(p.data / 'val/0.png', 0)


@case(FOLDERS, 'webp images', TOP1)
def _(p):
    for path in p.data.rglob('*.png'):
        Image.open(path).save(path.with_suffix('.webp'), lossless=True)
        path.unlink()


def to_arrays(p, channels):
    for path in p.data.rglob('*.png'):
        np.save(path.with_suffix('.npy'), np.repeat(np.asarray(Image.open(path))[..., :1], channels, 2))
        path.unlink()
    p.set(extensions=['.npy'])


@case(FOLDERS, 'arrays of five channels', TOP1)
def _(p):
    to_arrays(p, 5)
    p.config.model.backbone.in_channels = 5
    for dataset in p.datasets:
        dataset.pipeline[0] = dict(type='LoadArray')


@case(FOLDERS, 'arrays of five channels for three', 'val/a/0.npy of shape (4, 4, 5) has 5 channels',
      'in_channels=3: set in_channels=5')  # fmt: skip
def _(p):
    to_arrays(p, 5)
    p.set(data_prefix='val')
    for dataset in p.datasets:
        dataset.pipeline[0] = dict(type='LoadArray')


@case(FOLDERS, 'arrays that the pipeline cannot load',
'ROOT/val has 6 arrays, such as a/0.npy, which LoadImageFromFile',
      "replace it by dict(type='LoadArray')")  # fmt: skip
def _(p):
    to_arrays(p, 3)
    p.set(data_prefix='val')


@case(FOLDERS, 'order of metainfo.classes', {'accuracy/top1': 100 / 3})  # the oracle is right for b only
def _(p):
    p.set(metainfo=dict(classes=CLASSES[::-1]))


@case(FOLDERS, 'ImageNet with own folders, val lacks one', TOP1)
def _(p):
    remove(p.data / 'val/b')
    as_imagenet(p)


def as_imagenet(p):
    p.set(type='ImageNet')
    for dataset, split in zip(p.datasets, ('train', 'val', 'val'), strict=True):
        del dataset['data_prefix']
        dataset.split = split


@case(FOLDERS, 'ImageNet with a list of own labels', 'ImageNet has 1000 classes, but the model has 3',
      "change the type of the data set to 'CustomDataset'")  # fmt: skip
def _(p):
    as_imagenet(p)
    for split in ('train', 'val'):
        (p.data / 'meta').mkdir(exist_ok=True)
        (p.data / f'meta/{split}.txt').write_text('a/0.png 0\n')


@case(FOLDERS, 'mixed labels without the number of classes',
      'data_preprocessor.num_classes=1000, but model.head.num_classes=3: set both', stages=TRAINING)  # fmt: skip
def _(p):
    p.config.data_preprocessor = dict(num_classes=1000, to_onehot=True)


rows(FOLDERS, {
    'more folders than classes': (
        lambda p: [add_folder(p, 'd', split) for split in ('train', 'val')],
        'the training set ROOT/train (a, b, c, d) has 4 classes, but the model has 3 (model.head.num_classes=3): set'),
    'fewer folders than classes': (
        lambda p: p.config.model.head.update(num_classes=5), 'has 3 classes, but the model has 5', 'set each to 3'),
    'a single class': (
        lambda p: p.config.model.head.update(num_classes=1), 'model.head.num_classes=1: with a single class every',
        'use at least 2 classes'),
    'val has another folder': (
        lambda p: add_folder(p, 'd', 'val'), "folder ROOT/val has the class folder 'd', but the model is trained with",
        'remove or rename the folder'),
    'missing val': (
        lambda p: remove(p.data / 'val'), 'folder ROOT/val with the images not found', 'set data_root and data_prefix'),
    'missing data_root': (
        lambda p: p.set(data_root='/nowhere'), 'data folder /nowhere is missing', 'docs/data.md'),
    'empty class folders': (
        lambda p: remove(*(p.data / 'val').rglob('*.png')), 'ROOT/val have no images that are loaded, they are empty'),
    'one image with a suffix that is not read': (
        lambda p: (p.data / 'val/a/9.gif').write_bytes(b''),
        '1 of 7 images in ROOT/val would be left out, the first is a/9.gif: convert them'),
    'empty image': (
        lambda p: (p.data / 'val/a/0.png').write_bytes(b''), 'image ROOT/val/a/0.png is empty, truncated or not an'),
    'color images for one channel': (
        lambda p: p.config.model.backbone.update(in_channels=1),
        'gives 3 channels, but the backbone has in_channels=1', "add color_type='grayscale'"),
    'mean of another number of channels': (
        lambda p: p.config.update(data_preprocessor=dict(mean=[0, 0], std=[1, 1])),
        'data_preprocessor.mean has 2 values, but the backbone has in_channels=3: give one for each channel'),
    'names of another number': (
        lambda p: p.set(metainfo=dict(classes='ab')), "metainfo.classes is the string 'ab', but no such file exists"),
    'number of classes for names': (
        lambda p: p.set(metainfo=dict(classes=3)), 'metainfo.classes is 3: give a list of names'),
    'two folders': (
        lambda p: p.set(data_prefix=['train', 'val']), "data_prefix of the data set is ['train', 'val']: give"),
    'labels of a data set of the library': (
        lambda p: [dataset.update(type='CIFAR100', split='test') for dataset in p.datasets],
        'has 100 classes, but the model has 3'),
})  # fmt: skip

# List files


def write_list(p, text, split='val'):
    (p.data / f'{split}.txt').write_text(text)


@case(LISTS, 'val lacks a class', TOP1)
def _(p):
    write_list(p, 'a/0.png 0\nc/1.png 2\n')
    remove(p.data / 'val/b')


rows(LISTS, {
    'valid': (lambda p: None, TOP1),
    'labels from 1': (
        lambda p: write_list(p, 'a/0.png 1\nb/0.png 2\nc/0.png 3\n'),
        'ROOT/val.txt has the label 3 (1 lines are too high), but 0 to 2 are allowed', 'correct the labels'),
    'another encoding': (
        lambda p: (p.data / 'val.txt').write_bytes(b'a/\xe4.png 0'), 'ROOT/val.txt cannot be read as text in UTF-8'),
    'names as labels': (
        lambda p: write_list(p, 'a/0.png a\n'), "line 1 of ROOT/val.txt is 'a/0.png a', not a file name, a space and"),
    'commas': (lambda p: write_list(p, 'a/0.png,0\n'), "line 1 of ROOT/val.txt is 'a/0.png,0'", 'correct it'),
    'missing image': (
        lambda p: write_list(p, 'a/7.png 0\n'),
        '1 of 1 images of ROOT/val.txt are not in ROOT/val, the first is a/7.png'),
    'missing folder': (
        lambda p: remove(p.data / 'val'), 'folder ROOT/val with the images not found: create it'),
    'missing list': (lambda p: remove(p.data / 'val.txt'), 'annotation file ROOT/val.txt is missing'),
    'empty list': (lambda p: write_list(p, ''), 'ROOT/val.txt is empty: list one image per line, with its label'),
    'a line that is no name': (
        lambda p: write_list(p, f'{"x" * 300}.png 0'),
        'line 1 of ROOT/val.txt has 306 characters, more than a file name: list one image per line, with its label'),
    'names of another number': (
        lambda p: p.set(metainfo=dict(classes=['x', 'y'])), 'metainfo.classes has 2 classes, but the model has 3'),
})  # fmt: skip

# COCO boxes

EACH = {f'coco/bbox_{name}_precision': 1.0 for name in CLASSES} | {'coco/bbox_mAP': 1.0}


def order(names, ids=(1, 2, 3)):
    """Give the categories of the file this order and these ids; the objects keep their classes."""

    def change(content):
        new = dict(zip(names, ids, strict=True))
        for entry in content['annotations']:
            entry['category_id'] = new[CLASSES[entry['category_id'] - 1]]
        content['categories'] = [dict(id=new[name], name=name) for name in names]

    return lambda p: p.edit(change)


def each_annotation(**fields):
    """Set fields of all annotations, or remove those that are None."""

    def change(content):
        for entry in content['annotations']:
            entry.update(fields)
            for key in [key for key, value in fields.items() if value is None]:
                del entry[key]

    return lambda p: p.edit(change)


def first_annotation(**fields):
    return lambda p: p.edit(lambda content: content['annotations'][0].update(fields))


@case(COCO, 'only a is found, in another order of categories',
      {'coco/bbox_a_precision': 1.0, 'coco/bbox_b_precision': 0.0, 'coco/bbox_c_precision': 0.0})  # fmt: skip
def _(p):
    order(('c', 'a', 'b'), (7, 3, 100))(p)
    p.config.model.found = ['a']


@case(COCO, 'another order in metainfo', EACH)
def _(p):
    p.set(metainfo=dict(classes=['b', 'c', 'a']))
    p.config.model.classes = ['b', 'c', 'a']


@case(COCO, 'a subset of the classes with a head for it', {'coco/bbox_b_precision': 1.0, 'coco/bbox_mAP': 1.0})
def _(p):
    p.set(metainfo=dict(classes=['c', 'b']))
    p.config.model.roi_head.bbox_head.num_classes = 2
    p.config.model.update(classes=['c', 'b'], found=['b', 'c'])


@case(COCO, 'no area: half the size of the objects is small', {'coco/bbox_mAP_s': 1.0, 'coco/bbox_mAP_m': -1.0})
def _(p):
    each_annotation(area=None)(p)


@case(COCO, 'background images beside the others', EACH)
def _(p):
    content = json.loads((p.data / 'objects.json').read_text())
    (p.data / 'background.json').write_text(json.dumps(dict(content, annotations=[])))
    for stage in ('train', 'val'):
        inner = p.config[f'{stage}_dataloader'].dataset
        joined = [inner, dict(inner, ann_file='background.json')]
        p.config[f'{stage}_dataloader'].dataset = dict(type='ConcatDataset', datasets=joined)
    p.config.val_evaluator.ann_file = str(p.data / 'objects.json')


@case(COCO, 'cascade with one head set', 'metainfo.classes has 3 classes, but the model has 80',
      'bbox_head.1.num_classes=80, model.roi_head.bbox_head.2.num_classes=80): set each to 3')  # fmt: skip
def _(p):
    p.config.model.roi_head.bbox_head = [dict(type='Box', num_classes=number) for number in (3, 80, 80)]
    p.config.allow_unknown_keys = ['*']


@case(COCO, 'evaluator of other images', '3 of 3 images are absent from ROOT/other.json, the ann_file of the evaluator',
      'set both to the same file')  # fmt: skip
def _(p):
    (p.data / 'other.json').write_text((p.data / 'objects.json').read_text())
    p.edit(lambda content: [image.update(id=image['id'] + 90) for image in content['images']], 'other.json')
    p.edit(
        lambda content: [entry.update(image_id=entry['image_id'] + 90) for entry in content['annotations']],
        'other.json',
    )
    for stage in ('val', 'test'):
        p.config[f'{stage}_evaluator'].ann_file = str(p.data / 'other.json')


@case(
    COCO, 'names of the checkpoint in another order', "number 0 is 'b' in the file and 'a' in the data", stages=['test']
)
def _(p):
    p.saved = dict(classes=('b', 'a', 'c'))


@case(COCO, 'no metainfo for own classes', "has the categories a, b, c, none of which is among COCO's 80",
      'set metainfo=dict(classes=...)')  # fmt: skip
def _(p):
    p.config.model.roi_head.bbox_head.num_classes = 80
    for dataset in p.datasets:
        del dataset['metainfo']


rows(COCO, {
    'valid': (lambda p: None, EACH),
    'order of the categories': (order(('b', 'c', 'a')), EACH),
    'ids of the categories': (order(CLASSES, (7, 3, 100)), EACH),
    'no info': (lambda p: p.edit(lambda content: content.pop('info')), EACH),
    'no iscrowd': (each_annotation(iscrowd=None), EACH),
    'polygons that are not loaded': (each_annotation(segmentation=[[1, 2]]), EACH),
    'no masks': (each_annotation(segmentation=None), EACH),
    'subset of the classes': (
        lambda p: p.set(metainfo=dict(classes=['a', 'b'])), 'metainfo.classes has 2 classes, but the model has 3',
        'set each to 2'),
    'a class that the file lacks': (
        lambda p: p.set(metainfo=dict(classes=['a', 'b', 'x'])),
        'metainfo.classes has x, but ROOT/objects.json has the categories a, b, c: use the names in the file'),
    'a class twice': (lambda p: p.set(metainfo=dict(classes=['a', 'b', 'b'])), 'metainfo.classes repeats b'),
    'text for classes': (lambda p: p.set(metainfo=dict(classes='a')), "for one class, use ('a',)"),
    'two corners': (
        lambda p: p.edit(lambda content: [e.update(bbox=corners(e['bbox'])) for e in content['annotations']]),
        'ROOT/objects.json: 1 of 3 annotations have a bbox that ends outside the image', 'convert all boxes to x, y'),
    'no boxes': (each_annotation(bbox=None), "ROOT/objects.json: 3 of 3 annotations lack 'bbox'", 'add this field'),
    'box of three numbers': (first_annotation(bbox=[1, 2, 3]), '1 of 3 annotations have a bbox that is not 4 numbers'),
    'unknown category': (first_annotation(category_id=9), 'a category_id that is not among the categories (such as 9)'),
    'unknown image': (first_annotation(image_id=9), 'have an image_id that is not among the images (such as 9)'),
    'repeated id': (first_annotation(id=2), '2 of the annotations have id 2: give each a unique id'),
    'only background': (
        lambda p: p.edit(lambda content: content['annotations'].clear()),
        "ROOT/objects.json: list 'annotations' is empty"),
    'no categories': (
        lambda p: p.edit(lambda content: content.pop('categories')), "lacks the list 'categories', required are"),
    'broken JSON': (
        lambda p: (p.data / 'objects.json').write_text('{'),
        'annotation file ROOT/objects.json cannot be read as JSON'),
    'missing file': (lambda p: remove(p.data / 'objects.json'), 'annotation file ROOT/objects.json is missing'),
    'missing images': (
        lambda p: remove(p.data / 'images/2.png'),
        '1 of 3 images of ROOT/objects.json are not in ROOT/images, the first'),
    'image of another size': (
        lambda p: gray(p.data / 'images/2.png', 0, (20, 10)), '2.png is 20 x 10 px (width x height), but 48 x 32 in'),
    'no prefix': (lambda p: p.set(data_prefix={}), "set data_prefix=dict(img='FOLDER/')"),
    'area 0 as a placeholder': (each_annotation(area=0), EACH),
    'area as text': (each_annotation(area='9'), "3 of 3 annotations have the area '9'", 'or remove the field'),
    'only crowds': (each_annotation(iscrowd=1), 'all 3 annotations have iscrowd or ignore', 'for single objects'),
    'boxes as fractions': (
        each_annotation(bbox=[0.1, 0.1, 0.5, 0.4]), 'no annotation has a bbox of 1 px or more', 'not as fractions'),
    'negative box': (first_annotation(bbox=[20, 20, -9, -9]), '1 of 3 annotations have a bbox of negative width or'),
    'id that is a list': (first_annotation(image_id=[1]), '1 of 3 annotations have the image_id [1]', 'use a number'),
    'width as text': (
        lambda p: p.edit(lambda content: content['images'][0].update(width='48')),
        "1 of 3 images have the width '48', the first has id 1: use the number of pixels"),
    'file name that is a number': (
        lambda p: p.edit(lambda content: content['images'][0].update(file_name=1)),
        'ROOT/objects.json: 1 of 3 images have the file_name 1', 'use the path of the image as text'),
    'folder for the file': (
        lambda p: p.set(ann_file='images'), 'annotation file ROOT/images is a folder: set ann_file of the data set'),
    'no classes': (lambda p: p.set(metainfo=dict(classes=[])), 'metainfo.classes is empty: give the names'),
    'sizes missing': (
        lambda p: p.edit(lambda content: content['images'][0].pop('width')),
        "1 of 3 images lack 'width', the first has id"),
})  # fmt: skip

# COCO masks

BOTH = EACH | {key.replace('bbox', 'segm'): value for key, value in EACH.items()}


def boxes_only(p):
    each_annotation(segmentation=None)(p)


@case(MASKS, 'a test of boxes only', EACH)
def _(p):
    boxes_only(p)
    p.config.test_evaluator.metric = 'bbox'
    p.config.test_dataloader.dataset.pipeline[1].with_mask = False


@case(MASKS, 'evaluator of masks for a file of boxes', '3 of 3 annotations have no segmentation, which the metric segm',
      "set metric='bbox'", stages=['train', 'test'])  # fmt: skip
def _(p):
    boxes_only(p)
    for dataset in p.datasets:
        dataset.pipeline[1].with_mask = False


WHOLE = mask.encode(np.asfortranarray(np.ones(SIZE[::-1], np.uint8)))
WHOLE['counts'] = WHOLE['counts'].decode()

rows(MASKS, {
    'valid': (lambda p: None, BOTH),
    'no area': (each_annotation(area=None), BOTH | {'coco/segm_mAP_s': 1.0, 'coco/segm_mAP_m': -1.0}),
    'order and ids': (order(('c', 'a', 'b'), (9, 1, 4)), BOTH),
    'only boxes': (boxes_only, '3 of 3 annotations lack the segmentation that the pipeline loads', "metric='bbox'"),
    'mask head below the classes': (
        lambda p: p.config.model.roi_head.mask_head.update(num_classes=2),
        'metainfo.classes has 3 classes, but the model has 2 (model.roi_head.mask_head.num_classes=2): set each to 3'),
    'compressed run lengths': (each_annotation(segmentation=WHOLE), {'coco/bbox_mAP': 1.0}),
    'compressed run lengths of another size': (
        first_annotation(segmentation=dict(WHOLE, counts='zzz')),
        'ROOT/objects.json: 1 of 3 annotations have a mask that is not a valid run-length encoding of its size, the',
        'recreate it, for example with pycocotools'),
    'compressed run lengths that are cut': (
        first_annotation(segmentation=dict(WHOLE, counts='0o')),
        'not a valid run-length encoding of its size, the first'),
    'polygon of two points': (
        each_annotation(segmentation=[[1, 2, 3, 4]]), 'have no polygon of 6 or more numbers', 'use x1, y1, x2, y2, x3'),
    'polygon of seven numbers': (
        each_annotation(segmentation=[[1, 2, 10, 2, 10, 10, 3]]), 'have a polygon that is not pairs of numbers'),
    'polygon with nan': (
        each_annotation(segmentation=[[1, 2, 10, 2, 10, float('nan')]]), 'have a polygon that is not pairs of numbers'),
    'polygon of texts': (
        each_annotation(segmentation=[list('123456')]), 'have a polygon that is not pairs of numbers', 'use x1, y1'),
    'run lengths of fewer pixels': (
        each_annotation(segmentation=dict(counts=[0, 6], size=[32, 48])), 'have a mask whose counts do not add'),
    'mask of another size': (
        each_annotation(segmentation=dict(counts=[0, 6], size=[2, 3])),
        'have a mask whose size differs from that of the'),
})  # fmt: skip

# Keypoints

AP = {'coco/AP': 1.0, 'coco/AR': 1.0}


def info(**names):
    """Change the names of keypoints in metainfo."""
    new = [names.get(name, name) for name in POINTS]
    return lambda p: p.set(metainfo=dict(keypoint_info=keypoint_info(new)))


def info_file(text):
    def change(p):
        (p.data / 'animal.py').write_text(text)
        for dataset in p.datasets:
            dataset.metainfo = dict(from_file=str(p.data / 'animal.py'))

    return change


def without_metainfo(p):
    for dataset in p.datasets:
        del dataset['metainfo']


nested = [[x, y, 2] for x, y in POINTS.values()]
rows(KEYPOINTS, {
    'valid': (lambda p: None, AP),
    'no area': (each_annotation(area=None), AP),
    'no iscrowd': (each_annotation(iscrowd=None), AP),
    'no num_keypoints': (each_annotation(num_keypoints=None), AP),
    'nested keypoints': (each_annotation(keypoints=nested), AP),
    'metainfo from a file': (info_file(f'dataset_info = dict(keypoint_info={keypoint_info()})'), AP),
    'metainfo from a missing file': (
        lambda p: p.set(metainfo=dict(from_file='animal.py')),
        'metainfo.from_file animal.py not found: give the path'),
    'metainfo from another file': (
        info_file('x = 1'), 'from_file ROOT/animal.py has no dataset_info with keypoint_info: define'),
    'other names in a file': (
        info_file(f'dataset_info = dict(keypoint_info={keypoint_info(["head", "l", "r", "tail"])})'),
        "ROOT/objects.json: category 'animal' has the keypoints head, left, right, tail, but the data set has head"),
    'metainfo of boxes': (
        lambda p: p.set(metainfo=dict(classes=CLASSES)),
        'metainfo of the data set has classes, but no keypoint_info: add the names'),
    'head of another number': (
        lambda p: p.config.model.head.update(out_channels=17),
        'metainfo.keypoint_info has 4 keypoints, but the head has 17', 'head.out_channels'),
    'no metainfo': (
        without_metainfo, "CocoDataset without metainfo has COCO's 17 keypoints, but the head has 4: set metainfo"),
    'other names': (info(tail='tip'), 'but the data set has head, left, right, tip: use the names of the file'),
    'other order': (
        info(left='right', right='left'), 'metainfo.keypoint_info has them in the order head, right, left, tail',
        'use the order of the file'),
    'no boxes': (
        lambda p: p.edit(lambda content: content['annotations'][1].pop('bbox')),
        'ROOT/objects.json: 1 of 2 annotations have keypoints, but no bbox, the first has id 2: add the box'),
    'all ignored': (each_annotation(num_keypoints=0), 'num_keypoints is 0 in all 2 annotations', 'or remove the field'),
    'none visible': (each_annotation(keypoints=[1, 2, 0] * 4), 'every keypoint has visibility 0, not labeled'),
    '17 sigmas': (
        lambda p: p.set(metainfo=dict(keypoint_info=keypoint_info(), sigmas=[0.1] * 17)),
        'metainfo.sigmas has 17 values, but metainfo.keypoint_info 4 keypoints: give one value per keypoint'),
    'another number in the file': (
        each_annotation(keypoints=[1, 2, 2] * 3), 'have 9 keypoint values, but the model needs 12'),
    'no keypoints': (each_annotation(keypoints=None), 'no annotation has both bbox and keypoints: use a keypoint file'),
    'two corners': (
        each_annotation(bbox=[10, 4, 47, 30]), 'ends outside the image, such as [10, 4, 47, 30]',
        'it looks like x1, y1'),
    'texts for coordinates': (
        each_annotation(keypoints=['1', '2', '2'] * 4), 'have keypoints that are not numbers', 'use x, y'),
    'keypoints from 1': (
        lambda p: p.set(metainfo=dict(keypoint_info={n + 1: point for n, point in keypoint_info().items()})),
        'metainfo.keypoint_info is not', 'numbered from 0'),
    'names for keypoint_info': (
        lambda p: p.set(metainfo=dict(keypoint_info=list(POINTS))), "metainfo.keypoint_info is not {0: dict(name"),
    'one-sided mirror pair': (
        lambda p: p.set(metainfo=dict(keypoint_info={**keypoint_info(), 2: dict(name='right')})),
        "left has swap='right', but right has not swap='left'", 'must name each other'),
    'sigma 0': (
        lambda p: p.set(metainfo=dict(keypoint_info=keypoint_info(), sigmas=[0.0] * 4)),
        'metainfo.sigmas has values that are not positive: correct it, or omit it'),
    'misspelt mode': (lambda p: p.set(data_mode='top-down'), "data_mode 'top-down' of the data set is unknown: choose"),
    'unknown link': (
        lambda p: p.set(metainfo=dict(keypoint_info=keypoint_info(), skeleton_info={0: dict(link=['head', 'x'])})),
        'metainfo: skeleton_info names x, but the keypoints are head, left, right, tail: use these names'),
})  # fmt: skip

# Class maps

MIOU = {'mIoU': 100.0, 'aAcc': 100.0}


def brute_force_miou(maps, shown):
    """Mean intersection over union of the stripes that the images show with those of the maps, in percent."""
    truth, found = (np.stack([stripes(values) for values in part]) for part in (maps, shown))
    valid = truth != 255
    ious = [
        ((truth == label) & (found == label) & valid).sum() / (((truth == label) | (found == label)) & valid).sum()
        for label in range(len(CLASSES))
    ]
    return 100 * np.mean(ious)


WRONG = [[0, 1, 2], [2, 1, 1]], [[0, 1, 1], [2, 0, 1]]


@case(MAPS, 'some wrong predictions', {'mIoU': brute_force_miou(*WRONG)})
def _(p):
    write_maps(p, *WRONG[0], images=WRONG[1])


def ade(p):
    p.set(type='ADE20KDataset')
    for dataset in p.datasets:
        del dataset['metainfo']


def two_classes(p):
    """A binary map, as own masks often are."""
    write_maps(p, [0, 255], [0, 255, 0])
    p.set(metainfo=dict(classes=['no', 'yes']))
    for head in ('decode_head', 'auxiliary_head'):
        p.config.model[head].num_classes = 2


@case(MAPS, 'first class ignored', 'maps in ROOT/maps have 0, which reduce_zero_label ignores, to 2, but no 3',
      'set reduce_zero_label=False', stages=TRAINING)  # fmt: skip
def _(p):
    write_maps(p, [0, 1, 2], [1, 2])
    p.set(reduce_zero_label=True)


@case(MAPS, 'first class ignored in the test only',
      'weights.pth was trained with reduce_zero_label=False, but the data set has reduce_zero_label=True',
      'set it as in training', stages=['test'])  # fmt: skip
def _(p):
    p.saved = dict(classes=CLASSES, reduce_zero_label=False)
    p.set(reduce_zero_label=True)


@case(MAPS, 'floats that are not finite', 'map ROOT/maps/0.tif has the value nan', 'correct the maps')
def _(p):
    for number in (0, 1):
        Image.fromarray(np.full((32, 48), np.nan, np.float32)).save(p.data / f'maps/{number}.tif')
    p.set(seg_map_suffix='.tif')


def replace_map(p, array):
    Image.fromarray(array).save(p.data / 'maps/1.png')


@case(MAPS, 'names of the checkpoint', "number 1 is 'sky' in the file and 'b' in the data", stages=['test'])
def _(p):
    p.saved = dict(classes=('a', 'sky', 'c'))


rows(MAPS, {
    'valid': (lambda p: None, MIOU),
    'foreground as 255': (
        two_classes, 'maps in ROOT/maps have 255 in', 'which is ignored, and no 1', 'store each class as its index'),
    'values beyond the classes': (
        lambda p: write_maps(p, [0, 1, 7], images=[[0, 1, 1]]), 'map ROOT/maps/0.png has the value 7',
        'but 0 to 2 and 255 are allowed for num_classes=3: correct the maps'),
    'color maps': (
        lambda p: replace_map(p, np.zeros((32, 48, 3), np.uint8)), 'map ROOT/maps/1.png is a color image: store the'),
    '16-bit values': (
        lambda p: replace_map(p, np.full((32, 48), 257, np.uint16)), 'map ROOT/maps/1.png has the value 257'),
    'maps of another size': (
        lambda p: replace_map(p, np.zeros((32, 40), np.uint8)),
        'map ROOT/maps/1.png is 40 x 32 px (width x height), but its image 48 x 32: make each map the size'),
    'missing map': (lambda p: remove(p.data / 'maps/1.png'), '1 of 2 maps are not in ROOT/maps, the first is 1.png'),
    'one image with another suffix': (
        lambda p: gray(p.data / 'images/2.JPG', 0), '1 of 3 images in ROOT/images do not end in .png', 'is 2.JPG'),
    'other suffix for all': (
        lambda p: p.set(img_suffix='.jpg'), 'ROOT/images has no images with suffix .jpg, only 2 other files, such as'),
    'names of another number': (
        lambda p: p.set(metainfo=dict(classes=['x', 'y'])), 'metainfo.classes has 2 classes, but the model has 3'),
    'auxiliary head of the base': (
        lambda p: p.config.model.auxiliary_head.update(num_classes=150),
        'but the model has 150 (model.auxiliary_head.num_classes=150): set each to 3'),
    'ADE20K with own head': (
        ade, 'ADE20KDataset without metainfo.classes has 150 classes, but the model has 3',
        "set type='BaseSegDataset'"),
    'ADE20K with own names': (
        lambda p: p.set(type='ADE20KDataset'), 'metainfo.classes has a, b, c, not among the classes of ADE20KDataset'),
    'other data set of the library': (
        lambda p: p.set(type='CityscapesDataset', metainfo={}), 'CityscapesDataset of this data set has 19 classes'),
    'empty image': (lambda p: (p.data / 'images/0.png').write_bytes(b''), 'ROOT/images/0.png is empty, truncated or'),
    'no prefix of the maps': (
        lambda p: p.set(data_prefix=dict(img_path='images')),
        'data_prefix of the data set has no seg_map_path: set it'),
    'colors of another number': (
        lambda p: p.set(metainfo=dict(classes=CLASSES, palette=[[0, 0, 0]])),
        'metainfo.palette has 1 colors, but metainfo.classes 3 names: give one color for each'),
    'two suffixes': (
        lambda p: p.set(img_suffix=['.png', '.jpg']), "img_suffix of the data set is ['.png', '.jpg']: give"),
    'empty list': (
        lambda p: [(p.data / 'list.txt').write_text(''), p.set(ann_file='list.txt')],
        'ROOT/list.txt is empty: list one image per line, without .png'),
    'JSON instead of a list': (
        lambda p: [(p.data / 'a.json').write_text(json.dumps(dict(images=['x'] * 99))), p.set(ann_file='a.json')],
        'ROOT/a.json is a JSON file, not a list: list one image per line, without .png'),
    'a line that is no name': (
        lambda p: [(p.data / 'list.txt').write_text('0\n' + 'x' * 300), p.set(ann_file='list.txt')],
        'line 2 of ROOT/list.txt has 300 characters, more than a file name: list one image per line, without .png'),
})  # fmt: skip

# Sequences


def frames(p):
    return np.load(p.data / 'frames.npy')


def save(p, array):
    np.save(p.data / 'frames.npy', array)


def copy_last(array):
    """Mean over sequences and target frames of the squared error of the fourth frame, summed over its pixels."""
    scaled = array.astype(np.float64) / 255
    return ((scaled[4:] - scaled[3]) ** 2).sum((2, 3)).mean()


def frame_folders(p, names=(0, 1, 2, 3, 4, 5), size=(16, 16)):
    for clip in 'xy':
        for number in names:
            gray(p.data / f'{clip}/{number:03}.png', 10 * number, size)
    for dataset in p.datasets:
        dataset.pop('file')
    p.set(type='FrameFolders', size=[16, 16], color_type='grayscale')


def taxi(p, low=-1.0, high=1.0, length=4):
    rng = np.random.default_rng(0)
    arrays = {
        f'{part}_{split}': rng.uniform(low, high, (3, length, 2, 8, 8)) for part in 'XY' for split in ('train', 'test')
    }
    np.savez(p.data / 'dataset.npz', **arrays)
    for dataset in p.datasets:
        dataset.pop('file')
    p.set(type='TaxiBJ')
    p.config.model.in_channels = 2


def kitti(p, scale):
    for split in ('train', 'test'):
        np.save(p.data / f'{split}_data.npy', np.random.default_rng(0).random((8, 8, 8, 3)) * scale)
        np.save(p.data / f'{split}_idx.npy', np.arange(3))
    for dataset, split in zip(p.datasets, ('train', 'test', 'test'), strict=True):
        dataset.pop('file')
        dataset.split = split
    p.set(type='KittiCaltech')
    p.config.model.in_channels = 3


def weather(p):
    for dataset in p.datasets:
        for key in ('file', 'num_inputs', 'num_targets'):
            dataset.pop(key)
    p.set(type='WeatherBench', variables=['t2m'], years=[2010, 2011], train_years=None)


VALUES = np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16), np.uint8)
rows(SEQUENCES, {
    'no file': (lambda p: p.set(file=None), 'file of the data set is None: give the name of a .npy file in data_root'),
    'valid': (lambda p: None, {'video/copy_last_mse': copy_last(VALUES)}),
    'sequences first': (lambda p: save(p, VALUES.swapaxes(0, 1)), {'video/copy_last_mse': copy_last(VALUES)}),
    'folders of frames': (frame_folders, {'video/copy_last_mse': ((10 / 255) ** 2 + (20 / 255) ** 2) / 2 * 256}),
    'too short': (
        lambda p: save(p, VALUES[:5]), 'ROOT/frames.npy contains an array of shape (5, 3, 16, 16), but num_inputs +',
        'or change num_inputs or num_targets'),
    'longer than needed': (
        lambda p: save(p, np.concatenate([VALUES] * 2)),
        'neither of its first two axes has this length: set frame_axis'),
    'both axes fit': (lambda p: save(p, np.concatenate([VALUES] * 2, 1)),
        'both of its first two axes have this length'),
    'floats': (
        lambda p: save(p, VALUES / 255), 'ROOT/frames.npy contains float64 of shape (6, 3, 16, 16), not uint8'),
    'values of 0 and 1': (
        lambda p: save(p, VALUES // 128), 'frames of ROOT are uint8 with values up to 1', 'store values of 0 to 255'),
    'color for a gray model': (
        lambda p: save(p, np.stack([VALUES] * 3, -1)),
        'sequence 0 of ROOT has 3 channels, but model.in_channels=1: set'),
    'size that the network cannot halve': (
        lambda p: save(p, VALUES[..., :15]), 'are 16 x 15 px (height x width), but the network needs multiples of 2'),
    'pickled objects': (
        lambda p: np.save(p.data / 'frames.npy', np.array([{}], dtype=object)),
        'frames.npy is truncated or not a .npy'),
    'no sequences': (lambda p: save(p, VALUES[:, :0]), 'ROOT/frames.npy has no sequences or frames (shape'),
    'size of frames as a number': (
        lambda p: [frame_folders(p), p.set(size=16)], 'size is 16: use (height, width) in pixels'),
    'missing file': (lambda p: remove(p.data / 'frames.npy'),
        'ROOT/frames.npy not found: see docs/video_prediction.md'),
    'another number of inputs': (
        lambda p: p.config.model.update(num_frames=5),
        'num_inputs of the data set is 4, but model.num_frames=5: set both'),
    'another number of targets': (
        lambda p: p.config.model.update(num_targets=3),
        'num_targets of the data set is 2, but the model predicts 3 frames: set model.num_targets=2'),
    'a gap between frames': (
        lambda p: frame_folders(p, (0, 1, 2, 4, 5, 6)),
        'ROOT has no clip of 6 consecutive frames in 2 folders of images'),
    'clips that are too short': (
        lambda p: frame_folders(p, range(5)), 'ROOT has no clip of 6 consecutive frames in 2 folders of images'),
    'frame without a number': (
        lambda p: [frame_folders(p), gray(p.data / 'x/last.png', 0)], 'x/last.png has no number in its name: put its'),
    'corrupt frame': (
        lambda p: [frame_folders(p), (p.data / 'x/003.png').write_bytes(b'')],
        'image ROOT/x/003.png is corrupt: replace'),
    'KTH without its folders': (
        lambda p: [frame_folders(p), p.set(type='KTH')],
        'ROOT has no clip of 6 consecutive frames in 0 folders of images'),
    'TaxiBJ in persons': (lambda p: taxi(p, 0, 1292), 'in network scale, which must be 0 to 1: store uint8, or scale'),
    'TaxiBJ too short': (lambda p: taxi(p, length=3), 'dataset.npz has 3 + 3 frames per sequence, not 4 + 2: lower'),
    'KITTI as floats up to 255': (lambda p: kitti(p, 255), 'in network scale, which must be 0 to 1: store uint8'),
    'no files of WeatherBench': (weather, 'ROOT/t2m/t2m_2010_*.nc not found'),
})  # fmt: skip

# Hands

rows('freihand', {
    'no joints': (lambda p: remove(p.data / 'training_xyz.json'), 'annotation file ROOT/training_xyz.json',
        'docs/pose3d.md'),
    'another number of joints': (
        lambda p: p.edit(lambda content: content[0].pop(), 'training_xyz.json'),
        'ROOT/training_xyz.json: entry 0 is 20 x 3, but',
        'a hand has 21 joints of 3 numbers: correct it'),
    'broken JSON': (lambda p: (p.data / 'training_K.json').write_text('['), 'ROOT/training_K.json is not valid JSON'),
    'fewer cameras': (lambda p: p.edit(lambda content: content.pop(), 'training_K.json'), 'ROOT/training_K.json'),
    'missing image': (lambda p: remove(p.data / 'training/rgb/00000001.jpg'), 'ROOT/training/rgb', '1'),
    'image of another size': (
        lambda p: gray(p.data / 'training/rgb/00000001.jpg', 0, (50, 40)), '00000001.jpg is 50 x 40 px',
        'all FreiHAND images must have one size'),
})  # fmt: skip


def interhand_file(kind):
    return f'annotations/machine_annot/InterHand2.6M_val_{kind}.json'


def drop_camera(p):
    p.edit(lambda content: [part.clear() for part in content['0'].values()], interhand_file('camera'))


rows('interhand', {
    'no camera': (drop_camera, 'val_camera.json has no campos for camera cam000000 in capture 0', 'of the same split'),
    'no joints': (
        lambda p: p.edit(lambda content: content['0'].clear(), interhand_file('joint_3d')),
        'val_joint_3d.json has no world_coord for frame 0 in capture 0', 'use files of the same split'),
    'joints of one hand': (
        lambda p: p.edit(lambda c: c['annotations'][0].update(joint_valid=[1] * 21), interhand_file('data')),
        'have a joint_valid that is not 42 numbers', 'use one for each joint, right hand first'),
    'unknown hand': (
        lambda p: p.edit(lambda c: c['annotations'][0].update(hand_type='both'), interhand_file('data')),
        'have a hand_type other than right, left, interacting', 'correct it'),
    'no annotation': (
        lambda p: p.edit(lambda c: c['annotations'][0].update(image_id=7), interhand_file('data')),
        'have an image_id that is not among the images'),
    'missing image': (lambda p: p.set(data_prefix=dict(img='images/none')),
        'folder ROOT/images/none with the images of'),
})  # fmt: skip

# Settings that depend on the data

SETTINGS = {
    'score of another evaluator': (
        FOLDERS, lambda p: set_hook(p, save_best='coco/AP'),
        'save_best=coco/AP is no score of the validation: choose one of accuracy/..., or auto'),
    'weights of classification': (
        FOLDERS, lambda p: p.config.model.head.update(loss=dict(type='CrossEntropyLoss', class_weight=[1.0, 2.0])),
        'model.head.loss.class_weight has 2 weights, but the loss needs 3: give one for each class'),
    'weights of boxes': (
        COCO, lambda p: p.config.model.roi_head.bbox_head.update(
            loss_cls=dict(type='CrossEntropyLoss', class_weight=[1.0, 2.0, 3.0])),
        'loss_cls.class_weight has 3 weights, but the loss needs 4: give one for each class and one for the'),
    'weights of maps': (
        MAPS, lambda p: p.config.model.decode_head.update(
            loss_decode=dict(type='CrossEntropyLoss', class_weight=[1.0] * 150)),
        'model.decode_head.loss_decode.class_weight has 150 weights, but the loss needs 3'),
    'a score of another metric for early stopping': (
        FOLDERS, lambda p: p.config.update(custom_hooks=[dict(type='EarlyStoppingHook', monitor='acuracy/top1')]),
        'EarlyStoppingHook.monitor=acuracy/top1 is no score of the validation: choose one of accuracy/...'),
    'balanced classes of joined data': (
        FOLDERS, lambda p: balance_joined(p),
        'train_dataloader.dataset is a ClassBalancedDataset, which cannot read the classes of a ConcatDataset: wrap'),
    'a rate for a part that does not exist': (
        FOLDERS, lambda p: p.config.optim_wrapper.update(
            paramwise_cfg=dict(custom_keys=dict(bakbone=dict(lr_mult=0.1)))),
        "custom_keys", 'bakbone'),
    'a misspelt setting of a rate': (
        FOLDERS, lambda p: p.config.optim_wrapper.update(
            paramwise_cfg=dict(custom_keys=dict(weight=dict(lr_mul=0.1)))), 'lr_mul', 'lr_mult'),
    'heads of a cascade without type': (
        COCO, lambda p: p.config.model.roi_head.update(bbox_head=[dict(num_classes=3)] * 3),
        'model.roi_head.bbox_head.0 has no type: a list replaces that of the base config completely'),
}  # fmt: skip
for name, (kind, *row) in SETTINGS.items():
    case(kind, name, *row[1:], stages=TRAINING)(row[0])


def balance_joined(p):
    joined = dict(type='ConcatDataset', datasets=[p.datasets[1], p.datasets[2]])
    p.config.train_dataloader.dataset = dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=joined)


def set_hook(p, **settings):
    p.config.default_hooks = dict(checkpoint=dict(type='CheckpointHook', **settings))


def remove(*paths):
    for path in paths:
        if path.is_dir():
            remove(*path.iterdir())
            path.rmdir()
        else:
            path.unlink()


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind, name', CASES, ids=[f'{kind}: {name}' for kind, name in CASES])
def test_own_data(kind, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    change, outcome, stages = CASES[kind, name]
    project = getattr(own_data, kind)(tmp_path)
    change(project)
    if isinstance(outcome[0], dict):
        found = project.call('test')
        assert {key: found[key] for key in outcome[0]} == pytest.approx(outcome[0], abs=1e-4)
        return
    lines = {stage: project.line(stage) for stage in stages}
    (line,) = set(lines.values())
    assert line is not None and '\n' not in line
    for part in outcome:
        assert part.replace('ROOT', str(project.data)) in line


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('stage', ['train', 'test'])
@pytest.mark.parametrize('array, message', [
    (np.full((32, 48), 7, np.uint8), 'map ROOT/maps/1.png has the value 7 where the model has 3 classes'),
    (np.full((32, 48), 258, np.uint16), 'map ROOT/maps/1.png has the value 258, but 0 to 255 are allowed'),
    (np.zeros((32, 48, 3), np.uint8), 'map ROOT/maps/1.png has 32 x 48 x 3 values for an image of 32 x 48'),
    (np.zeros((16, 24), np.uint8), 'map ROOT/maps/1.png has 16 x 24 values for an image of 32 x 48 (height x width)'),
    (None, 'image ROOT/maps/1.png is empty, truncated or not an image'),
])  # fmt: skip
def test_a_map_that_is_not_in_the_sample_is_named_when_it_is_loaded(array, message, stage, tmp_path, monkeypatch):
    monkeypatch.setattr('mogacore.datasets.checks.report.Sample.of', lambda self, items: iter(items[:1]))
    project = own_data.class_maps(tmp_path)
    if array is None:
        path = project.data / 'maps/1.png'
        path.write_bytes(path.read_bytes()[:-30])
    else:
        replace_map(project, array)
    assert message.replace('ROOT', str(project.data)) in project.line(stage)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind, saved', [
    (FOLDERS, dict(classes=('b', 'a', 'c'))), (COCO, dict(classes=('b', 'a', 'c'))),
    (MAPS, dict(classes=('b', 'a', 'c'))),
    (KEYPOINTS, dict(classes=('animal',), keypoint_id2name=dict(enumerate(('head', 'right', 'left', 'tail'))))),
])  # fmt: skip
def test_fine_tuning_from_other_names_is_a_warning(kind, saved, tmp_path):
    project = getattr(own_data, kind)(tmp_path)
    project.saved = saved
    project.config.log_level = 'WARNING'
    runner = project.call('train', load_from=str(tmp_path / 'weights.pth'))
    log = Path(runner.log_dir, f'{runner.timestamp}.log').read_text()
    assert log.count('weights.pth was trained with other names of classes or keypoints than the data has (2 of') == 1


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('stage, counts', [('train', 'zzz'), ('train', 'o'), ('test', 'zzz'), ('test', '0000')])
def test_a_mask_that_is_not_in_the_sample_is_named_when_it_is_decoded(stage, counts, tmp_path, monkeypatch):
    project = own_data.instance_masks(tmp_path)
    monkeypatch.setattr('mogacore.datasets.checks.coco_files._count_pixels', lambda counts: 32 * 48)
    each_annotation(segmentation=dict(size=[32, 48], counts=counts))(project)
    assert re.fullmatch(
        f'{project.data}/objects.json: a mask of image {project.data}/images/..png is not a valid run-length encoding '
        'of its size: recreate it, for example with pycocotools.mask.encode',
        project.line(stage),
    )


@pytest.mark.filterwarnings('ignore')
def test_the_best_checkpoint_follows_an_evaluator_without_top_1(tmp_path):
    project = own_data.class_folders(tmp_path)
    project.config.val_evaluator = dict(type='SingleLabelMetric')
    set_hook(project, save_best='auto', rule='greater')
    runner = project.call('train')
    assert [path.name for path in Path(runner.work_dir).glob('best_*')] == ['best_single-label_precision_epoch_1.pth']


@pytest.mark.filterwarnings('ignore')
def test_a_longer_training_stretches_its_schedule(tmp_path):
    """The rate of the last epoch is that of the third of four steps of a cosine from 1 to 0.25."""
    project = own_data.class_folders(tmp_path)
    project.config.train_cfg.max_epochs = 2
    project.config.optim_wrapper.optimizer.lr = 1.0
    schedule = dict(type='CosineAnnealingLR', T_max=2, eta_min=0.25, by_epoch=True, begin=0, end=2)
    project.config.param_scheduler = [schedule]
    runner = project.call('train', **{'train_cfg.max_epochs': 4})
    assert runner.optim_wrapper.get_lr()['lr'] == pytest.approx([0.25 + 0.75 * (1 + np.cos(0.75 * np.pi)) / 2])


# Inputs of predictions

FILES = {
    'two corners': (
        lambda c: c['annotations'][0].update(bbox=[26, 10, 46, 30]),
        'boxes.json: 1 of 1 annotations have a bbox that ends',
        'convert all boxes to x, y, width, height'),
    'unknown image': (lambda c: c['annotations'][0].update(image_id=5),
        'have an image_id that is not among the images'),
    'three numbers': (lambda c: c['annotations'][0].update(bbox=[1, 2, 3]), 'have a bbox that is not 4 numbers'),
    'no annotations': (lambda c: c.pop('annotations'),
        "unknown format (KeyError: 'annotations'): use the predictions.json"),
    'unknown class': (lambda c: c['categories'][0].update(id=4), 'have a category_id that is not among the categories'),
}  # fmt: skip


@pytest.mark.parametrize('fault', [None, *FILES])
def test_boxes_for_predictions_are_checked(fault, tmp_path):
    content = dict(
        images=[dict(id=1, file_name='1.png', width=48, height=32)],
        categories=[dict(id=1, name='animal')],
        annotations=[dict(image_id=1, category_id=1, bbox=BOXES['b'])],
    )
    change, *outcome = FILES.get(fault, (lambda c: None,))
    change(content)
    path = tmp_path / 'boxes.json'
    path.write_text(json.dumps(content))
    if fault is None:
        assert Boxes(path, check=check_annotations).of(tmp_path / '1.png').tolist() == [[*corners(BOXES['b']), 1]]
        return
    with pytest.raises(UserError) as caught:
        Boxes(path, check=check_annotations)
    assert all(part in str(caught.value) for part in outcome) and '\n' not in str(caught.value)


SOURCES = {
    'none.png': 'input none.png does not exist: give a file, a folder, or a pattern',
    'none*.png': 'input none*.png matches no file: give',
    'https://host/x.png': 'input https://host/x.png is a web address: download the file',
    'notes.md': 'input notes.md is no image or video: give a file',
    'empty.txt': 'input empty.txt is empty: list one file',
    'folder': 'input folder contains no image or video: give',
}  # fmt: skip


@pytest.mark.parametrize('source', SOURCES)
def test_an_input_without_images_is_one_line(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('folder').mkdir()
    Path('notes.md').write_text('x')
    Path('empty.txt').write_text('')
    with pytest.raises(UserError) as caught:
        infer(str(ROOT / 'configs/classification/moganet-xtiny_digits.py'), 'weights.pth', source, 'out')
    assert str(caught.value).startswith(SOURCES[source]) and '\n' not in str(caught.value)


def test_the_commands_print_the_line_and_exit_with_2(tmp_path):
    """The same line from real processes as in the table."""
    change, outcome, _ = CASES[FOLDERS, 'more folders than classes']
    project = own_data.class_folders(tmp_path)
    change(project)
    (tmp_path / 'sitecustomize.py').write_text(
        f'import sys\nsys.path[:0] = {[str(ROOT), str(ROOT / "tests/engine")]}\n'
    )
    project.config.custom_imports.imports.append('own_data_makers')
    config, weights, options = project.write_config()
    errors = set()
    for command in (['train', config, '--dry-run'], ['train', config], ['test', config, weights]):
        call = [sys.executable, '-m', 'mogacore', *command, '--work-dir', options['work_dir']]
        done = subprocess.run(
            call, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {'PYTHONPATH': str(tmp_path)}
        )
        assert done.returncode == 2 and 'Traceback' not in done.stderr
        errors.add(done.stderr.strip().splitlines()[-1])
    (line,) = errors
    assert line.startswith('error: ') and all(part.replace('ROOT', str(project.data)) in line for part in outcome)


def test_the_table_covers_every_kind():
    assert len(CASES) >= 80 and all(sum(kind == of for of, _ in CASES) >= 6 for kind, _ in CASES)
