"""Training, testing and predicting with the digit configs of detection, segmentation and pose, at toy size."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY_ARCH
from test_tools import assert_one_line_error, tool

from mogacore.datasets.digits import write_digits
from mogacore.engine.config import build_model, load_config
from mogacore.engine.runner import test as run_test
from mogacore.engine.runner import train
from mogacore.errors import UserError

# Config, the other setting that depends on the backbone widths, and a metric of the test.
TASKS = {
    'detection': ('mask-rcnn_moganet-xtiny_fpn_digits.py', 'neck=dict(in_channels=[8, 16, 24, 32])', 'coco/segm_mAP'),
    'segmentation': ('semantic-fpn_moganet-xtiny_digits.py', 'neck=dict(in_channels=[8, 16, 24, 32])', 'mIoU'),
    'pose': ('td-hm_moganet-xtiny_digits.py', 'head=dict(in_channels=32)', 'coco/AP'),
}
LIBRARIES = {'detection': 'mmdet', 'segmentation': 'mmseg', 'pose': 'mmpose'}


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A folder with a few digit scenes in data/ and one small config per task."""
    folder = tmp_path_factory.mktemp('project')
    write_digits(folder / 'data' / 'digits', parts=('scenes',), num_train_scenes=8, num_val_scenes=4)
    for task, (config, widths, _) in TASKS.items():
        loop = 'max_iters=4, val_interval=4' if task == 'segmentation' else 'max_epochs=1, val_interval=1'
        schedule = 'param_scheduler = [dict(type="PolyLR", by_epoch=False)]' if task == 'segmentation' else ''
        loader = 'batch_size=2, num_workers=0, persistent_workers=False'
        (folder / f'{task}.py').write_text(f"""
_base_ = '{ROOT / 'configs' / task / config}'
model = dict(backbone=dict(arch=dict(_delete_=True, **{TINY_ARCH})), {widths})
train_dataloader = dict({loader})
val_dataloader = dict({loader})
test_dataloader = val_dataloader
train_cfg = dict({loop})
{schedule}
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval={4 if task == 'segmentation' else 1}))
""")
    return folder


@pytest.fixture(params=TASKS)
def task(request):
    pytest.importorskip(LIBRARIES[request.param])
    return request.param


def test_training_testing_with_tta_and_inference_work(task, project):
    tool('train.py', f'{task}.py', '--work-dir', task, cwd=project)
    checkpoint = project / task / ('iter_4.pth' if task == 'segmentation' else 'epoch_1.pth')
    tool(
        'test.py', f'{task}.py', checkpoint, '--tta', '--show-dir', f'{task}/shown', '--out', f'{task}/metrics.json',
        '--work-dir', f'{task}/test', cwd=project,
    )  # fmt: skip
    metrics = json.loads((project / task / 'metrics.json').read_text())['metrics']
    assert -1 <= metrics[TASKS[task][2]] <= 100
    images = [path for path in (project / task / 'shown').rglob('*.*') if path.suffix in ('.png', '.jpg')]
    assert len(images) >= 4
    source = project / 'data' / 'digits' / 'scenes' / 'val'
    tool('infer.py', f'{task}.py', checkpoint, source, '--out-dir', f'{task}/inferred', cwd=project)
    report = json.loads((project / task / 'inferred' / 'predictions.json').read_text())
    assert len(report['predictions']) == 4
    assert (project / task / 'inferred' / 'predictions.png').is_file()


@pytest.fixture
def scenes(project, tmp_path, monkeypatch):
    """A copy of the scenes, to corrupt, and of the configs in the current directory."""
    shutil.copytree(project / 'data', tmp_path / 'data')
    for config in project.glob('*.py'):
        shutil.copy(config, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'data' / 'digits' / 'scenes'


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize('task', ['detection'])
def test_errors_in_detection_data_are_reported_before_training(task, scenes):
    pytest.importorskip('mmdet')
    config = 'detection.py'
    with pytest.raises(UserError, match=r'classes'):
        train(config, cfg_options={'train_dataloader.dataset.metainfo.classes': ('cat', 'dog')})
    with pytest.raises(UserError, match=r'\b7\b.*\b10\b|\b10\b.*\b7\b'):
        train(config, cfg_options={'model.roi_head.bbox_head.num_classes': 7})
    (scenes / 'train' / '0003.png').rename(scenes / 'train' / 'other.png')
    with pytest.raises(UserError, match=r'0003\.png'):
        train(config)
    assert not list(scenes.parents[2].glob('work_dirs/**/*.pth'))


def test_wrong_number_of_keypoints_is_reported_before_training(project, scenes):
    pytest.importorskip('mmpose')
    with pytest.raises(UserError, match=r'\b5\b.*\b17\b|\b17\b.*\b5\b'):
        train('pose.py', cfg_options={'model.head.out_channels': 17})


def test_corrupt_image_is_a_one_line_error_during_training(project, scenes):
    """Its header is intact, so only decoding all of it reveals the error."""
    pytest.importorskip('mmdet')
    image = scenes / 'train' / '0005.png'
    image.write_bytes(image.read_bytes()[:200])
    done = tool('train.py', 'detection.py', '--work-dir', 'broken', cwd=scenes.parents[2], check=False)
    assert_one_line_error(done, r'0005\.png')


def test_missing_annotation_file_and_detector_boxes_are_reported(project, scenes):
    pytest.importorskip('mmpose')
    with pytest.raises(UserError, match=r'annotation file .*nowhere\.json is missing: create it with'):
        train('pose.py', cfg_options={'val_evaluator.ann_file': 'nowhere.json'})
    with pytest.raises(UserError, match=r'annotation file .*boxes\.json is missing'):
        train('pose.py', cfg_options={'val_dataloader.dataset.bbox_file': 'boxes.json'})


@pytest.mark.parametrize('values, message', [
    (np.full((128, 128), 77, np.uint8), r'0001\.png has the value 77 where the model has 11 classes'),
    (np.zeros((128, 128, 3), np.uint8), r'0001\.png has 128 x 128 x 3 values for an image of 128 x 128'),
    (np.full((128, 128), 256, np.uint16), r'0001\.png has the value 256, but 0 to 255 are allowed'),
    (np.zeros((96, 128), np.uint8), r'0001\.png has 96 x 128 values for an image of 128 x 128'),
])  # fmt: skip
def test_map_that_was_not_sampled_is_a_one_line_error(project, scenes, values, message, monkeypatch):
    pytest.importorskip('mmseg')
    from PIL import Image

    monkeypatch.setattr('mogacore.datasets.checks.report.Sample.of', lambda self, items: iter(items[:1]))
    config, options = 'segmentation.py', {'train_dataloader.dataset.indices': 2}
    Image.fromarray(values).save(scenes / 'segmentation/train/0001.png')
    with pytest.raises(UserError, match=message):
        train(config, work_dir='maps', cfg_options=options)
    Image.fromarray(values).save(scenes / 'segmentation/val/0001.png')
    model = build_model(load_config(config))
    torch.save(model.state_dict(), 'random.pth')
    with pytest.raises(UserError, match=message):
        run_test(config, 'random.pth', work_dir='maps-test')
