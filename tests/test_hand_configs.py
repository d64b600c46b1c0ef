"""Every config for 3D hands: size, mmpose's recipe, parameters of the head, and training steps on small images."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, init_default_scope
from torch import nn

from mogacore.analysis.complexity import complexity
from mogacore.datasets.hands import write_hands
from mogacore.published.archs import ARCHS

LEAVES = sorted((ROOT / 'configs' / 'pose' / 'hand3d').glob('*.py'))
FULL = [path for path in LEAVES if 'synthetic' not in path.name]
INTERNET = [path for path in FULL if path.name.startswith('internet_')]


def named(path):
    return path.name


def load(path):
    return Config.fromfile(path, import_custom_modules=False)


@pytest.fixture(scope='module', autouse=True)
def mmpose():
    """Folder of mmpose, which is imported."""
    package = pytest.importorskip('mmpose')
    import mogacore.registry  # noqa: F401, registers our classes
    from mogacore.libraries import import_quietly

    import_quietly('mmpose')
    return Path(package.__file__).parent


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpose')


@pytest.fixture(scope='module')
def hands(tmp_path_factory):
    root = tmp_path_factory.mktemp('hands')
    write_hands(root, num_train=6, num_test=2)
    return root


def test_every_size_has_a_config():
    assert [path.stem.split('_')[1] for path in INTERNET] == [
        'moganet-base', 'moganet-small', 'moganet-tiny', 'moganet-xtiny', 'resnet50'
    ]  # fmt: skip
    assert {path.stem.split('_')[1] for path in set(FULL) - set(INTERNET)} == {'moganet-small', 'moganet-tiny'}


@pytest.mark.parametrize('path', LEAVES, ids=named)
def test_name_agrees_with_arch_and_widths(path):
    cfg = load(path)
    if 'resnet' in path.name:
        assert cfg.model.backbone == dict(
            type='ResNet', depth=50, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')
        )
        return
    size = re.search(r'_moganet-(\w+?)_', path.name)[1]
    width = ARCHS[size]['embed_dims'][-1]
    head = cfg.model.head
    assert cfg.model.backbone.arch == size
    parts = [head] if head.type == 'HeatmapHead' else [head.keypoint_head_cfg, head.root_head_cfg]
    assert all(part.in_channels == width for part in parts)
    if path in FULL:
        assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint=f'mogacore://moganet_{size}')
        side = int(path.stem.rpartition('x')[2])
        assert cfg.input_shape == (3, side, side) and list(cfg.train_pipeline[-3].input_size) == [side, side]
    encoder = next(step.encoder for step in cfg.train_dataloader.dataset.pipeline if step.type == 'GenerateTarget')
    assert encoder == head.decoder == cfg.codec
    depth = cfg.codec.get('depth_size') or cfg.codec.heatmap_size[2]
    assert parts[0].out_channels == 21 * depth


def test_baseline_equals_that_of_mmpose(mmpose):
    (theirs,) = (mmpose / '.mim' / 'configs').glob('hand_3d_keypoint/internet/*/internet_res50_*.py')
    theirs = Config.fromfile(theirs)
    ours = load(ROOT / 'configs' / 'pose' / 'hand3d' / 'internet_resnet50_20e_interhand3d-256x256.py')
    assert ours.codec == theirs.codec
    for part in ('type', 'data_preprocessor', 'backbone', 'head', 'test_cfg'):
        wanted = theirs.model[part]
        if part == 'head':
            wanted = dict(wanted, decoder=ours.codec)
        assert ours.model[part] == wanted, part
    assert ours.optim_wrapper.optimizer == theirs.optim_wrapper.optimizer
    assert ours.param_scheduler == theirs.param_scheduler
    assert ours.auto_scale_lr.base_batch_size == theirs.auto_scale_lr.base_batch_size
    assert [ours.val_evaluator] == theirs.val_evaluator
    for key in ('max_epochs', 'val_interval'):
        assert ours.train_cfg[key] == theirs.train_cfg[key]
    for key in ('save_best', 'rule'):
        assert ours.default_hooks.checkpoint[key] == theirs.default_hooks.checkpoint[key]
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert ours[loader].batch_size == theirs[loader].batch_size
        dataset, wanted = ours[loader].dataset, theirs[loader].dataset
        for key in ('type', 'ann_file', 'camera_param_file', 'joint_file', 'data_prefix', 'data_mode'):
            assert dataset[key] == wanted[key], key
        for step, other in zip(dataset.pipeline, wanted.pipeline, strict=True):
            defaults = dict(padding=1.25) if step.type == 'GetBBoxCenterScale' else {}
            assert step == dict(defaults, **other)


# In M, recomputed from the layer shapes.
HEAD_PARAMS = {'xtiny': 6.69, 'tiny': 7.28, 'small': 9.64, 'base': 9.64, 'resnet50': 23.80}


@pytest.mark.parametrize('path', INTERNET, ids=named)
def test_internet_head_has_the_expected_parameters(path):
    parts = {part.name: part.params / 1e6 for part in complexity(path)}
    size = path.stem.split('_')[1].removeprefix('moganet-')
    assert parts['head'] == pytest.approx(HEAD_PARAMS[size], abs=0.005)


def test_freihand_trains_validates_and_tests_on_separate_subsets():
    cfg = load(ROOT / 'configs' / 'pose' / 'hand3d' / 'heatmap3d_moganet-small_100e_freihand-224x224.py')
    assert [cfg[f'{name}_dataloader'].dataset.subset for name in ('train', 'val', 'test')] == ['train', 'val', 'test']


def shrunk(cfg, hands):
    """The config for synthetic hands at a quarter of the size, without pretrained weights."""
    cfg = cfg.copy()
    cfg.model.backbone.init_cfg = None
    old = cfg.codec
    if old.type == 'Hand3DHeatmap':
        small = dict(image_size=[64, 64], heatmap_size=[16, 16, 16], depth_size=16, root_heatmap_size=16, sigma=1.0)
        small['heatmap_size_root'] = 16
        cfg.model.head.keypoint_head_cfg.update(out_channels=21 * 16, depth_size=16)
        cfg.model.head.root_head_cfg.heatmap_size = 16
    else:
        small = dict(input_size=(64, 64), heatmap_size=(16, 16, 16), sigma=1.0)
        cfg.model.head.out_channels = 21 * 16
    cfg.model.head.decoder.update(small)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataset = cfg[loader].dataset
        dataset.data_root = str(hands / ('freihand' if dataset.type == 'FreiHAND' else 'interhand2.6m'))
        for step in dataset.pipeline:
            if step.type == 'TopdownAffine':
                step.input_size = (64, 64)
            if step.type == 'GenerateTarget':
                step.encoder.update(small)
    return cfg


@pytest.mark.parametrize(
    'path', [path for path in LEAVES if 'xtiny' in path.name or 'freihand' in path.name], ids=named
)
def test_training_steps_lower_the_loss_and_the_model_predicts(path, hands):
    cfg = shrunk(load(path), hands)
    cfg.model.backbone.drop_path_rate = 0.0
    train, test = (DATASETS.build(cfg[f'{name}_dataloader'].dataset) for name in ('train', 'test'))
    np.random.seed(0)
    batch = pseudo_collate([train[i] for i in range(3)])
    model = MODELS.build(cfg.model).train()
    data = model.data_preprocessor(batch, True)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    totals = []
    for _ in range(3):
        losses = model(**data, mode='loss')
        loss = sum(value for name, value in losses.items() if 'loss' in name)
        totals.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert totals[1] < totals[0] and totals[2] < totals[0]
    with torch.no_grad():
        found = model.eval().test_step(pseudo_collate([test[0], test[1]]))
    assert found[0].pred_instances.keypoints.shape == (1, 42 if 'internet' in path.name else 21, 3)
    assert {'abs_depth', 'focal', 'principal_pt'} <= set(found[0].metainfo)


class StandInHand(nn.Module):
    """Stand-in for a user's MANO layer: joints are a fixed linear map of the parameters."""

    def __init__(self):
        super().__init__()
        self.register_buffer('mixture', torch.randn(63, 9 + 135 + 10) / 100)

    def forward(self, global_orient, hand_pose, betas):
        parameters = torch.cat([global_orient.flatten(1), hand_pose.flatten(1), betas], 1)
        return (parameters @ self.mixture.T).reshape(-1, 21, 3)


