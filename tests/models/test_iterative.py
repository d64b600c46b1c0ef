"""The iterative hand head with a substitute for MANO: chains of bones articulated by the fifteen rotations."""

import math

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement, InstanceData
from torch import nn

from mogacore.datasets.hands import BASES, BONES, FAN
from mogacore.models import IterativeHandHead
from mogacore.models.iterative import (
    IterativeRegressor,
    matrix_from_6d,
    matrix_from_axis_angle,
    rotation_distance,
)


@MODELS.register_module(force=True)
class StandInHand(nn.Module):
    """Three rotations per finger, each applied to all bones beyond it; the first beta is the size."""

    def __init__(self):
        super().__init__()
        along = np.stack([np.sin(FAN), -np.cos(FAN), np.zeros(5)], 1)
        self.register_buffer('bases', torch.from_numpy(BASES / 1000).float())
        self.register_buffer('steps', torch.from_numpy(BONES[..., None] * along[:, None] / 1000).float())

    def forward(self, global_orient, hand_pose, betas):
        joints = [torch.zeros(len(betas), 3)]
        for finger in range(5):
            rotation = torch.eye(3).expand(len(betas), 3, 3)
            joints.append(self.bases[finger].expand(len(betas), 3))
            for bone in range(3):
                rotation = rotation @ hand_pose[:, 3 * finger + bone]
                joints.append(joints[-1] + rotation @ self.steps[finger, bone])
        size = 1 + 0.1 * betas[:, :1, None]
        return size * torch.stack(joints, 1) @ global_orient.transpose(1, 2)


def samples(rng, number, size=(64, 64), **meta):
    found = []
    for _ in range(number):
        points = np.concatenate([rng.uniform(0, size, (21, 2)), np.zeros((21, 1))], 1)[None]
        instances = InstanceData(transformed_keypoints=points, keypoints_visible=np.ones((1, 21)))
        found.append(BaseDataElement(gt_instances=instances, metainfo=dict(input_size=size, **meta)))
    return found


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_number_of_parameters_equals_that_of_expose():
    head = IterativeHandHead(512, dict(type='StandInHand'))
    numbers = 6 + 15 * 6 + 10 + 3
    formula = (512 + numbers + 1) * 1024 + (1024 + 1) * 1024 + (1024 + 1) * numbers
    assert count(head) == count(head.regressor) == formula == 1_798_253
    assert head.regressor.mean.shape == (109,)
    assert count(IterativeRegressor(512, torch.zeros(165))) == 1_912_997  # the face regressor


def test_each_round_adds_the_output_of_the_mlp():
    regressor = IterativeRegressor(4, torch.arange(3.0), hidden_dims=8, num_rounds=3).eval()
    features = torch.randn(2, 4)
    expected = torch.arange(3.0).repeat(2, 1)
    for _ in range(3):
        expected = expected + regressor.mlp(torch.cat([features, expected], 1))
    torch.testing.assert_close(regressor(features), expected)
    assert regressor.mlp[-1].weight.abs().max() <= 0.01 * math.sqrt(6 / 11)


def test_regression_starts_at_the_mean_hand():
    mean_pose = tuple(np.random.default_rng(0).normal(0, 0.3, 45).tolist())
    head = IterativeHandHead(16, StandInHand(), mean_pose).eval()
    nn.init.zeros_(head.regressor.mlp[-1].weight)
    found = head((torch.randn(2, 16, 2, 2),))
    torch.testing.assert_close(found['global_orient'], torch.eye(3).expand(2, 3, 3), atol=1e-6, rtol=0)
    expected = matrix_from_axis_angle(torch.tensor(mean_pose).reshape(15, 3))
    torch.testing.assert_close(found['hand_pose'][1], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(found['points'], 0.9 * found['joints'][..., :2])
    assert not found['betas'].any()


def test_rotations_equal_those_of_scipy():
    rotation = pytest.importorskip('scipy.spatial.transform').Rotation
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20, 3))
    truth = rotation.from_rotvec(vectors)
    matrices = matrix_from_axis_angle(torch.from_numpy(vectors))
    np.testing.assert_allclose(matrices, truth.as_matrix(), atol=1e-9)
    # Columns of any length and angle give the rotation whose first column is parallel to the first.
    skewed = matrices[..., :2] @ torch.tensor([[2.0, 0.7], [0.0, 0.4]], dtype=torch.float64)
    np.testing.assert_allclose(matrix_from_6d(skewed.flatten(1)), matrices, atol=1e-9)
    np.testing.assert_allclose(
        rotation_distance(matrices[:10], matrices[10:]), (truth[:10].inv() * truth[10:]).magnitude(), atol=1e-6
    )
    same = matrices[:1].clone().requires_grad_()
    rotation_distance(same, matrices[:1]).sum().backward()
    assert torch.isfinite(same.grad).all()


