"""Checks of COCO data against a whole config: every head, joined data sets, tests."""

import json
from copy import deepcopy

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from PIL import Image

from mogacore.engine.config import locate_data
from mogacore.engine.data import check_data
from mogacore.engine.runner import test as run_test
from mogacore.errors import UserError

pytest.importorskip('mmdet')
CLASSES = ('a', 'b')
BOXES = {'a': [4, 4, 20, 30], 'b': [30, 20, 30, 8]}
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
    return Config(ConfigDict(deepcopy(content)), filename=str(tmp_path / 'own.py'), cfg_text=' ')


def test_valid_data_pass(cfg):
    for stage in ('train', 'test'):
        check_data(cfg, stage)


@pytest.mark.parametrize('stage', ['train', 'test'])
@pytest.mark.parametrize(
    'heads, wrong', [('cascade', ['bbox_head.1', 'bbox_head.2']), ('mask', ['mask_head'])], ids=['cascade', 'mask']
)
def test_every_head_must_have_the_number_of_classes(cfg, stage, heads, wrong):
    cfg.model = ConfigDict(deepcopy(HEADS[heads]))
    with pytest.raises(UserError, match=r'metainfo\.classes has 2 classes, but the model has 80') as caught:
        check_data(cfg, stage)
    assert all(f'model.roi_head.{name}.num_classes=80' in str(caught.value) for name in wrong)
    assert 'num_classes=2' not in str(caught.value)


@pytest.mark.parametrize('stage', ['train', 'test'])
@pytest.mark.parametrize(
    'classes, message', [(('a',), '1 classes, but the model has 2'), (('a', 'x'), 'classes has x')]
)
def test_subset_and_unknown_classes_are_reported(cfg, stage, classes, message):
    for name in ('train', 'test'):
        cfg[f'{name}_dataloader'].dataset.metainfo = dict(classes=tuple(classes))
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


def test_evaluator_with_the_file_of_other_images_is_reported(cfg, tmp_path):
    """As after changing only the data set of a config."""
    locate_data(cfg, 'test')
    content = json.loads((tmp_path / 'objects.json').read_text())
    cfg.test_evaluator.ann_file = str(tmp_path / 'scored.json')
    (tmp_path / 'scored.json').write_text(json.dumps(content))
    check_data(cfg, 'test')
    content['images'][0]['id'] = content['annotations'][0]['image_id'] = 9
    (tmp_path / 'scored.json').write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=r'objects\.json: 1 of 1 images are absent from .*scored\.json, the ann_file of'
    ):
        check_data(cfg, 'test')


class Oracle(BaseModel):
    """Predicts each object of the test images with the label of its class."""

    def __init__(self, **settings):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, data_samples, mode):
        for sample in data_samples:
            name = CLASSES[sample.img_id - 1]
            x, y, w, h = BOXES[name]
            boxes = torch.tensor([[x, y, x + w, y + h]], dtype=torch.float32)
            labels = torch.tensor([CLASSES.index(name)])
            sample.pred_instances = InstanceData(bboxes=boxes, scores=torch.ones(1), labels=labels)
        return data_samples


@pytest.mark.parametrize('order', [('a', 'b'), ('b', 'a')])
@pytest.mark.parametrize('ids', [(1, 2), (100, 7)])
@pytest.mark.parametrize('ann_file', ['ann_file', None])
def test_the_test_of_perfect_predictions_gives_ap_1_for_each_class(tmp_path, order, ids, ann_file):
    id_of = dict(zip(order, ids, strict=True))
    for number in (1, 2):
        Image.new('L', (64, 64)).save(tmp_path / f'{number}.png')
    entries = [
        dict(id=n, image_id=n, category_id=id_of[name], bbox=BOXES[name], area=BOXES[name][2] * BOXES[name][3])
        for n, name in enumerate(CLASSES, 1)
    ]
    content = dict(
        images=[dict(id=n, file_name=f'{n}.png', width=64, height=64) for n in (1, 2)],
        categories=[dict(id=id_of[name], name=name) for name in order],
        annotations=entries,
    )
    (tmp_path / 'test.json').write_text(json.dumps(content))
    torch.save(dict(state_dict=Oracle().state_dict()), tmp_path / 'weights.pth')
    evaluator = dict(type='CocoMetric', metric='bbox', classwise=True)
    if ann_file:
        evaluator['ann_file'] = str(tmp_path / 'test.json')
    (tmp_path / 'own.py').write_text(f"""
default_scope = 'mmdet'
model = dict(type='mmengine.CocoOracle', bbox_head=dict(num_classes=2))
test_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(
    type='CocoDataset', data_root={str(tmp_path)!r}, ann_file='test.json', data_prefix=dict(img=''), test_mode=True,
    metainfo=dict(classes={CLASSES}), pipeline=[dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape'))]))
test_evaluator = {evaluator}
test_cfg = dict()
""")
    MODELS.register_module(module=Oracle, name='CocoOracle', force=True)
    found = run_test(str(tmp_path / 'own.py'), str(tmp_path / 'weights.pth'), work_dir=str(tmp_path / 'out'))
    assert [found[f'coco/bbox_{name}_precision'] for name in CLASSES] == [1, 1]
    assert found['coco/bbox_mAP'] == 1
