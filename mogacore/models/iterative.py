"""The hand network of the paper's 3D task, as far as it goes without a licensed body model.

ExPose (Choutas et al., ECCV 2020, arXiv 2008.09062) regresses the parameters of MANO in three rounds from the pooled
last feature. MANO itself (Romero et al., SIGGRAPH Asia 2017) stands behind a registration and a non-commercial licence:
whoever has it brings a layer of it, see :class:`IterativeHandHead`.
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

NUM_ROTATIONS = 15  # joints of MANO that bend
NUM_BETAS = 10
SIZES = (6, 6 * NUM_ROTATIONS, NUM_BETAS, 3)  # orientation, pose, shape, camera: 109 numbers
MEAN_SCALE = 0.9
BETA_LIMIT = 3.0


class IterativeRegressor(nn.Module):
    """Parameters from a feature vector: P <- P + MLP([f, P]), the same MLP in every round, from a mean P.

    Args:
        in_channels: Length of the feature vector.
        mean: (P,), where the rounds begin.
        hidden_dims: Width of the two hidden layers.
        num_rounds: How many rounds.
        dropout: Rate after each hidden layer.

    Source: arXiv 2008.09062, section 3.3; numbers of layers and rates as in its code.
    """

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
        nn.init.xavier_uniform_(self.mlp[-1].weight, gain=0.01)
        nn.init.zeros_(self.mlp[-1].bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels) to (B, P)."""
        parameters = self.mean.expand(len(features), -1)
        for _ in range(self.num_rounds):
            parameters = parameters + self.mlp(torch.cat([features, parameters], 1))
        return parameters


def matrix_from_6d(numbers: Tensor) -> Tensor:
    """Rotations (..., 3, 3) of which (..., 6) are the first two columns, row by row, made orthonormal one by one.

    Source: Zhou et al., On the continuity of rotation representations, CVPR 2019, arXiv 1812.07035.
    """
    first, second = numbers.reshape(*numbers.shape[:-1], 3, 2).unbind(-1)
    first = F.normalize(first, dim=-1)
    second = F.normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -1)


