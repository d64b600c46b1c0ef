"""Checks of COCO data against a whole config: joined data sets, evaluators, images without annotations."""

import json
from copy import deepcopy

import pytest
from mmengine.config import Config, ConfigDict
from PIL import Image

from mogacore.engine.config import locate_data
from mogacore.engine.data import check_data
from mogacore.errors import UserError

pytest.importorskip('mmdet')
CLASSES = ('a', 'b')
HEADS = dict(rpn_head=dict(num_classes=1), roi_head=dict(bbox_head=[dict(num_classes=2)] * 3))


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
        model=HEADS,
        train_dataloader=dict(dataset=dataset),
        val_dataloader=dict(dataset=dataset),
        test_dataloader=dict(dataset=dataset),
        val_evaluator=dict(type='CocoMetric'),
        test_evaluator=dict(type='CocoMetric'),
    )
    return Config(ConfigDict(deepcopy(content)), filename=str(tmp_path / 'own.py'), cfg_text=' ')


def test_valid_data_pass(cfg):
    for stage in ('train', 'test'):
        check_data(cfg, stage)


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


def test_evaluator_gets_the_annotation_file_of_its_data_set(cfg):
    """As in the configs of COCO, where the file is named once."""
    locate_data(cfg, 'test')
    assert cfg.test_evaluator.ann_file == f'{cfg.test_dataloader.dataset.data_root}/objects.json'
    given = cfg.val_evaluator.ann_file = f'{cfg.test_dataloader.dataset.data_root}/background.json'
    locate_data(cfg, 'train')
    assert cfg.val_evaluator.ann_file == given


def test_evaluator_of_several_data_sets_needs_an_annotation_file(cfg):
    joined = ConfigDict(dict(type='ConcatDataset', datasets=[cfg.test_dataloader.dataset] * 2))
    cfg.test_dataloader.dataset = joined
    with pytest.raises(UserError, match='test_evaluator has no ann_file, but its data loader reads 2 data sets'):
        locate_data(cfg, 'test')
    joined.datasets[0].pipeline[-1].update(type='PackDetInputs', meta_keys=('instances',))
    locate_data(cfg, 'test')
    assert 'ann_file' not in cfg.test_evaluator