def test_example_of_a_custom_mano_layer_trains(hands, tmp_path):
    text = (ROOT / 'docs' / 'pose3d.md').read_text()
    code = next(block for block in re.findall(r'```python\n(.*?)```', text, re.DOTALL) if '_base_' in block)
    code = code.replace("'configs/", f"'{ROOT}/configs/").replace(", 'my_hand'", '')
    (tmp_path / 'example.py').write_text(code)
    root = shutil.copytree(hands / 'freihand', tmp_path / 'freihand')
    (root / 'training_mano.json').write_text(json.dumps([[[0.1] * 61]] * 6))
    cfg = Config.fromfile(tmp_path / 'example.py')
    cfg.train_dataloader.dataset.data_root = str(root)
    cfg.model.backbone.update(arch='xtiny', init_cfg=None)
    cfg.model.head.update(in_channels=192, hand_model=StandInHand())
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    model = MODELS.build(cfg.model).train()
    losses = model(**model.data_preprocessor(pseudo_collate([dataset[0], dataset[1]]), True), mode='loss')
    assert losses.keys() == {'loss_points', 'loss_betas', 'loss_global_orient', 'loss_hand_pose'}
    assert all(torch.isfinite(loss) for loss in losses.values()) and losses['loss_global_orient'] > 0.01
    sum(losses.values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.head.parameters())


