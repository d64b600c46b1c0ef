"""Each format goes from a folder of label files through init-data, training, test and prediction."""

import json
from pathlib import Path

import folder_makers as makers
import pytest
import torch
from conftest import TINY_ARCH
from folder_makers import CLASSES, POINTS
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS
from mmengine.structures import InstanceData, PixelData
from test_own_data import WIDTHS, small_detector

from mogacore.engine.config import load_config, locate_data, use_library
from mogacore.engine.data import prepare_data
from mogacore.engine.runner import test as run_test
from mogacore.engine.runner import train
from mogacore.inference.predictor import infer
from mogacore.init_data import Options, init_data

for library in ('mmpretrain', 'mmdet', 'mmseg', 'mmpose'):
    pytest.importorskip(library)

# Format and task: maker of the folder, task, score of a perfect prediction.
RUNS = {
    'coco': (makers.coco, 'detection', 'coco/bbox_mAP'),
    'yolo': (makers.yolo, 'detection', 'coco/bbox_mAP'),
    'yolo keypoints': (makers.yolo_keypoints, 'pose', 'coco/AP'),
    'voc': (makers.voc, 'detection', 'coco/bbox_mAP'),
    'labelme': (makers.labelme, 'instance', 'coco/segm_mAP'),
    'class folders': (makers.class_folders, 'classification', 'accuracy/top1'),
    'index maps': (makers.masks, 'segmentation', 'mIoU'),
}
CHECKED_ONLY = {
    'yolo polygons': (makers.yolo_polygons, 'instance', 'coco/segm_mAP'),
    'coco polygons': (makers.coco, 'instance', 'coco/segm_mAP'),
    'coco keypoints': (makers.coco_keypoints, 'pose', 'coco/AP'),
    'labelme keypoints': (makers.labelme_keypoints, 'pose', 'coco/AP'),
    'coco as maps': (makers.coco, 'segmentation', 'mIoU'),
    'labelme boxes': (makers.labelme, 'detection', 'coco/bbox_mAP'),
    'yolo polygons as maps': (makers.yolo_polygons, 'segmentation', 'mIoU'),
    'color maps': (lambda folder: makers.masks(folder, 'colors'), 'segmentation', 'mIoU'),
    'palette maps': (lambda folder: makers.masks(folder, 'palette'), 'segmentation', 'mIoU'),
}


@pytest.fixture(scope='module')
def projects(tmp_path_factory):
    """Function that makes a folder of a format once and calls init-data; returns its config and what was drawn."""
    root, made = tmp_path_factory.mktemp('init data'), {}

    def make(name):
        if name not in made:
            maker, task, _ = (RUNS | CHECKED_ONLY)[name]
            folder = root / name
            folder.mkdir()
            drawn = maker(folder)
            config = root / f'{name}.py'
            init_data(Options(folder, task, out=config, val_fraction=0.4))
            made[name] = config, drawn
        return made[name]

    return make


def small(config, task):
    """Options for a tiny network and ten iterations."""
    cfg = load_config(config)
    found = {f'{stage}_dataloader.num_workers': 0 for stage in ('train', 'val', 'test')}
    found |= {'model.backbone.arch': dict(_delete_=True, **TINY_ARCH), 'model.backbone.init_cfg': None}
    if task in ('classification', 'pose'):
        found['model.head.in_channels'] = WIDTHS[-1]
        found |= {'model.head.deconv_out_channels': (8, 8, 8)} if task == 'pose' else {}
    else:
        found['model.neck.in_channels'] = WIDTHS
    if task in ('detection', 'instance'):
        found |= small_detector(cfg.model)
    if 'max_iters' in cfg.train_cfg:
        found |= {
            'model.neck.out_channels': 8,
            'model.decode_head.in_channels': [8] * 4,
            'model.decode_head.channels': 8,
        }
        return found | {'train_cfg.max_iters': 10, 'train_cfg.val_interval': 10, 'param_scheduler.0.end': 1}
    num = cfg.train_dataloader.batch_size
    return found | {'train_cfg.max_epochs': 5 if num < 5 else 10, 'train_cfg.val_interval': 10}


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', RUNS)
def test_a_folder_trains_tests_and_predicts(name, projects, tmp_path, monkeypatch):
    config, _ = projects(name)
    _, task, metric = RUNS[name]
    monkeypatch.chdir(tmp_path)
    settings = small(config, task)
    runner = train(str(config), work_dir='run', cfg_options=settings)
    assert runner.iter >= 10
    (best,) = Path('run').glob('best_*.pth')
    metrics = run_test(str(config), str(best), work_dir='test', cfg_options=settings)
    assert metric in metrics
    images = sorted(path for path in (config.parent / name).rglob('*.*') if path.name in ('turned.jpg', 'ß 2.jpg'))
    threshold = None if task in ('classification', 'segmentation') else 0.0
    records = infer(str(config), str(best), images[:1], 'predictions', cfg_options=settings, score_thr=threshold)
    assert len(records) == 1
    if task in ('detection', 'instance'):
        assert {instance['class'] for instance in records[0]['instances']} <= set(CLASSES)