def matrix_from_axis_angle(vectors: Tensor) -> Tensor:
    """Rotations (..., 3, 3) about (..., 3), the length being the angle in radians (Rodrigues)."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*vectors.shape[:-1], 3, 3)
    return torch.linalg.matrix_exp(skew)


def rotation_distance(predicted: Tensor, target: Tensor) -> Tensor:
    """Angle in radians between rotations (..., 3, 3), (...,); differentiable except at a half turn."""
    difference = predicted.transpose(-1, -2) @ target
    axis = torch.stack(
        [
            difference[..., 2, 1] - difference[..., 1, 2],
            difference[..., 0, 2] - difference[..., 2, 0],
            difference[..., 1, 0] - difference[..., 0, 1],
        ],
        -1,
    )
    # The sine and cosine: the arc cosine alone has no gradient at 0.
    sine = (axis.square().sum(-1) + 1e-12).sqrt()
    return torch.atan2(sine, difference.diagonal(dim1=-2, dim2=-1).sum(-1) - 1)


@MODELS.register_module()
class IterativeHandHead(BaseModule):
    """Parameters of a hand model from the last feature map, for mmpose's TopdownPoseEstimator.

    The user's ``hand_model`` is any module with::

        forward(global_orient (B, 3, 3), hand_pose (B, 15, 3, 3), betas (B, 10)) -> joints (B, 21, 3)

    rotations as matrices, joints in metres and in FreiHAND's order. A class registered in ``MODELS`` of mmengine or
    mmpose that wraps a MANO layer will do; its weights, if any, are left as they are unless it says otherwise.

    In training it reads of a sample ``gt_instances.transformed_keypoints`` (``PackPoseInputs`` with
    ``pack_transformed=True``), ``keypoints_visible`` and ``input_size``; and where the sample's meta has ``mano_pose``,
    (48,) axis-angles of which the first is the orientation, as FreiHAND with ``with_mano=True`` gives it, these too,
    turned by ``bbox_rotation``.

    Args:
        in_channels: Width of the feature map.
        hand_model: Config of the layer, or the layer.
        mean_pose: (45,) axis-angles of the mean hand; None is the layer's rest pose.
        hidden_dims: As :class:`IterativeRegressor` takes it.
        num_rounds: As :class:`IterativeRegressor` takes it.
        dropout: As :class:`IterativeRegressor` takes it.
        init_cfg: As mmengine's BaseModule takes it.
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
        mean_pose = torch.zeros(3 * NUM_ROTATIONS) if mean_pose is None else torch.tensor(mean_pose)
        rotations = matrix_from_axis_angle(torch.cat([torch.zeros(3), mean_pose]).reshape(-1, 3))
        camera = torch.tensor([math.log(math.expm1(MEAN_SCALE)), 0, 0])  # softplus undone
        mean = torch.cat([rotations[..., :2].flatten(), torch.zeros(NUM_BETAS), camera])
        self.regressor = IterativeRegressor(in_channels, mean, hidden_dims, num_rounds, dropout)
        self.hand_model = hand_model if isinstance(hand_model, nn.Module) else MODELS.build(hand_model)

    def forward(self, feats: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Of feature maps, the last (B, C, H, W): rotations, ``betas``, ``joints`` in metres, and ``points``.

        ``points`` (B, 21, 2) are the joints in the picture by weak perspective, -1..1 from border to border.
        """
        orientation, pose, betas, camera = self.regressor(feats[-1].mean((2, 3))).split(SIZES, 1)
        global_orient = matrix_from_6d(orientation)
        hand_pose = matrix_from_6d(pose.reshape(-1, NUM_ROTATIONS, 6))
        joints = self.hand_model(global_orient, hand_pose, betas)
        points = F.softplus(camera[:, None, :1]) * (joints[..., :2] + camera[:, None, 1:])
        return dict(global_orient=global_orient, hand_pose=hand_pose, betas=betas, joints=joints, points=points)

    def loss(self, feats: tuple[Tensor, ...], batch_data_samples: list[BaseDataElement], train_cfg=None) -> dict:
        """Losses, each of weight 1: of the points, the shape and, where known, the rotations."""
        found = self(feats)
        device = feats[-1].device
        targets, weights = [], []
        for sample in batch_data_samples:
            points = sample.gt_instances.transformed_keypoints[0, :, :2]
            targets.append(2 * points / np.asarray(sample.metainfo['input_size']) - 1)
            weights.append(sample.gt_instances.keypoints_visible[0])
        targets, weights = (torch.from_numpy(np.stack(rows)).float().to(device) for rows in (targets, weights))
        excess = (found['betas'].abs() - BETA_LIMIT).clamp(min=0)
        losses = dict(
            loss_points=((found['points'] - targets).abs() * weights[..., None]).sum((1, 2)).mean(),
            loss_betas=excess.square().sum(1).mean(),
        )
        known = [i for i, sample in enumerate(batch_data_samples) if 'mano_pose' in sample.metainfo]
        if known:
            rotations = torch.stack([_labelled_rotations(batch_data_samples[i]) for i in known]).to(device)
            distance = rotation_distance(found['global_orient'][known], rotations[:, 0])
            losses['loss_global_orient'] = distance.mean()
            losses['loss_hand_pose'] = rotation_distance(found['hand_pose'][known], rotations[:, 1:]).sum(1).mean()
        return losses

    def predict(self, feats: tuple[Tensor, ...], batch_data_samples: list[BaseDataElement], test_cfg=None) -> list:
        """For each sample ``keypoints`` (1, 21, 3), x and y in pixels of the input, z in mm from the wrist, and
        ``keypoints_cam`` (1, 21, 3), the layer's joints in mm."""
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


def _labelled_rotations(sample: BaseDataElement) -> Tensor:
    """(16, 3, 3) of ``mano_pose``, the orientation turned as the picture was."""
    rotations = matrix_from_axis_angle(torch.as_tensor(sample.metainfo['mano_pose']).float().reshape(-1, 3))
    # mmpose turns the box by the angle, so the picture in it by the opposite one.
    angle = -math.radians(float(np.ravel(sample.metainfo.get('bbox_rotation', 0.0))[0]))
    rotations[0] = matrix_from_axis_angle(torch.tensor([0.0, 0.0, angle])) @ rotations[0]
    return rotations
