"""SimVP, a fully convolutional video predictor: encoder, translator over the stacked frames, decoder.

Source: Gao et al., SimVP, CVPR 2022 (arXiv 2206.05099); Tan et al., SimVPv2 (arXiv 2211.12509) with the gSTA block; Li
et al., MogaNet (arXiv 2211.03295), with Moga blocks in the translator. Attribute names are those of the published
weights (chengtan9907/OpenSTL), except for sigma, which mogacore.checkpoint renames.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mogacore.errors import UserError

from . import accelerated
from .initialize import init_convolutions
from .layers import DropPath, FeedForward, MogaBlock

FIRST_DROP_PATH_RATE = 0.01


class GatedAttention(nn.Module):
    """Depth-wise context of 23 pixels, from a 5x5 and a 7x7 kernel of dilation 3, with a sigmoid gate.

    Args:
        embed_dims: Channels C of input and output.
    """

    def __init__(self, embed_dims: int):
        super().__init__()
        self.conv0 = nn.Conv2d(embed_dims, embed_dims, 5, padding=2, groups=embed_dims)
        self.conv_spatial = nn.Conv2d(embed_dims, embed_dims, 7, padding=9, dilation=3, groups=embed_dims)
        self.conv1 = nn.Conv2d(embed_dims, 2 * embed_dims, 1)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.conv1(self.conv_spatial(self.conv0(x))).chunk(2, dim=1)
        return torch.sigmoid(gate) * value


class SpatialAttention(nn.Module):
    """``proj_2(attention(GELU(proj_1(x)))) + x``, (B, C, H, W) to the same shape."""

    def __init__(self, embed_dims: int):
        super().__init__()
        self.proj_1 = nn.Conv2d(embed_dims, embed_dims, 1)
        self.spatial_gating_unit = GatedAttention(embed_dims)
        self.proj_2 = nn.Conv2d(embed_dims, embed_dims, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj_2(self.spatial_gating_unit(F.gelu(self.proj_1(x)))) + x


class GSTABlock(nn.Module):
    """Gated spatiotemporal attention, the block of SimVPv2 that Moga blocks are compared with.

    ``x + ls_1 * attn(norm1(x))``, then ``x + ls_2 * mlp(norm2(x))``; (B, C, H, W) to the same shape.

    Args:
        embed_dims: Channels C.
        ffn_ratio: Hidden channels of the feed-forward network divided by C.
        drop_rate: Dropout rate in the feed-forward network.
        drop_path_rate: Probability of dropping a branch, per sample, in training.
        layer_scale_init: Initial value of both layer scales.

    Source: SimVPv2, arXiv 2211.12509, section 3.
    """

    def __init__(
        self,
        embed_dims: int,
        ffn_ratio: float = 8.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale_init: float = 1e-2,
    ):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(embed_dims)
        self.attn = SpatialAttention(embed_dims)
        self.norm2 = nn.BatchNorm2d(embed_dims)
        self.mlp = FeedForward(embed_dims, int(embed_dims * ffn_ratio), ffn_drop=drop_rate)
        self.drop_path = DropPath(drop_path_rate)
        self.layer_scale_1 = nn.Parameter(torch.full((embed_dims,), layer_scale_init))
        self.layer_scale_2 = nn.Parameter(torch.full((embed_dims,), layer_scale_init))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.layer_scale_1.view(-1, 1, 1) * self.attn(self.norm1(x)))
        return x + self.drop_path(self.layer_scale_2.view(-1, 1, 1) * self.mlp(self.norm2(x)))


# Translator blocks by their name in configs; their arguments are (embed_dims, ffn_ratio, drop_rate, drop_path_rate).
TRANSLATOR_BLOCKS = {'MogaNet': MogaBlock, 'gSTA': GSTABlock}


class ConvUnit(nn.Module):
    """A 3x3 convolution, GroupNorm of two groups and SiLU, at one of three scales.

    Args:
        in_channels: Channels of the input map.
        out_channels: Channels of the output map, an even number.
        scale: 'same' keeps height and width; 'down' halves them, rounding up; 'up' doubles them with a convolution to
            four times the channels and a pixel shuffle before the norm.
    """

    def __init__(self, in_channels: int, out_channels: int, scale: str = 'same'):
        super().__init__()
        stride = 2 if scale == 'down' else 1
        conv = nn.Conv2d(in_channels, out_channels * (4 if scale == 'up' else 1), 3, stride, padding=1)
        nn.init.trunc_normal_(conv.weight, std=0.02)
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
        self.conv = nn.Sequential(conv, nn.PixelShuffle(2)) if scale == 'up' else conv
        self.norm = nn.GroupNorm(2, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(self.conv(x)))


def _units(widths: Sequence[tuple[int, int]], scales: Sequence[str]) -> nn.ModuleList:
    # In the published names, each unit is the child "conv" of another module.
    return nn.ModuleList(
        nn.Sequential(OrderedDict(conv=ConvUnit(*width, scale))) for width, scale in zip(widths, scales, strict=True)
    )


class Encoder(nn.Module):
    """Units with the scales same, down, same, down, ..., applied to single frames.

    Args:
        in_channels: Channels C of a frame.
        embed_dims: Width D of every unit.
        depth: Number of units.
    """

    def __init__(self, in_channels: int, embed_dims: int, depth: int):
        super().__init__()
        widths = [(in_channels, embed_dims)] + [(embed_dims, embed_dims)] * (depth - 1)
        self.enc = _units(widths, [('same', 'down')[i % 2] for i in range(depth)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (N, C, H, W) to maps (N, D, h, w), H / h = 2**(depth // 2), and the first unit's map (N, D, H, W)."""
        skip = x = self.enc[0](x)
        for unit in self.enc[1:]:
            x = unit(x)
        return x, skip


