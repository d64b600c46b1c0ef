"""Training, testing and predicting 3D hands at toy size, with our tools and mmpose's own for InterNet."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT, TINY_ARCH
from test_tools import assert_one_line_error, tool

from mogacore.datasets.hands import BASES, BONES, PARENTS, pose_hand, write_hands
from mogacore.engine.runner import train
from mogacore.errors import UserError
from mogacore.inference.predictor import infer
from mogacore.runtime.tasks.hands import draw_skeletons, mm_per_pixel

CONFIGS = {
    'freihand': ('heatmap3d_moganet-xtiny_freihand-synthetic.py', 'head=dict(in_channels=32)'),
    'interhand': (
        'internet_moganet-xtiny_interhand3d-synthetic.py',
        'head=dict(keypoint_head_cfg=dict(in_channels=32), root_head_cfg=dict(in_channels=32), '
        'hand_type_head_cfg=dict(in_channels=32))',
    ),
}
pytestmark = pytest.mark.skipif(find_spec('mmpose') is None, reason='mmpose is not installed')


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A folder with a few hands in data/ and one small config per data set."""
    folder = tmp_path_factory.mktemp('project')
    write_hands(folder / 'data' / 'hands', num_train=6, num_test=3)
    for name, (config, widths) in CONFIGS.items():
        loader = 'batch_size=2, num_workers=0, persistent_workers=False'
        (folder / f'{name}.py').write_text(f"""
_base_ = '{ROOT / 'configs' / 'pose' / 'hand3d' / config}'
model = dict(backbone=dict(arch=dict(_delete_=True, **{TINY_ARCH})), {widths})
train_dataloader = dict({loader})
val_dataloader = dict({loader})
test_dataloader = dict({loader})
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(logger=dict(interval=1))
""")
    return folder


@pytest.fixture(scope='module')
def trained(project):
    """Work dir of one epoch per data set: FreiHAND trained by our tool, InterHand2.6M by mmpose's."""
    tool('train.py', 'freihand.py', '--work-dir', 'freihand', cwd=project)
    script = Path(find_spec('mmpose').origin).parent / '.mim' / 'tools' / 'train.py'
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', script, 'interhand.py', '--work-dir', 'interhand'],
        cwd=project, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return {name: project / name for name in CONFIGS}


def logged(folder):
    lines = next(folder.glob('*/vis_data/scalars.json')).read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_training_logs_errors_in_mm_and_those_of_the_mean_pose(trained):
    freihand, interhand = (logged(trained[name])[-1] for name in ('freihand', 'interhand'))
    assert freihand.keys() >= {'MPJPE', 'PA-MPJPE', 'MPJPE_of_mean', 'PA-MPJPE_of_mean'}
    assert interhand.keys() >= {'MPJPE_all', 'MPJPE_interacting', 'MRRPE', 'HandednessAcc', 'MPJPE', 'MPJPE_of_mean'}
    assert all(np.isfinite(value) for value in [*freihand.values(), *interhand.values()])
    for name in CONFIGS:
        assert list(trained[name].glob('best_*.pth'))


def test_our_test_tool_reproduces_the_validation_of_mmpose(project, trained):
    tool(
        'test.py', 'interhand.py', trained['interhand'] / 'epoch_1.pth', '--show-dir', 'shown', '--out', 'metrics.json',
        '--work-dir', 'test', '--cfg-options',
        'test_dataloader.dataset.ann_file=annotations/machine_annot/InterHand2.6M_val_data.json',
        'test_dataloader.dataset.camera_param_file=annotations/machine_annot/InterHand2.6M_val_camera.json',
        'test_dataloader.dataset.joint_file=annotations/machine_annot/InterHand2.6M_val_joint_3d.json',
        'test_dataloader.dataset.data_prefix.img=images/val/', cwd=project,
    )  # fmt: skip
    measured = json.loads((project / 'metrics.json').read_text())['metrics']
    validated = logged(trained['interhand'])[-1]
    for name in ('MPJPE_all', 'MRRPE', 'HandednessAcc', 'MPJPE', 'PA-MPJPE'):
        assert measured[name] == pytest.approx(validated[name], rel=1e-4)
    assert len([path for path in (project / 'shown').rglob('*') if path.suffix in ('.png', '.jpg')]) == 3


