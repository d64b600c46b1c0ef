"""Checks of COCO data against a whole config: every head, joined data sets, tests."""

import json
from copy import deepcopy

import pytest
from mmengine.config import Config, ConfigDict
from PIL import Image

from mogacore.engine.data import check_data
from mogacore.errors import UserError

pytest.importorskip('mmdet')
CLASSES = ('a', 'b')
HEADS = dict(
    cascade=dict(roi_head=dict(bbox_head=[dict(num_classes=2), dict(num_classes=80), dict(num_classes=80)])),
    mask=dict(roi_head=dict(bbox_head=dict(num_classes=2), mask_head=dict(num_classes=80))),
    right=dict(rpn_head=dict(num_classes=1), roi_head=dict(bbox_head=[dict(num_classes=2)] * 3)),
)


@pytest.fixture
def cfg(tmp_path):
    Image.new('L', (64, 64)).save(tmp_path / '1.png')
    content = dict(
        images=[dict(id=1, file_name='1.png', width=64, height=64)],
        categories=[dict(id=8, name='b'), dict(id=5, name='a')],
        annotations=[dict(id=1, image_id=1, category_id=5, bbox=[4, 4, 20, 30], area=600)],
    )
    (tmp_path / 'objects.json').write_text(json.dumps(content))
    (tmp_path / 'background.json').write_text(json.dumps(dict(content, annotations=[])))
    del content['annotations']
    (tmp_path / 'unlabeled.json').write_text(json.dumps(content))
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
    dataset = dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='objects.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=CLASSES),
        pipeline=pipeline,
    )
    content = dict(
        default_scope='mmdet',
        model=HEADS['right'],
        train_dataloader=dict(dataset=dataset),
        val_dataloader=dict(dataset=dataset),
        test_dataloader=dict(dataset=dataset),
        val_evaluator=dict(type='CocoMetric'),
        test_evaluator=dict(type='CocoMetric'),
    )
    return Config(ConfigDict(deepcopy(content)))


def test_valid_data_pass(cfg):
    for stage in ('train', 'test'):
        check_data(cfg, stage)


@pytest.mark.parametrize('stage', ['train', 'test'])
@pytest.mark.parametrize(
    'heads, wrong', [('cascade', ['bbox_head.1', 'bbox_head.2']), ('mask', ['mask_head'])], ids=['cascade', 'mask']
)
def test_every_head_must_have_the_number_of_classes(cfg, stage, heads, wrong):
    cfg.model = ConfigDict(deepcopy(HEADS[heads]))
    with pytest.raises(UserError, match='metainfo.classes has 2 classes, but the model has 80') as caught:
        check_data(cfg, stage)
    assert all(f'model.roi_head.{name}.num_classes=80' in str(caught.value) for name in wrong)
    assert 'num_classes=2' not in str(caught.value)


@pytest.mark.parametrize('stage', ['train', 'test'])
@pytest.mark.parametrize('classes, message', [(('a',), '1 classes, but the model has 2'), (('a', 'x'), 'classes has x')])
def test_subset_and_unknown_classes_are_reported(cfg, stage, classes, message):
    for name in ('train', 'test'):
        cfg[f'{name}_dataloader'].dataset.metainfo = dict(classes=classes)
    with pytest.raises(UserError, match=message):
        check_data(cfg, stage)


def test_own_classes_without_metainfo_are_reported(cfg):
    del cfg.test_dataloader.dataset['metainfo']
    cfg.model = dict(bbox_head=dict(num_classes=80))
    with pytest.raises(UserError, match=r"has the categories b, a, none of which is among COCO's 80: set metainfo"):
        check_data(cfg, 'test')


def test_background_needs_a_set_with_objects_beside_it(cfg):
    background = dict(cfg.train_dataloader.dataset, ann_file='background.json')
    joined = ConfigDict(dict(type='ConcatDataset', datasets=[cfg.train_dataloader.dataset, background]))
    cfg.train_dataloader.dataset = joined
    check_data(cfg, 'train')
    cfg.train_dataloader.dataset = background
    with pytest.raises(UserError, match=r"background\.json: list 'annotations' is empty"):
        check_data(cfg, 'train')


def test_unlabeled_images_are_predicted_with_format_only(cfg):
    cfg.test_dataloader.dataset.ann_file = 'unlabeled.json'
    with pytest.raises(UserError, match=r"unlabeled\.json is not a COCO file: it lacks the list 'annotations'"):
        check_data(cfg, 'test')
    cfg.test_evaluator.update(format_only=True, outfile_prefix='out')
    check_data(cfg, 'test')