def test_losses_match_values_worked_by_hand():
    head = IterativeHandHead(16, StandInHand()).eval()
    nn.init.zeros_(head.regressor.mlp[-1].weight)
    with torch.no_grad():
        head.regressor.mean[96:98] = torch.tensor([5.0, -2.0])
    feats = (torch.randn(2, 16, 2, 2),)
    batch = samples(np.random.default_rng(0), 2)
    batch[1].gt_instances.keypoints_visible[0, 5:] = 0
    losses = head.loss(feats, batch)
    assert losses.keys() == {'loss_points', 'loss_betas'}
    assert losses['loss_betas'].item() == pytest.approx((5 - 3) ** 2)
    points = head(feats)['points'].detach().numpy()
    per_sample = [
        abs(points[i, :visible] - (batch[i].gt_instances.transformed_keypoints[0, :visible, :2] / 32 - 1)).sum()
        for i, visible in enumerate((21, 5))
    ]
    assert losses['loss_points'].item() == pytest.approx(np.mean(per_sample), rel=1e-5)
    pose = np.zeros(48)
    pose[2], pose[5] = 0.5, 0.25  # orientation by 0.5 rad about the viewing axis, one joint by 0.25 rad
    batch = samples(np.random.default_rng(0), 2, mano_pose=pose)
    losses = head.loss(feats, batch)
    assert losses['loss_global_orient'].item() == pytest.approx(0.5, abs=1e-4)
    assert losses['loss_hand_pose'].item() == pytest.approx(0.25, abs=1e-4)


def test_labels_rotate_with_the_image():
    """The rotated label moves the joints of the hand to the points in the rotated image."""
    transforms = pytest.importorskip('mmpose.structures.bbox')
    angle, pose = 30.0, np.random.default_rng(0).normal(0, 0.4, 48)
    warp = transforms.get_warp_matrix(np.array([32.0, 32.0]), np.array([64.0, 64.0]), angle, (64, 64))
    rotations = matrix_from_axis_angle(torch.from_numpy(pose).float().reshape(1, 16, 3))
    hand = StandInHand()
    joints = hand(rotations[:, 0], rotations[:, 1:], torch.zeros(1, 10))[0].numpy() * 100 + [32, 32, 0]
    points = joints[:, :2] @ warp[:, :2].T + warp[:, 2]
    from mogacore.models.iterative import _labeled_rotations

    (sample,) = samples(np.random.default_rng(0), 1, mano_pose=pose, bbox_rotation=np.array([angle]))
    labels = _labeled_rotations(sample)[None]
    rotated = hand(labels[:, 0], labels[:, 1:], torch.zeros(1, 10))[0].numpy() * 100 + [32, 32, 0]
    np.testing.assert_allclose(rotated[:, :2], points, atol=1e-3)


def test_head_learns_a_batch_and_predicts_within_mmpose_estimator():
    pytest.importorskip('mmpose')
    from mmengine.registry import init_default_scope

    import mogacore.registry  # noqa: F401, registers our classes
    from mogacore.libraries import import_quietly

    import_quietly('mmpose')
    init_default_scope('mmpose')
    backbone = dict(
        type='MogaNet',
        arch=dict(embed_dims=(8, 16, 24, 32), depths=(1, 1, 2, 1), ffn_ratios=(2, 2, 2, 2)),
        out_indices=(3,),
    )
    head = dict(type='IterativeHandHead', in_channels=32, hand_model=dict(type='StandInHand'), dropout=0.0)
    model = MODELS.build(dict(type='mmpose.TopdownPoseEstimator', backbone=backbone, head=head))
    images = torch.randn(2, 3, 64, 64)
    batch = samples(np.random.default_rng(0), 2, mano_pose=np.full(48, 0.1))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    totals = []
    for _ in range(6):
        loss = sum(model(images, batch, mode='loss').values())
        totals.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert totals[1] < totals[0] and totals[-1] < 0.95 * totals[0]
    for sample in batch:
        sample.set_metainfo(dict(input_center=np.array([50, 40]), input_scale=np.array([64, 64])))
        sample.gt_instances.set_field(np.zeros((1, 4)), 'bboxes')
        sample.gt_instances.set_field(np.ones(1), 'bbox_scores')
    with torch.no_grad():
        found = model.eval()(images, batch, mode='predict')[0].pred_instances
    assert found.keypoints.shape == found.keypoints_cam.shape == (1, 21, 3)
    np.testing.assert_allclose(
        found.keypoints[0, :, 2], found.keypoints_cam[0, :, 2] - found.keypoints_cam[0, 0, 2], atol=1e-3
    )
