"""Poses in the crop of a box: keypoints of objects, and 3D joints of hands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mogacore.errors import UserError
from mogacore.models.heatmap3d import RootRelativeHeatmap
from mogacore.models.iterative import IterativeHandHead

from .base import Difference, Graph, compare
from .heatmaps import UDP, Dark, Decoder, QuarterShift, volume_peaks, volume_values

MAX_MISPLACED = 0.05  # pixels or mm
# Keypoints that rounding may move to another place, where a heatmap has two peaks of the same height or is almost flat:
# the larger of a number and a fraction.
MAX_JUMPS = 2, 0.05


class Pose(Graph):
    """Outputs: ``keypoints`` (B, K, 2), x and y in pixels of the crop, and ``scores`` (B, K), of a 2D heatmap head.

    With ``flip_test``, the heatmaps of the crop and of its mirror image are averaged.

    Args:
        model: mmpose's TopdownPoseEstimator.
        cfg: Its config.
        meta: With ``flip_indices`` if the config asks for a flip test.
        decoder: From heatmaps to keypoints and scores.
    """

    task = 'pose'
    output_names: tuple[str, ...] = ('keypoints', 'scores')
    dynamic = ('batch',)  # a heatmap has the size that the codec is made for

    def __init__(
        self,
        model: nn.Module,
        cfg: Mapping[str, Any],
        meta: Mapping[str, Any] | None = None,
        decoder: Decoder | None = None,
    ):
        super().__init__(model, cfg, meta)
        self.decoder = decoder
        test_cfg: Mapping[str, Any] = cfg['model'].get('test_cfg') or {}
        self.flips = bool(test_cfg.get('flip_test', False))
        self.shifts = bool(test_cfg.get('shift_heatmap', False))
        self.flip_indices = list((meta or {}).get('flip_indices') or ())
        self.chosen = test_cfg.get('output_keypoint_indices')

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        assert self.decoder is not None
        x = self.normalize(images)
        heatmaps = self.model.head(self.model.extract_feat(x))
        if self.flips:
            mirrored = self.model.head(self.model.extract_feat(x.flip(-1)))
            heatmaps = (heatmaps + self.unflip(mirrored)) * 0.5
        return self.select(*self.decoder(heatmaps))

    def unflip(self, heatmaps: Tensor) -> Tensor:
        """Heatmaps (B, K, ..., H, W) of a mirrored crop as those of the crop."""
        heatmaps = heatmaps.flip(-1)[:, self.flip_indices]
        return torch.cat([heatmaps[..., :1], heatmaps[..., :-1]], -1) if self.shifts else heatmaps

    def select(self, *outputs: Tensor) -> tuple[Tensor, ...]:
        """The keypoints (axis 1) that the config wants."""
        return outputs if self.chosen is None else tuple(output[:, list(self.chosen)] for output in outputs)

    def differences(
        self, found: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float
    ) -> list[Difference]:
        """As :class:`Graph`, but a few keypoints may be at another place, and any that lie outside the crop."""
        ours, theirs = (dict(zip(self.output_names, outputs, strict=True)) for outputs in (found, expected))
        points, true_points = ours.pop('keypoints'), theirs.pop('keypoints')
        differences = [compare(name, ours[name], theirs[name], tolerance) for name in ours]
        if points.shape != true_points.shape:
            return [compare('keypoints', points, true_points, tolerance), *differences]
        is_inside = torch.ones_like(true_points[..., 0], dtype=torch.bool)
        if self.decoder is not None:
            is_inside = ((true_points >= 0) & (true_points <= self.decoder.crop_size)).all(-1)
        distance = (points - true_points).abs().amax(-1)[is_inside]
        jumps = distance > MAX_MISPLACED
        allowed = max(MAX_JUMPS[0], MAX_JUMPS[1] * len(jumps))
        return [
            Difference('keypoints (number at another place)', float(jumps.sum()), allowed),
            Difference('keypoints (pixels)', max([0.0, *distance[~jumps].tolist()]), MAX_MISPLACED),
            *differences,
        ]


class RootRelativeHand(Pose):
    """One hand from 3D heatmaps: ``keypoints`` (B, K, 3) with z in mm relative to the wrist, and ``scores`` in 0..1."""

    scale: Tensor
    task = 'hands'

    def __init__(self, model: nn.Module, cfg: Mapping[str, Any], meta: Mapping[str, Any] | None = None):
        super().__init__(model, cfg, meta)
        codec: RootRelativeHeatmap = self.model.head.decoder
        self.size, self.max_value = codec.heatmap_size, float(codec.max_value)
        self.register_buffer('scale', torch.from_numpy(codec.scale), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.normalize(images)
        heatmaps = self.model.head(self.model.extract_feat(x))
        if self.flips:
            heatmaps = (heatmaps + self.unflip(self.model.head(self.model.extract_feat(x.flip(-1))))) * 0.5
        return self.select(*self.decode(heatmaps))

    def decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """The peaks with subvoxel accuracy, as :meth:`RootRelativeHeatmap.decode`; heatmaps (B, K * D, H, W)."""
        width, height, depth = self.size
        volumes = heatmaps.reshape(heatmaps.shape[0], heatmaps.shape[1] // depth, depth, height, width)
        position, values = volume_peaks(volumes)
        least = 1e-3 * self.max_value
        found = []
        for axis, size in enumerate((width, height, depth)):
            step = [int(axis == other) for other in range(3)]
            before, peak, after = (
                volume_values(volumes, position, [sign * one for one in step]).double().clamp(min=least).log()
                for sign in (-1, 0, 1)
            )
            curvature = before - 2 * peak + after
            place = position[..., axis]
            is_inside = (place > 0) & (place < size - 1) & (curvature < 0)
            shift = 0.5 * (before - after) / torch.where(is_inside, curvature, 1.0)
            found.append(place + torch.where(is_inside, shift.clamp(-0.5, 0.5), 0.0))
        voxels = torch.stack([found[0], found[1], found[2] - depth / 2], 2)
        keypoints = torch.where((values > 0)[..., None], voxels * self.scale, 0.0)
        return keypoints.float(), (values / self.max_value).clamp(min=0.0)


class TwoHands(Pose):
    """InterNet: ``keypoints`` and ``scores`` as for one hand, those of the right hand first; ``hands`` (B, 2), 1 if
    right, left are present; ``root_depth`` (B,), mm by which the left wrist is behind the right one."""

    scale: Tensor
    task = 'hands'
    output_names = ('keypoints', 'scores', 'hands', 'root_depth')

    def __init__(self, model: nn.Module, cfg: Mapping[str, Any], meta: Mapping[str, Any] | None = None):
        super().__init__(model, cfg, meta)
        codec = self.model.head.decoder
        self.depth_size, self.depth_bound = float(codec.depth_size), float(codec.heatmap3d_depth_bound)
        self.root_size, self.root_bound = float(codec.root_heatmap_size), float(codec.root_depth_bound)
        self.max_score = float(codec.max_bound)
        self.register_buffer('scale', torch.tensor(codec.scale_factor), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.normalize(images)
        volumes, root, logits = self.model.head(self.model.extract_feat(x))
        if self.flips:
            mirrored, mirrored_root, _ = self.model.head(self.model.extract_feat(x.flip(-1)))
            volumes = (volumes + self.unflip(mirrored)) * 0.5
            root = (root - mirrored_root) * 0.5
            logits = (logits + logits.flip(1)) * 0.5  # mmpose mirrors the logits of the crop, not those of its mirror
        position, values = volume_peaks(volumes)
        position = torch.where((values > 0)[..., None], position.float(), -1.0)
        depth = (position[..., 2:] / self.depth_size - 0.5) * self.depth_bound
        keypoints = torch.cat([position[..., :2] * self.scale, depth], 2)
        is_present = logits > 0
        scores = (values / self.max_score).clamp(0.0, 1.0)
        scores = scores * is_present.repeat_interleave(keypoints.shape[1] // 2, 1)
        keypoints, scores = self.select(keypoints, scores)
        return keypoints, scores, is_present.long(), (root[:, 0] / self.root_size - 0.5) * self.root_bound


class IterativeHand(Pose):
    """One hand from a hand model: ``keypoints`` (B, 21, 3) as for one hand, and ``scores``, all 1."""

    task = 'hands'

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        height, width = images.shape[2:]
        found = self.model.head(self.model.extract_feat(self.normalize(images)))
        size = torch.tensor([float(width), float(height)])
        pixels, depth = (found['points'] + 1) / 2 * size, found['joints'][..., 2:] * 1000
        keypoints = torch.cat([pixels, depth - depth[:, :1]], 2)
        return self.select(keypoints, torch.ones_like(keypoints[..., 0]))


def create(model: nn.Module, cfg: Mapping[str, Any], meta: Mapping[str, Any] | None = None) -> Graph:
    """The graph of a top-down pose estimator.

    Raises:
        UserError: If its decoder or its flip test is unknown.
    """
    head: Any = getattr(model, 'head', None)
    if type(model).__name__ != 'TopdownPoseEstimator':
        raise _refuse(f'{type(model).__name__} cannot be exported')
    test_cfg: Mapping[str, Any] = cfg['model'].get('test_cfg') or {}
    if test_cfg.get('flip_test') and test_cfg.get('flip_mode', 'heatmap') != 'heatmap':
        raise _refuse(f'flip_mode {test_cfg["flip_mode"]!r} cannot be exported')
    if isinstance(head, IterativeHandHead):
        return IterativeHand(model, cfg, meta)
    codec: Any = getattr(head, 'decoder', None)
    kind = type(codec).__name__
    if isinstance(codec, RootRelativeHeatmap):
        return RootRelativeHand(model, cfg, meta)
    if kind == 'Hand3DHeatmap' and type(head).__name__ == 'InternetHead':
        return TwoHands(model, cfg, meta)
    if kind == 'MSRAHeatmap':
        return Pose(model, cfg, meta, Dark(codec) if codec.unbiased else QuarterShift(codec))
    if kind == 'UDPHeatmap' and codec.heatmap_type == 'gaussian':
        return Pose(model, cfg, meta, UDP(codec))
    raise _refuse(f'keypoints of {type(head).__name__} with {kind} cannot be decoded in a file')


def _refuse(problem: str) -> UserError:
    return UserError(
        f'{problem}: use a TopdownPoseEstimator with MSRAHeatmap, UDPHeatmap of Gaussians, RootRelativeHeatmap, '
        'Hand3DHeatmap or IterativeHandHead, or --raw for the outputs of the network'
    )