class TranslatorStage(nn.Module):
    """A block at the width of its input, and a 1x1 convolution if the width changes.

    Args:
        in_channels: Width of the block.
        out_channels: Width of the output.
        block: Class of the block, see ``TRANSLATOR_BLOCKS``.
        settings: Further arguments of the block.
    """

    def __init__(self, in_channels: int, out_channels: int, block: type[nn.Module], settings: dict):
        super().__init__()
        self.block = block(in_channels, **settings)
        init_convolutions(self.block)
        self.reduction = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(accelerated.select(self.block)(x))


class Translator(nn.Module):
    """Stages over the maps of all frames, stacked along the channels, time first.

    Args:
        stacked_dims: Channels T * D of input and output.
        embed_dims: Width between the first and the last stage.
        depth: Number of stages, at least 2.
        block: Class of the blocks, see ``TRANSLATOR_BLOCKS``.
        drop_path_rate: Rate of the last stage. The others change linearly from 0.01 toward it, as published. So even
            with a rate of 0, some branches of the earlier stages are dropped.
        **settings: Further arguments of the blocks.
    """

    def __init__(
        self, stacked_dims: int, embed_dims: int, depth: int, block: type[nn.Module], drop_path_rate: float, **settings
    ):
        super().__init__()
        widths = [stacked_dims] + [embed_dims] * (depth - 1) + [stacked_dims]
        self.enc = nn.ModuleList(
            TranslatorStage(width, out, block, dict(drop_path_rate=rate, **settings))
            for (width, out), rate in zip(pairwise(widths), drop_path_rates(drop_path_rate, depth), strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, T * D, h, w) to the same shape."""
        for stage in self.enc:
            x = stage(x)
        return x


def drop_path_rates(drop_path_rate: float, depth: int) -> list[float]:
    """Drop path rate of each translator stage, see :class:`Translator`."""
    step = (drop_path_rate - FIRST_DROP_PATH_RATE) / (depth - 1)
    return [FIRST_DROP_PATH_RATE + i * step for i in range(depth - 1)] + [drop_path_rate]


class Decoder(nn.Module):
    """The units of the encoder in reverse, with the skip map added before the last one, and a 1x1 convolution.

    Args:
        embed_dims: Width D of every unit.
        out_channels: Channels C of a frame.
        depth: Number of units.
    """

    def __init__(self, embed_dims: int, out_channels: int, depth: int):
        super().__init__()
        scales = [('same', 'up')[i % 2] for i in range(depth)]
        self.dec = _units([(embed_dims, embed_dims)] * depth, scales[::-1])
        self.readout = nn.Conv2d(embed_dims, out_channels, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Maps (N, D, h, w) and (N, D, H, W) to frames (N, C, H, W)."""
        for unit in self.dec[:-1]:
            x = unit(x)
        return self.readout(self.dec[-1](x + skip))


@MODELS.register_module()
class SimVP(BaseModel):
    """SimVP: predicts T frames from T frames; other lengths by truncation or by feeding predictions back.

    The published configs use ``hid_S`` for ``spatial_dims``, ``N_S`` for ``spatial_depth``, ``hid_T`` for
    ``temporal_dims`` and ``N_T`` for ``temporal_depth``.

    Args:
        num_frames: Number T of input and of output frames of the network.
        in_channels: Channels C of a frame.
        num_targets: Number of frames to predict; None for T. If below T, the first ones are kept; if above, each
            further pass continues from the previous prediction, with gradients through all passes.
        spatial_dims: Width of encoder and decoder, an even number.
        spatial_depth: Number of units in the encoder and in the decoder, even; every second halves height and width.
        temporal_dims: Width of the translator. With Moga blocks, it and ``num_frames * spatial_dims`` must be multiples
            of 8.
        temporal_depth: Number of stages of the translator, at least 2.
        translator: Block of the translator, 'MogaNet' or 'gSTA'.
        ffn_ratio: Hidden channels of the feed-forward networks divided by their width; 8 in every published model.
        drop_rate: Dropout rate in the feed-forward networks; 0 in every published model.
        drop_path_rate: See :class:`Translator`.
        data_preprocessor: See mmengine's BaseModel; None only moves the data to the device.
        init_cfg: See mmengine's BaseModule; None keeps the published initialization.

    Raises:
        UserError: If a setting is out of range.
    """

    def __init__(
        self,
        num_frames: int = 10,
        in_channels: int = 1,
        num_targets: int | None = None,
        spatial_dims: int = 64,
        spatial_depth: int = 4,
        temporal_dims: int = 512,
        temporal_depth: int = 8,
        translator: str = 'MogaNet',
        ffn_ratio: float = 8.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
    ):
        super().__init__(data_preprocessor, init_cfg)
        num_targets = num_frames if num_targets is None else num_targets
        if translator not in TRANSLATOR_BLOCKS:
            raise UserError(f'translator {translator!r} is unknown: choose from {", ".join(TRANSLATOR_BLOCKS)}')
        if min(num_frames, num_targets, in_channels) < 1:
            raise UserError(
                f'num_frames is {num_frames}, num_targets is {num_targets} and in_channels is {in_channels}: use 1 or '
                'more for each'
            )
        if spatial_depth < 2 or spatial_depth % 2 or temporal_depth < 2:
            raise UserError(
                f'spatial_depth is {spatial_depth} and temporal_depth is {temporal_depth}: use 2 or more for each, and '
                'an even spatial_depth'
            )
        if spatial_dims % 2:
            raise UserError(f'spatial_dims {spatial_dims} is odd: use an even number, since norms have two groups')
        stacked_dims = num_frames * spatial_dims
        if translator == 'MogaNet' and (stacked_dims % 8 or temporal_dims % 8):
            raise UserError(
                f'widths {stacked_dims} (num_frames x spatial_dims) and {temporal_dims} (temporal_dims) are not both '
                'divisible by 8, as Moga blocks require: choose multiples of 8'
            )
        if not 0 <= drop_path_rate < 1:
            raise UserError(f'drop_path_rate {drop_path_rate} is out of range: use at least 0 and less than 1')
        self.num_frames, self.num_targets, self.in_channels = num_frames, num_targets, in_channels
        self.spatial_dims, self.size_divisor = spatial_dims, 2 ** (spatial_depth // 2)
        self.enc = Encoder(in_channels, spatial_dims, spatial_depth)
        self.hid = Translator(
            stacked_dims,
            temporal_dims,
            temporal_depth,
            TRANSLATOR_BLOCKS[translator],
            drop_path_rate,
            ffn_ratio=ffn_ratio,
            drop_rate=drop_rate,
        )
        self.dec = Decoder(spatial_dims, in_channels, spatial_depth)

    def forward(self, inputs: Tensor, data_samples: Sequence[BaseDataElement] | None = None, mode: str = 'tensor'):
        """Predict frames, or compute the loss.

        Args:
            inputs: Frames (B, num_frames, C, H, W), in the scale of the data set: 0..1 for images.
            data_samples: B samples with ``gt_frames`` (num_targets, C, H, W); required for the loss.
            mode: 'tensor' returns the predicted frames (B, num_targets, C, H, W); 'loss' a dict with ``loss``, the mean
                squared error over all elements; 'predict' the samples with ``pred_frames`` set.

        Raises:
            UserError: If the shape of the frames does not match the network, or that of the targets the prediction.
        """
        frames = self.forecast(inputs)
        for sample in data_samples or ():
            if 'gt_frames' in sample and sample.gt_frames.shape != frames.shape[1:]:
                raise UserError(
                    f'the target frames of the data are {tuple(sample.gt_frames.shape)}, but the model predicts '
                    f'{tuple(frames.shape[1:])}: make model.num_targets match the data'
                )
        if mode == 'tensor':
            return frames
        if mode == 'loss':
            assert data_samples is not None, "mode 'loss' needs data_samples"
            targets = torch.stack([sample.gt_frames for sample in data_samples])
            return {'loss': F.mse_loss(frames.float(), targets)}
        if mode != 'predict':
            raise ValueError(f"mode {mode!r} is unknown: choose from 'tensor', 'loss', 'predict'")
        samples = data_samples or [BaseDataElement() for _ in frames]
        for sample, predicted in zip(samples, frames.float(), strict=True):
            sample.pred_frames = predicted
        return samples

    def forecast(self, x: Tensor) -> Tensor:
        """Predict the next ``num_targets`` frames: (B, num_frames, C, H, W) to (B, num_targets, C, H, W)."""
        self.check_frames(x)
        passes = []
        for _ in range(-(-self.num_targets // self.num_frames)):
            x = self.one_pass(x)
            passes.append(x)
        return torch.cat(passes, dim=1)[:, : self.num_targets] if len(passes) > 1 else x[:, : self.num_targets]

    def check_frames(self, x: Tensor) -> None:
        """Raise UserError if the network cannot process frames of this shape."""
        expected = (self.num_frames, self.in_channels)
        if x.ndim != 5 or tuple(x.shape[1:3]) != expected or x.shape[3] % self.size_divisor or (
            x.shape[4] % self.size_divisor
        ):  # fmt: skip
            raise UserError(
                f'input frames have shape {tuple(x.shape)}, but the network needs (B, {expected[0]}, {expected[1]}, H, '
                f'W), with height and width multiples of {self.size_divisor}: resize or select the frames'
            )

    def one_pass(self, x: Tensor) -> Tensor:
        """Predict the next T frames, (B, T, C, H, W) to the same shape."""
        num_samples, num_frames = x.shape[:2]
        frames = accelerated.fast_layout(x.flatten(0, 1))
        # Only the translator mixes frames. Encoder and decoder process chunks of frames whose maps fit into the cache.
        parts, size = [frames], None
        if accelerated.is_enabled() and not accelerated.is_traced():
            size = accelerated.chunk_size(frames, self.spatial_dims)
            parts = frames.split(size)
        encoded = [self.enc(part) for part in parts]
        maps = torch.cat([part for part, _ in encoded])
        stacked = maps.reshape(num_samples, num_frames * maps.shape[1], *maps.shape[2:])  # (B, T * D, h, w)
        maps = accelerated.fast_layout(self.hid(accelerated.fast_layout(stacked)).reshape(maps.shape))
        skips = [skip for _, skip in encoded]
        parts = maps.split(size) if size else [maps]
        frames = torch.cat([self.dec(*pair) for pair in zip(parts, skips, strict=True)])
        return frames.unflatten(0, (num_samples, num_frames)).contiguous()