def predict(sample, image, task):
    """Put what was drawn in an image into its sample, as a model that makes no mistake."""
    if task == 'segmentation':
        values = torch.from_numpy(makers.class_map(image))[None].long()
        sample.pred_sem_seg = PixelData(data=values)
        return sample.to_dict()
    boxes = torch.tensor([box for _, box in image.objects], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    if task == 'pose':
        (gt,) = sample.gt_instances.bboxes.tolist()
        number = min(
            range(len(boxes)), key=lambda i: sum(abs(a - b) for a, b in zip(boxes[i].tolist(), gt, strict=True))
        )
        points = torch.tensor(makers.points(image.objects[number][1])).reshape(1, -1, 3)[..., :2].numpy()
        sample.pred_instances = InstanceData(keypoints=points, keypoint_scores=points[..., 0] * 0 + 1)
        return sample.to_dict()
    labels = torch.tensor([CLASSES.index(name) for name, _ in image.objects], dtype=torch.long)
    masks = torch.zeros(len(boxes), *image.size[::-1], dtype=torch.bool)
    for mask, (x, y, right, bottom) in zip(masks, boxes.round().int().tolist(), strict=True):
        mask[y:bottom, x:right] = True
    sample.pred_instances = InstanceData(bboxes=boxes, scores=torch.ones(len(boxes)), labels=labels, masks=masks)
    return sample.to_dict()


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', [name for name in RUNS | CHECKED_ONLY if name != 'class folders'])
def test_perfect_predictions_have_the_best_score(name, projects):
    """The evaluator of the config scores what was drawn, not what init-data wrote."""
    config, drawn = projects(name)
    _, task, metric = (RUNS | CHECKED_ONLY)[name]
    cfg = load_config(config)
    use_library(cfg)
    locate_data(cfg, 'test')
    prepare_data(cfg, 'test')
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    evaluator = Evaluator(cfg.test_evaluator)
    evaluator.dataset_meta = dataset.metainfo
    by_name = {image.name: image for image in drawn}
    for index in range(len(dataset)):
        sample = dataset[index]['data_samples']
        path = Path(sample.img_path).relative_to(config.parent / name)
        shown = next(by_name[key] for key in sorted(by_name, key=len, reverse=True) if str(path).endswith(key))
        evaluator.process([predict(sample, shown, task)])
    scores = evaluator.evaluate(len(dataset))
    assert scores[metric] == pytest.approx(100.0 if metric == 'mIoU' else 1.0, abs=0.01)


@pytest.mark.parametrize(
    'name',
    ['coco', 'yolo', 'yolo polygons', 'yolo keypoints', 'voc', 'labelme', 'labelme keypoints', 'coco keypoints'],
)
def test_converted_boxes_are_those_that_were_drawn(name, projects):
    config, drawn = projects(name)
    found = {}
    for split in ('train', 'val'):
        content = json.loads((config.parent / name / f'mogacore/{split}.json').read_text())
        names = {category['id']: category['name'] for category in content['categories']}
        for image in content['images']:
            mine = [entry for entry in content['annotations'] if entry['image_id'] == image['id']]
            boxes = [(names[entry['category_id']], tuple(entry['bbox'])) for entry in mine]
            file = image['file_name'].removeprefix('images/').removeprefix('JPEGImages/')
            found[file] = (image['width'], image['height']), boxes, [entry.get('keypoints') for entry in mine]
    assert found.keys() == {image.name for image in drawn}
    for image in drawn:
        size, boxes, points = found[image.name]
        assert size == image.size and [name for name, _ in boxes] == [name for name, _ in image.objects]
        for (_, box), (_, true), keypoints in zip(boxes, image.objects, points, strict=True):
            assert box == pytest.approx(true, abs=2e-3)
            if 'keypoints' in name:
                assert keypoints == pytest.approx(makers.points(true), abs=2e-3)
    if 'keypoints' in name:
        assert content['categories'][0]['keypoints'] == list(POINTS)
