"""Small projects with own data of each kind, and models that predict them perfectly, for the table of mismatches."""

import itertools
import json
import shutil
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData
from PIL import Image

from mogacore.datasets.hands import write_hands
from mogacore.engine.config import build_model
from mogacore.engine.runner import dry_run, train
from mogacore.engine.runner import test as run_test
from mogacore.errors import UserError

CLASSES = ('a', 'b', 'c')
GRAY = 50  # gray value of class 1; class n has n times this
SIZE = (48, 32)  # width, height of images
BOXES = {'a': [2, 4, 20, 12], 'b': [26, 10, 20, 20], 'c': [8, 2, 30, 6]}
POINTS = {'head': (5, 6), 'left': (12, 15), 'right': (20, 14), 'tail': (25, 28)}
BODY = [2, 4, 26, 26]  # box around them
_numbers = itertools.count()


class Oracle(BaseModel):
    """Predicts what the images of this file show. Its settings stand for those of a real model."""

    def __init__(self, data_preprocessor=None, **settings):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.settings = settings

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'loss':
            return dict(loss=self.weight * 1.0)
        for image, sample in zip(inputs, data_samples, strict=True):
            self.predict(image.float(), sample)
        return data_samples


@MODELS.register_module(force=True)
class OwnClasses(Oracle):
    def predict(self, image, sample):
        label = round(image.mean().item() / GRAY)
        sample.set_pred_label(label).set_pred_score(torch.eye(len(CLASSES))[label])


@MODELS.register_module(force=True)
class OwnObjects(Oracle):
    """Predicts object ``n`` of the table ``BOXES`` in image ``n``, with its box as mask."""

    def predict(self, image, sample):
        names = [name for number, name in enumerate(CLASSES) if number == sample.img_id - 1]
        names = [name for name in names if name in self.settings.get('found', CLASSES)]
        boxes = torch.tensor([corners(BOXES[name]) for name in names], dtype=torch.float32).reshape(-1, 4)
        classes = self.settings.get('classes', CLASSES)
        labels = torch.tensor([classes.index(name) for name in names], dtype=torch.long)
        masks = torch.zeros(len(names), *SIZE[::-1], dtype=torch.bool)
        for mask, (x, y, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y:bottom, x:right] = True
        sample.pred_instances = InstanceData(bboxes=boxes, scores=torch.ones(len(names)), labels=labels, masks=masks)


@MODELS.register_module(force=True)
class OwnKeypoints(Oracle):
    def predict(self, image, sample):
        points = np.array([list(POINTS.values())], np.float32)
        sample.pred_instances = InstanceData(keypoints=points, keypoint_scores=np.ones(points.shape[:2], np.float32))


class _Head(torch.nn.Module):
    def __init__(self, num_classes, ignore_index=255):
        super().__init__()
        self.num_classes, self.ignore_index = num_classes, ignore_index


@MODELS.register_module(force=True)
class OwnMaps(Oracle):
    def __init__(self, decode_head, auxiliary_head=None, **settings):
        super().__init__(**settings)
        self.decode_head = _Head(decode_head['num_classes'])

    def predict(self, image, sample):
        sample.pred_sem_seg = PixelData(data=(image[:1] / GRAY).round().long())


def corners(box):
    x, y, width, height = box
    return [x, y, x + width, y + height]


class Project:
    """A folder with data, and a config as a dict that a test may change."""

    def __init__(self, root, scope, model, dataset, evaluator):
        self.root, self.data = root, root / 'data'
        self.data.mkdir()
        loader = dict(
            batch_size=1,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(dataset, data_root=str(self.data)),
        )
        if scope in ('mmpretrain', 'mmengine'):
            loader['collate_fn'] = dict(type='pseudo_collate')
        self.config = Config(
            dict(
                custom_imports=dict(imports=['mogacore.registry'], allow_failed_imports=False),
                default_scope=scope,
                model=model,
                **{f'{stage}_dataloader': deepcopy(loader) for stage in ('train', 'val', 'test')},
                train_cfg=dict(by_epoch=True, max_epochs=1),
                val_cfg={},
                test_cfg={},
                val_evaluator=dict(evaluator),
                test_evaluator=dict(evaluator),
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
                log_level='ERROR',
            )
        )
        self.saved: dict = {}  # metainfo of the data in the checkpoint

    @property
    def datasets(self):
        """The configs of the three data sets."""
        return [self.config[f'{stage}_dataloader'].dataset for stage in ('train', 'val', 'test')]

    def set(self, **settings):
        """Change settings of all data sets, such as ``metainfo``."""
        for dataset in self.datasets:
            for key, value in deepcopy(settings).items():
                dataset[key] = value

    def edit(self, change, name='objects.json'):
        """Apply ``change`` to the content of an annotation file."""
        content = json.loads((self.data / name).read_text())
        change(content)
        (self.data / name).write_text(json.dumps(content))

    def write_config(self):
        """Write the config and a checkpoint of the model; returns both paths and the options of a run."""
        number = next(_numbers)
        lines = [f'{key} = {value!r}\n' for key, value in self.config.to_dict().items()]
        (self.root / 'config.py').write_text(''.join(lines))
        model = build_model(self.config)
        content = dict(state_dict=model.state_dict(), meta=dict(dataset_meta=self.saved) if self.saved else {})
        torch.save(content, self.root / 'weights.pth')
        options = dict(
            work_dir=str(self.root / f'run_{number}'), cfg_options=dict(experiment_name=f'{self.root.name}_{number}')
        )
        return str(self.root / 'config.py'), str(self.root / 'weights.pth'), options

    def call(self, stage, **cfg_options):
        """Run 'train', 'test' or 'dry-run'; returns the metrics, the Runner or the line of a dry run."""
        config, weights, options = self.write_config()
        options['cfg_options'].update(cfg_options)
        if stage == 'test':
            return run_test(config, weights, **options)
        return (train if stage == 'train' else dry_run)(config, **options)

    def line(self, stage):
        """The line of the user error of a run, or of missing data in a dry run; None if there is none."""
        try:
            result = self.call(stage)
        except UserError as error:
            return str(error)
        return result.partition('not ready: ')[2] or None if stage == 'dry-run' else None


