"""The hand network of the paper's 3D task, without the licensed hand model.

ExPose (Choutas et al., ECCV 2020, arXiv 2008.09062) regresses the parameters of MANO in three iterations from the
pooled last feature map. MANO itself (Romero et al., SIGGRAPH Asia 2017) requires registration and a non-commercial
license: users who have it provide it as a layer, see :class:`IterativeHandHead`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

NUM_ROTATIONS = 15  # articulated joints of MANO
NUM_BETAS = 10
SIZES = (6, 6 * NUM_ROTATIONS, NUM_BETAS, 3)  # orientation, pose, shape, camera: 109 numbers
MEAN_SCALE = 0.9
BETA_LIMIT = 3.0


class IterativeRegressor(nn.Module):
    """Regress parameters P from a feature vector f: P <- P + MLP([f, P]), with one MLP, starting at a mean.

    Args:
        in_channels: Length of the feature vector.
        mean: Initial parameters, (P,).
        hidden_dims: Width of the two hidden layers.
        num_rounds: Number of iterations.
        dropout: Dropout rate after each hidden layer.

    Source: arXiv 2008.09062, section 3.3; number of layers and rates as in its code.
    """

    mean: Tensor

    def __init__(
        self, in_channels: int, mean: Tensor, hidden_dims: int = 1024, num_rounds: int = 3, dropout: float = 0.5
    ):
        super().__init__()
        self.register_buffer('mean', mean.clone())
        self.num_rounds = num_rounds
        self.mlp = nn.Sequential(
            nn.Linear(in_channels + len(mean), hidden_dims),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dims, hidden_dims),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dims, len(mean)),
        )
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        nn.init.xavier_uniform_(last.weight, gain=0.01)
        nn.init.zeros_(last.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels) to (B, P)."""
        parameters = self.mean.expand(features.shape[0], -1)
        for _ in range(self.num_rounds):
            parameters = parameters + self.mlp(torch.cat([features, parameters], 1))
        return parameters


def matrix_from_6d(numbers: Tensor) -> Tensor:
    """Rotations (..., 3, 3) from their first two columns (..., 6), row-major, by Gram-Schmidt orthonormalization.

    Source: Zhou et al., On the continuity of rotation representations, CVPR 2019, arXiv 1812.07035.
    """
    first, second = numbers.reshape(*numbers.shape[:-1], 3, 2).unbind(-1)
    first = F.normalize(first, dim=-1)
    second = F.normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -1)