@pytest.mark.parametrize('name', CONFIGS)
def test_predictions_are_reported_and_drawn_with_two_views_of_the_skeleton(name, project, trained, monkeypatch):
    monkeypatch.chdir(project)
    source = 'freihand/evaluation/rgb' if name == 'freihand' else 'interhand2.6m/images/test'
    records = infer(f'{name}.py', str(trained[name] / 'epoch_1.pth'), f'data/hands/{source}', f'{name}/inferred')
    assert len(records) == 3
    (instance,) = records[0]['instances']
    num_joints = 21 if name == 'freihand' else 42
    assert len(instance['keypoints']) == len(instance['depths_mm']) == num_joints
    assert all(0 <= score <= 1 for _, _, score in instance['keypoints'])
    if name == 'interhand':
        assert set(instance['hands']) <= {'right', 'left'} and isinstance(instance['left_wrist_behind_right_mm'], float)
    drawn = cv2.imread(str(project / name / 'inferred' / records[0]['drawn']))
    assert drawn.shape == (512, 768, 3)  # four times the image size, plus half that width for the two views
    if name == 'freihand':
        assert all((view < 200).any(2).sum() > 100 for view in (drawn[40:256, 512:], drawn[296:, 512:]))
    assert (project / name / 'inferred' / 'predictions.png').is_file()


def test_video_is_widened_for_the_skeleton_views(project, trained, monkeypatch):
    monkeypatch.chdir(project)
    writer = cv2.VideoWriter('hand.mp4', cv2.VideoWriter_fourcc(*'mp4v'), 10, (128, 96))
    for i in range(2):
        writer.write(np.full((96, 128, 3), 100 * i, np.uint8))
    writer.release()
    records = infer('freihand.py', str(trained['freihand'] / 'epoch_1.pth'), 'hand.mp4', 'film')
    assert len(records) == 2
    capture = cv2.VideoCapture(str(project / 'film' / 'hand.mp4'))
    assert capture.read()[1].shape == (96, 128 + 48, 3)
    capture.release()


def test_errors_in_the_data_are_reported_before_training(project, monkeypatch, tmp_path):
    monkeypatch.chdir(project)
    options = {'train_dataloader.dataset.camera_param_file': 'annotations/none.json'}
    with pytest.raises(
        UserError, match=r'annotation file .*none\.json is missing: create it with tools/make_hands\.py'
    ):
        train('interhand.py', work_dir=str(tmp_path / 'run'), cfg_options=options)
    done = tool(
        'train.py', 'freihand.py', '--work-dir', tmp_path / 'run', '--cfg-options',
        f'train_dataloader.dataset.data_root={project / "data" / "hands" / "interhand2.6m"}', cwd=project, check=False,
    )  # fmt: skip
    assert_one_line_error(done, r'training_K\.json cannot be read .*docs/pose3d\.md')
    assert not (tmp_path / 'run').exists()


def test_scale_of_a_hand_follows_from_its_bone_lengths():
    links = [(parent, joint) for joint, parent in enumerate(PARENTS) if parent >= 0]
    joints = pose_hand(np.random.default_rng(0))[0]
    total = sum(np.linalg.norm(joints[a] - joints[b]) for a, b in links)
    wanted = np.linalg.norm(BASES, axis=1).sum() + BONES.sum()
    mean_sized = joints * wanted / total
    assert mm_per_pixel(mean_sized * [1 / 2.5, 1 / 2.5, 1], links) == pytest.approx(2.5, rel=1e-6)
    assert mm_per_pixel(np.zeros((21, 3)), links) == mm_per_pixel(joints, []) == 1


def test_skeletons_are_drawn_to_one_scale_within_their_panel():
    square = np.array([[0, 0], [100, 0], [100, 100], [0, 100]], float)
    links, red, blue = [(0, 1), (1, 2), (2, 3), (3, 0)], [(255, 0, 0)] * 4, [(0, 0, 255)] * 4
    panel = draw_skeletons([(square, links, red), (square / 2 + 900, links, blue)], 240, '').astype(int)
    spans = []
    for channel in (0, 2):
        marked = panel[..., channel] - panel[..., 2 - channel] > 150
        spans.append(np.ptp(np.flatnonzero(marked.any(0))))
    assert spans[0] == pytest.approx(2 * spans[1], abs=8) and 90 < spans[0] < 120
    assert (draw_skeletons([], 100, '') == 255).all()
