"""Models that know the truth and err at random, to test an analysis without training."""

import json
from types import SimpleNamespace

import numpy as np
import torch
from conftest import ROOT
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData

from mogacore.datasets.digits import write_digits

CONFIGS = {
    'classification': 'classification/moganet-xtiny_digits',
    'detection': 'detection/mask-rcnn_moganet-xtiny_fpn_digits',
    'segmentation': 'segmentation/semantic-fpn_moganet-xtiny_digits',
    'pose': 'pose/td-hm_moganet-xtiny_digits',
}
LIBRARIES = {'classification': 'mmpretrain', 'detection': 'mmdet', 'segmentation': 'mmseg', 'pose': 'mmpose'}
EVALUATORS = {
    'classification': "[dict(type='Accuracy', topk=(1, 5)), dict(type='SingleLabelMetric')]",
    'detection': "dict(type='CocoMetric', ann_file='data/digits/scenes/annotations/instances_val.json', "
    "metric=['bbox', 'segm'], classwise=True)",
    'segmentation': "dict(type='IoUMetric', iou_metrics=['mIoU'])",
    'pose': "[dict(type='PCKAccuracy', thr=0.1), dict(type='EPE'), "
    "dict(type='CocoMetric', ann_file='data/digits/scenes/annotations/keypoints_val.json')]",
}


class Perturbed(BaseModel):
    """Base class; a subclass changes the samples of a batch in ``perturb``."""

    def __init__(self, data_preprocessor=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.rng = np.random.default_rng(0)

    def test_step(self, data):
        samples = data['data_samples']
        for sample in samples:
            self.perturb(sample)
        return samples

    def forward(self, *args, **kwargs):
        """Not called."""


@MODELS.register_module(force=True)
class PerturbedClassifier(Perturbed):
    def perturb(self, sample):
        logits = torch.from_numpy(self.rng.normal(size=10).astype(np.float32))
        logits[sample.gt_label] += 2
        sample.set_pred_score(logits.softmax(0)).set_pred_label(logits.argmax())


@MODELS.register_module(force=True)
class PerturbedDetector(Perturbed):
    """Moves, relabels, misses and invents objects."""

    def perturb(self, sample):
        truth, rng = sample.gt_instances, self.rng
        height, width = sample.ori_shape
        kept = np.flatnonzero(rng.random(len(truth)) < 0.85)
        boxes = truth.bboxes.numpy().reshape(-1, 4)[kept]
        masks = truth.masks.masks.astype(bool)[kept]
        shifts = rng.integers(-3, 4, (len(kept), 2))
        labels = truth.labels.numpy()[kept]
        wrong = rng.random(len(kept)) < 0.2
        labels = np.where(wrong, rng.integers(0, 10, len(kept)), labels)
        masks = [np.roll(mask, (y, x), (0, 1)) for mask, (x, y) in zip(masks, shifts, strict=True)]
        boxes = [box + np.array([x, y, x, y]) for box, (x, y) in zip(boxes, shifts, strict=True)]
        for _ in range(rng.integers(0, 3)):
            x, y = rng.integers(0, 80, 2)
            boxes.append(np.array([x, y, x + 30, y + 40]))
            mask = np.zeros((height, width), bool)
            mask[y : y + 40, x : x + 30] = True
            masks.append(mask)
            labels = np.append(labels, rng.integers(0, 10))
        sample.pred_instances = InstanceData(
            bboxes=torch.from_numpy(np.array(boxes, np.float32).reshape(-1, 4)),
            labels=torch.from_numpy(labels.astype(np.int64)),
            scores=torch.from_numpy(rng.random(len(labels)).astype(np.float32)),
            masks=torch.from_numpy(np.array(masks, bool).reshape(-1, height, width)),
        )


@MODELS.register_module(force=True)
class PerturbedSegmenter(Perturbed):
    def __init__(self, data_preprocessor=None):
        super().__init__()
        self.decode_head = SimpleNamespace(num_classes=11, ignore_index=255)

    def perturb(self, sample):
        truth = sample.gt_sem_seg.data
        predicted = torch.where(truth == 255, 0, truth).clone()
        for _ in range(3):
            y, x = self.rng.integers(0, 100, 2)
            predicted[:, y : y + 30, x : x + 30] = int(self.rng.integers(0, 9))
        sample.pred_sem_seg = PixelData(data=predicted)


@MODELS.register_module(force=True)
class PerturbedPose(Perturbed):
    def perturb(self, sample):
        truth = sample.gt_instances
        scale = self.rng.exponential(2) * np.array([1, 1, 1, 1, 3])[None, :, None]
        noise = self.rng.normal(size=truth.keypoints.shape) * scale
        sample.pred_instances = InstanceData(
            bboxes=truth.bboxes,
            bbox_scores=truth.bbox_scores,
            keypoints=(truth.keypoints + noise).astype(np.float32),
            keypoint_scores=self.rng.random(truth.keypoints.shape[:2]).astype(np.float32),
        )


MODEL_TYPES = {
    'classification': PerturbedClassifier,
    'detection': PerturbedDetector,
    'segmentation': PerturbedSegmenter,
    'pose': PerturbedPose,
}


def write_project(folder):
    """The bundled digits, and a config with a weight file for each task, in a folder.

    Some joints are not visible, some pixels have no class, and one image has a crowd.
    """
    import cv2

    write_digits(folder / 'data' / 'digits', ('classification', 'scenes'), num_train_scenes=2, num_val_scenes=12)
    for path in sorted((folder / 'data/digits/scenes/segmentation/val').glob('*.png')):
        values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        values[:9] = 255
        cv2.imwrite(str(path), values)
    path = folder / 'data/digits/scenes/annotations/keypoints_val.json'
    content = json.loads(path.read_text())
    for number, entry in enumerate(content['annotations']):
        if number % 3 == 0:
            joint = number % 5
            entry['keypoints'][3 * joint : 3 * joint + 3] = [0, 0, 0]
            entry['num_keypoints'] -= 1
    path.write_text(json.dumps(content))
    path = folder / 'data/digits/scenes/annotations/instances_val.json'
    content = json.loads(path.read_text())
    counts = [0, *([14, 114] * 14)[:-1], 114 + 114 * 128]  # a corner of 14 x 14 pixels, column by column
    content['annotations'].append(
        dict(id=9999, image_id=1, category_id=1, bbox=[0, 0, 14, 14], area=196, iscrowd=1,
             segmentation={'size': [128, 128], 'counts': counts})
    )  # fmt: skip
    path.write_text(json.dumps(content))
    loader = 'dict(num_workers=0, persistent_workers=False)'
    for task, config in CONFIGS.items():
        (folder / f'{task}.py').write_text(f"""
_base_ = '{ROOT / 'configs' / config}.py'
model = dict(_delete_=True, type='{MODEL_TYPES[task].__name__}')
test_dataloader = {loader}
test_evaluator = {
            EVALUATORS[task].replace('dict(type', 'dict(_delete_=True, type', 1)
            if task == 'detection' or task == 'segmentation'
            else EVALUATORS[task]
        }
""")
    torch.save({'weight': torch.zeros(1)}, folder / 'weights.pth')
    return folder