def matrix_from_axis_angle(vectors: Tensor) -> Tensor:
    """Rotations (..., 3, 3) from axis-angle vectors (..., 3), whose length is the angle in radians."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*vectors.shape[:-1], 3, 3)
    return torch.linalg.matrix_exp(skew)


def rotation_distance(predicted: Tensor, target: Tensor) -> Tensor:
    """Angle (...,) in radians between rotations (..., 3, 3); differentiable except at 180 degrees."""
    difference = predicted.transpose(-1, -2) @ target
    axis = torch.stack(
        [
            difference[..., 2, 1] - difference[..., 1, 2],
            difference[..., 0, 2] - difference[..., 2, 0],
            difference[..., 1, 0] - difference[..., 0, 1],
        ],
        -1,
    )
    # atan2 of sine and cosine, since the arc cosine has no gradient at 0.
    sine = (axis.square().sum(-1) + 1e-12).sqrt()
    return torch.atan2(sine, difference.diagonal(dim1=-2, dim2=-1).sum(-1) - 1)


@MODELS.register_module()
class IterativeHandHead(BaseModule):
    """Regresses the parameters of a hand model from the last feature map, for mmpose's TopdownPoseEstimator.

    ``hand_model`` is provided by the user: any module with::

        forward(global_orient (B, 3, 3), hand_pose (B, 15, 3, 3), betas (B, 10)) -> joints (B, 21, 3)

    with rotations as matrices, and joints in meters and in FreiHAND's order, for example a class that wraps a MANO
    layer and is registered in ``MODELS`` of mmengine or mmpose. Its weights keep their values unless it defines
    ``init_weights``.

    Training uses ``gt_instances.transformed_keypoints`` (from ``PackPoseInputs`` with ``pack_transformed=True``),
    ``keypoints_visible`` and ``input_size`` of a sample. If its metainfo has ``mano_pose``, as from FreiHAND with
    ``with_mano=True``, the rotations are used as well: (48,) axis-angles, the first of which is the orientation and is
    rotated by ``bbox_rotation``.

    Args:
        in_channels: Width of the feature map.
        hand_model: Config of the hand model, or the module itself.
        mean_pose: (45,) axis-angles of the mean hand; None for the rest pose of the hand model.
        hidden_dims: See :class:`IterativeRegressor`.
        num_rounds: See :class:`IterativeRegressor`.
        dropout: See :class:`IterativeRegressor`.
        init_cfg: See mmengine's BaseModule.
    """

    def __init__(
        self,
        in_channels: int,
        hand_model: dict | nn.Module,
        mean_pose: tuple[float, ...] | None = None,
        hidden_dims: int = 1024,
        num_rounds: int = 3,
        dropout: float = 0.5,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        mean_vectors = torch.zeros(3 * NUM_ROTATIONS) if mean_pose is None else torch.tensor(mean_pose)
        rotations = matrix_from_axis_angle(torch.cat([torch.zeros(3), mean_vectors]).reshape(-1, 3))
        camera = torch.tensor([math.log(math.expm1(MEAN_SCALE)), 0, 0])  # inverse of softplus
        mean = torch.cat([rotations[..., :2].flatten(), torch.zeros(NUM_BETAS), camera])
        self.regressor = IterativeRegressor(in_channels, mean, hidden_dims, num_rounds, dropout)
        self.hand_model = hand_model if isinstance(hand_model, nn.Module) else MODELS.build(hand_model)

    def forward(self, feats: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Predict a hand from the last of the feature maps, (B, C, H, W).

        Returns:
            ``global_orient`` and ``hand_pose`` (rotations), ``betas``, ``joints`` (B, 21, 3) in meters, and ``points``
            (B, 21, 2): their weak-perspective projection, -1..1 from border to border of the image.
        """
        orientation, pose, betas, camera = self.regressor(feats[-1].mean((2, 3))).split(SIZES, 1)
        global_orient = matrix_from_6d(orientation)
        hand_pose = matrix_from_6d(pose.reshape(-1, NUM_ROTATIONS, 6))
        joints = self.hand_model(global_orient, hand_pose, betas)
        points = F.softplus(camera[:, None, :1]) * (joints[..., :2] + camera[:, None, 1:])
        return dict(global_orient=global_orient, hand_pose=hand_pose, betas=betas, joints=joints, points=points)

    def loss(self, feats: tuple[Tensor, ...], batch_data_samples: list[BaseDataElement], train_cfg=None) -> dict:
        """Losses of the points, the shape and, if known, the rotations, each with weight 1."""
        found = self(feats)
        device = feats[-1].device
        rows: list[tuple[np.ndarray, np.ndarray]] = []
        for sample in batch_data_samples:
            points = sample.gt_instances.transformed_keypoints[0, :, :2]
            target = 2 * points / np.asarray(sample.metainfo['input_size']) - 1
            rows.append((target, sample.gt_instances.keypoints_visible[0]))
        targets, weights = (torch.from_numpy(np.stack(column)).float().to(device) for column in zip(*rows, strict=True))
        excess = (found['betas'].abs() - BETA_LIMIT).clamp(min=0)
        losses = dict(
            loss_points=((found['points'] - targets).abs() * weights[..., None]).sum((1, 2)).mean(),
            loss_betas=excess.square().sum(1).mean(),
        )
        known = [i for i, sample in enumerate(batch_data_samples) if 'mano_pose' in sample.metainfo]
        if known:
            rotations = torch.stack([_labeled_rotations(batch_data_samples[i]) for i in known]).to(device)
            distance = rotation_distance(found['global_orient'][known], rotations[:, 0])
            losses['loss_global_orient'] = distance.mean()
            losses['loss_hand_pose'] = rotation_distance(found['hand_pose'][known], rotations[:, 1:]).sum(1).mean()
        return losses

    def predict(self, feats: tuple[Tensor, ...], batch_data_samples: list[BaseDataElement], test_cfg=None) -> list:
        """Predict the joints of each sample.

        Returns:
            For each sample ``keypoints`` (1, 21, 3), x and y in pixels of the input and z in mm relative to the wrist,
            and ``keypoints_cam`` (1, 21, 3), the joints of the hand model in mm.
        """
        found = self(feats)
        results = []
        for sample, points, joints in zip(
            batch_data_samples, found['points'].cpu().numpy(), found['joints'].cpu().numpy() * 1000, strict=True
        ):
            pixels = (points + 1) / 2 * np.asarray(sample.metainfo['input_size'])
            keypoints = np.concatenate([pixels, joints[:, 2:] - joints[:1, 2:]], 1)[None]
            scores = np.ones(keypoints.shape[:2], np.float32)
            results.append(InstanceData(keypoints=keypoints, keypoint_scores=scores, keypoints_cam=joints[None]))
        return results


def _labeled_rotations(sample: BaseDataElement) -> Tensor:
    """Rotations (16, 3, 3) of ``mano_pose``, with the orientation rotated like the image."""
    rotations = matrix_from_axis_angle(torch.as_tensor(sample.metainfo['mano_pose']).float().reshape(-1, 3))
    # mmpose rotates the box by the angle, and thus the image in it by the opposite angle.
    angle = -math.radians(float(np.ravel(sample.metainfo.get('bbox_rotation', 0.0))[0]))
    rotations[0] = matrix_from_axis_angle(torch.tensor([0.0, 0.0, angle])) @ rotations[0]
    return rotations