def gray(path, value, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, (value,) * 3).save(path)


def class_folders(root):
    """Training and validation images in the folders a, b and c; the gray value of an image is that of its class."""
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    dataset = dict(type='CustomDataset', data_prefix='train', pipeline=pipeline)
    model = dict(type='mmengine.OwnClasses', head=dict(num_classes=3), backbone=dict(in_channels=3))
    project = Project(root, 'mmpretrain', model, dataset, dict(type='Accuracy', topk=(1,)))
    for split in ('train', 'val'):
        for number, name in enumerate(CLASSES):
            for image in '01':
                gray(project.data / f'{split}/{name}/{image}.png', GRAY * number, (4, 4))
    for dataset in project.datasets[1:]:
        dataset.data_prefix = 'val'
    return project


def list_files(root):
    """The same images with a list file for each split."""
    project = class_folders(root)
    for split in ('train', 'val'):
        lines = [f'{name}/{image}.png {number}' for number, name in enumerate(CLASSES) for image in '01']
        (project.data / f'{split}.txt').write_text('\n'.join(lines))
    for split, dataset in zip(('train', 'val', 'val'), project.datasets, strict=True):
        dataset.ann_file = f'{split}.txt'
    return project


def coco(root, with_mask=False):
    """One object of each class, in an image of its own."""
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=with_mask),
        dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape')),
    ]
    dataset = dict(
        type='CocoDataset',
        ann_file='objects.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=CLASSES),
        pipeline=pipeline,
    )
    heads = dict(bbox_head=dict(num_classes=3), **(dict(mask_head=dict(num_classes=3)) if with_mask else {}))
    metric = ['bbox', 'segm'] if with_mask else 'bbox'
    evaluator = dict(type='CocoMetric', metric=metric, classwise=True)
    project = Project(root, 'mmdet', dict(type='mmengine.OwnObjects', roi_head=heads), dataset, evaluator)
    for number in range(1, 4):
        gray(project.data / f'images/{number}.png', 0)
    content = dict(
        info={},
        images=[dict(id=n, file_name=f'{n}.png', width=SIZE[0], height=SIZE[1]) for n in (1, 2, 3)],
        categories=[dict(id=n, name=name) for n, name in enumerate(CLASSES, 1)],
        annotations=[
            dict(
                id=n,
                image_id=n,
                category_id=n,
                bbox=BOXES[name],
                area=area(name),
                iscrowd=0,
                segmentation=[outline(name)],
            )
            for n, name in enumerate(CLASSES, 1)
        ],
    )
    (project.data / 'objects.json').write_text(json.dumps(content))
    for dataset in project.datasets[1:]:
        dataset.test_mode = True
    return project


def area(name):
    return BOXES[name][2] * BOXES[name][3]


def outline(name):
    left, top, right, bottom = corners(BOXES[name])
    return [left, top, right, top, right, bottom, left, bottom]


def instance_masks(root):
    return coco(root, with_mask=True)


def keypoint_info(names=tuple(POINTS)):
    swaps = {'left': 'right', 'right': 'left'}
    return {n: dict(name=name, id=n, swap=swaps.get(name, '')) for n, name in enumerate(names)}