def internet_sample(hands, index):
    cfg = load(ROOT / 'configs' / 'pose' / 'hand3d' / 'internet_moganet-xtiny_interhand3d-synthetic.py')
    settings = cfg.train_dataloader.dataset
    settings.update(data_root=str(hands / 'interhand2.6m'), pipeline=[dict(type='LoadImage')])
    return DATASETS.build(settings)[index]


def test_flip_swaps_hands_and_flags_and_negates_the_depth_between_them(hands):
    flip = TRANSFORMS.build(dict(type='HandRandomFlip', prob=1.0))
    for index in (0, 1, 2):  # right, left, both
        before, flipped = internet_sample(hands, index), flip(internet_sample(hands, index))
        swapped = [*range(21, 42), *range(21)]
        np.testing.assert_array_equal(flipped['hand_type'], before['hand_type'][:, ::-1])
        np.testing.assert_array_equal(flipped['keypoints_visible'], before['keypoints_visible'][:, swapped])
        assert flipped['rel_root_depth'] == -before['rel_root_depth']
        mirrored = before['keypoints'][:, swapped] * [-1, 1, 1] + [127, 0, 0]
        np.testing.assert_allclose(flipped['keypoints'], mirrored, atol=1e-3)
        np.testing.assert_array_equal(flipped['img'], before['img'][:, ::-1])
    assert before['hand_type'].all() and before['rel_root_depth'] != 0


def test_interhand_files_are_read_consistently(hands):
    """Camera, roots and boxes of the three files agree: joints project to their image positions inside the box."""
    sample = internet_sample(hands, 2)
    joints, seen = sample['keypoints_cam'][0], sample['keypoints'][0]
    np.testing.assert_allclose(
        seen[:, :2], joints[:, :2] / joints[:, 2:] * sample['focal'] + sample['principal_pt'], atol=1e-2
    )
    np.testing.assert_allclose(seen[[20, 41], 2], 0, atol=1e-3)
    assert sample['abs_depth'] == [joints[20, 2], joints[41, 2]]
    low, high = sample['bbox'][0, :2], sample['bbox'][0, 2:]
    assert (seen[:, :2] >= low).all() and (seen[:, :2] <= high).all()