def keypoints(root):
    """One animal of four keypoints in each of two images."""
    pipeline = [
        dict(type='LoadImage'),
        dict(type='GetBBoxCenterScale'),
        dict(type='TopdownAffine', input_size=(32, 32)),
    ]
    pipeline.append(dict(type='PackPoseInputs'))
    dataset = dict(
        type='CocoDataset',
        data_mode='topdown',
        ann_file='objects.json',
        data_prefix=dict(img='images/'),
        pipeline=pipeline,
    )
    model = dict(type='mmengine.OwnKeypoints', head=dict(out_channels=4))
    project = Project(root, 'mmpose', model, dataset, dict(type='CocoMetric'))
    for dataset in project.datasets:
        dataset.metainfo = dict(keypoint_info=keypoint_info())
    for dataset in project.datasets[1:]:
        dataset.test_mode = True
    for stage in ('val', 'test'):
        project.config[f'{stage}_evaluator'].ann_file = str(project.data / 'objects.json')
    points = [value for x, y in POINTS.values() for value in (x, y, 2)]
    for number in (1, 2):
        gray(project.data / f'images/{number}.png', 0)
    content = dict(
        images=[dict(id=n, file_name=f'{n}.png', width=SIZE[0], height=SIZE[1]) for n in (1, 2)],
        categories=[dict(id=1, name='animal', keypoints=list(POINTS))],
        annotations=[
            dict(id=n, image_id=n, category_id=1, bbox=BODY, area=400, iscrowd=0, num_keypoints=4, keypoints=points)
            for n in (1, 2)
        ],
    )
    (project.data / 'objects.json').write_text(json.dumps(content))
    return project


def stripes(values):
    """A map of equal vertical stripes of these values, (H, W)."""
    columns = np.repeat(values, -(-SIZE[0] // len(values)))[: SIZE[0]]
    return np.tile(columns, (SIZE[1], 1))


def write_maps(project, *maps, images=None):
    """Write each map of stripes, and an image whose gray values are those of ``images``, by default of the map."""
    for index, values in enumerate(maps):
        shown = stripes(values if images is None else images[index]).astype(np.uint8) * GRAY
        for folder, array in (('images', np.stack([shown] * 3, -1)), ('maps', stripes(values).astype(np.uint8))):
            path = project.data / f'{folder}/{index}.png'
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(array).save(path)


def class_maps(root):
    """Three classes in two maps."""
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    dataset = dict(
        type='BaseSegDataset',
        data_prefix=dict(img_path='images', seg_map_path='maps'),
        img_suffix='.png',
        metainfo=dict(classes=CLASSES),
        pipeline=pipeline,
    )
    model = dict(type='mmengine.OwnMaps', decode_head=dict(num_classes=3), auxiliary_head=dict(num_classes=3))
    project = Project(root, 'mmseg', model, dataset, dict(type='IoUMetric', iou_metrics=['mIoU']))
    write_maps(project, [0, 1, 255], [1, 2])
    return project


def sequences(root, frames=6, count=3):
    """Sequences of uint8 frames 16 x 16, of which the last two are predicted, in a file like Moving MNIST's.

    The evaluator also scores the repetition of the last input frame, which needs no model.
    """
    dataset = dict(type='SequenceFile', file='frames.npy', num_inputs=4, num_targets=2)
    sizes = dict(spatial_dims=8, spatial_depth=2, temporal_dims=16, temporal_depth=2)
    model = dict(type='SimVP', num_frames=4, num_targets=2, in_channels=1, **sizes)
    evaluator = dict(type='VideoPredictionMetric', metric=('mse',), copy_last=True)
    project = Project(root, 'mmengine', model, dataset, evaluator)
    for stage in ('train', 'val', 'test'):
        project.config[f'{stage}_dataloader'].collate_fn = dict(type='default_collate')
    array = np.random.default_rng(0).integers(0, 256, (frames, count, 16, 16), np.uint8)
    np.save(project.data / 'frames.npy', array)
    return project


@cache
def _hands(root):
    write_hands(root, num_train=2, num_test=1)
    return root


def _copy_of_hands(project, name):
    written = _hands(Path(project.root.parent, 'hands'))
    shutil.rmtree(project.data)
    shutil.copytree(written / name, project.data)
    return project


def freihand(root):
    """Synthetic hands in FreiHAND's format."""
    model = dict(type='mmengine.OwnKeypoints')
    dataset = dict(type='FreiHAND', subset='trainval', pipeline=[dict(type='LoadImage')])
    return _copy_of_hands(Project(root, 'mmpose', model, dataset, dict(type='HandJointMetric')), 'freihand')


def interhand(root):
    """Synthetic hands in InterHand2.6M's format."""
    model = dict(type='mmengine.OwnKeypoints')
    files = {key: f'annotations/machine_annot/InterHand2.6M_val_{name}.json' for key, name in
             (('ann_file', 'data'), ('camera_param_file', 'camera'), ('joint_file', 'joint_3d'))}  # fmt: skip
    dataset = dict(
        type='InterHand3DDataset', data_prefix=dict(img='images/val'), pipeline=[dict(type='LoadImage')], **files
    )
    evaluator = dict(type='InterHandMetric', modes=['MPJPE'])
    return _copy_of_hands(Project(root, 'mmpose', model, dataset, evaluator), 'interhand2.6m')
