"""The Moga block as defined in the paper (Li et al., ICLR 2024, arXiv 2211.03295, section 4), from parts to whole.

Attribute names are those of the published weights. Every module calls its children, so hooks, LoRA, pruning and
quantization work. An unmodified block normally runs in an equivalent form with less memory traffic (accelerated.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

NORM_LAYERS = {'BN': nn.BatchNorm2d, 'BN2d': nn.BatchNorm2d, 'SyncBN': nn.SyncBatchNorm, 'GN': nn.GroupNorm}


def build_norm(num_channels: int, norm_cfg: dict | None = None) -> nn.Module:
    """Normalization layer for a (B, C, H, W) map.

    Args:
        num_channels: Channels C.
        norm_cfg: ``dict(type='BN' | 'SyncBN' | 'GN', **arguments)``; ``requires_grad=False`` freezes its parameters.
            None for BN, as published.

    Raises:
        ValueError: If the type is unknown.
    """
    norm_cfg = dict(norm_cfg or {'type': 'BN'})
    norm_type = norm_cfg.pop('type', 'BN')
    requires_grad = norm_cfg.pop('requires_grad', True)
    if norm_type not in NORM_LAYERS:
        raise ValueError(f'norm_cfg type {norm_type!r} is unknown: choose from {", ".join(NORM_LAYERS)}')
    if norm_type == 'GN':
        norm = nn.GroupNorm(num_channels=num_channels, **{'num_groups': 1, **norm_cfg})
    else:
        norm = NORM_LAYERS[norm_type](num_channels, **norm_cfg)
    return norm.requires_grad_(requires_grad)


def autocast_off(device_type: str) -> AbstractContextManager:
    """Context that disables autocast; the meta device does not support autocast."""
    return nullcontext() if device_type == 'meta' else torch.autocast(device_type, enabled=False)


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): zero samples with ``drop_prob``, divide the others by ``1 - drop_prob``."""

    def __init__(self, drop_prob: float = 0.0):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0.0:
            return x
        keep_prob = 1.0 - self.drop_prob
        return x * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(keep_prob).div_(keep_prob)

    def extra_repr(self) -> str:
        return f'drop_prob={self.drop_prob:.3f}'


class ElementScale(nn.Module):
    """Learned scale per channel: sigma in the equations of the paper."""

    def __init__(self, embed_dims: int, init_value: float = 0.0):
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, embed_dims, 1, 1), init_value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class FeedForward(nn.Module):
    """Feed-forward network with a depth-wise convolution: ``fc2(GELU(dwconv(fc1(x))))``.

    Args:
        embed_dims: Channels C of input and output.
        feedforward_channels: Hidden channels.
        kernel_size: Kernel of the depth-wise convolution.
        ffn_drop: Dropout rate after the activation and after the last convolution.
    """

    def __init__(self, embed_dims: int, feedforward_channels: int, kernel_size: int = 3, ffn_drop: float = 0.0):
        super().__init__()
        hidden = feedforward_channels
        self.fc1 = nn.Conv2d(embed_dims, hidden, 1)
        self.dwconv = nn.Conv2d(hidden, hidden, kernel_size, padding=kernel_size // 2, groups=hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden, embed_dims, 1)
        self.drop = nn.Dropout(ffn_drop)

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.act(self.dwconv(self.fc1(x))))
        return self.drop(self.fc2(self.mix(h)))

    def mix(self, h: Tensor) -> Tensor:
        """Mix the channels of the hidden map; the identity here."""
        return h


class ChannelAggregationFFN(FeedForward):
    """Feed-forward network with channel aggregation (paper section 4.3): ``h + sigma * (h - GELU(decompose(h)))``."""

    def __init__(self, embed_dims: int, feedforward_channels: int, kernel_size: int = 3, ffn_drop: float = 0.0):
        super().__init__(embed_dims, feedforward_channels, kernel_size, ffn_drop)
        self.decompose = nn.Conv2d(feedforward_channels, 1, 1)
        self.sigma = ElementScale(feedforward_channels, init_value=1e-5)

    def mix(self, h: Tensor) -> Tensor:
        return h + self.sigma(h - self.act(self.decompose(h)))


class MultiOrderDWConv(nn.Module):
    """Depth-wise convolutions of low, middle and high order on three groups of channels (paper section 4.2, eq. 4).

    Args:
        embed_dims: Channels C, a multiple of ``sum(channel_split)``.
        dw_dilation: Dilations of the 5x5, 5x5 and 7x7 kernels.
        channel_split: Relative sizes of the three groups.

    Raises:
        ValueError: If C cannot be split, or an argument does not have three numbers.
    """

    def __init__(
        self, embed_dims: int, dw_dilation: Sequence[int] = (1, 2, 3), channel_split: Sequence[int] = (1, 3, 4)
    ):
        super().__init__()
        total = sum(channel_split)
        if len(dw_dilation) != 3 or len(channel_split) != 3:
            raise ValueError(f'dw_dilation {dw_dilation} and channel_split {channel_split} must have 3 numbers each')
        if embed_dims % total:
            split = ':'.join(map(str, channel_split))
            raise ValueError(f'width {embed_dims} cannot be split {split}: choose a multiple of {total}')
        middle, high = (embed_dims * part // total for part in channel_split[1:])
        self.split_dims = (embed_dims - middle - high, middle, high)
        self.DW_conv0 = self._dw_conv(embed_dims, 5, dw_dilation[0])
        self.DW_conv1 = self._dw_conv(middle, 5, dw_dilation[1])
        self.DW_conv2 = self._dw_conv(high, 7, dw_dilation[2])
        self.PW_conv = nn.Conv2d(embed_dims, embed_dims, 1)

    @staticmethod
    def _dw_conv(channels: int, kernel_size: int, dilation: int) -> nn.Conv2d:
        padding = dilation * (kernel_size // 2)
        return nn.Conv2d(channels, channels, kernel_size, padding=padding, dilation=dilation, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        low, middle, high = self.DW_conv0(x).split(self.split_dims, dim=1)
        return self.PW_conv(torch.cat([low, self.DW_conv1(middle), self.DW_conv2(high)], dim=1))


class MultiOrderGatedAggregation(nn.Module):
    """Spatial aggregation (paper section 4.2): feature decomposition, then gated multi-order context.

    ``proj_2(SiLU(gate(s)) * SiLU(value(s))) + x`` with ``s = SiLU(p + sigma * (p - mean(p)))``, ``p = proj_1(x)``.

    Args:
        embed_dims: Channels C of input and output.
        dw_dilation: See :class:`MultiOrderDWConv`.
        channel_split: See :class:`MultiOrderDWConv`.
        attn_force_fp32: Published option that changes the **function**: SiLU is applied twice to gate and value, in
            fp32. Use the setting that the weights were trained with.
        gate_fp32: Compute gate times value, the only product that can overflow in fp16, and ``proj_2`` in fp32.
    """

    def __init__(
        self,
        embed_dims: int,
        dw_dilation: Sequence[int] = (1, 2, 3),
        channel_split: Sequence[int] = (1, 3, 4),
        attn_force_fp32: bool = False,
        gate_fp32: bool = False,
    ):
        super().__init__()
        self.attn_force_fp32 = attn_force_fp32
        self.gate_fp32 = gate_fp32
        self.proj_1 = nn.Conv2d(embed_dims, embed_dims, 1)
        self.gate = nn.Conv2d(embed_dims, embed_dims, 1)
        self.value = MultiOrderDWConv(embed_dims, dw_dilation, channel_split)
        self.proj_2 = nn.Conv2d(embed_dims, embed_dims, 1)
        self.sigma = ElementScale(embed_dims, init_value=1e-5)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        s = self.act(self.decompose(self.proj_1(x)))
        return self.aggregate(self.gate(s), self.value(s)) + x

    def decompose(self, p: Tensor) -> Tensor:
        """Feature decomposition: reweight the difference from the spatial mean."""
        return p + self.sigma(p - p.mean((2, 3), keepdim=True))

    def aggregate(self, gate: Tensor, value: Tensor) -> Tensor:
        """Project the gated context; ``gate`` and ``value`` (B, C, H, W) are before activation."""
        if self.attn_force_fp32:
            gate, value = self.act(gate), self.act(value)
        if self.attn_force_fp32 or self.gate_fp32:
            with autocast_off(gate.device.type):
                gated = self.act(gate.float()) * self.act(value.float())
                return self.proj_2(gated.to(self.proj_2.weight.dtype))
        return self.proj_2(self.act(gate) * self.act(value))


class MogaBlock(nn.Module):
    """Spatial aggregation and channel aggregation as residual branches; (B, C, H, W) to the same shape.

    Args:
        embed_dims: Channels C.
        ffn_ratio: Hidden channels of the feed-forward network divided by C.
        drop_rate: Dropout rate in the feed-forward network.
        drop_path_rate: Probability of dropping a branch, per sample, in training.
        layer_scale_init: Initial value of both layer scales.
        norm_cfg: See :func:`build_norm`.
        attn_dw_dilation, attn_channel_split: See :class:`MultiOrderDWConv`.
        attn_force_fp32, gate_fp32: See :class:`MultiOrderGatedAggregation`.
    """

    def __init__(
        self,
        embed_dims: int,
        ffn_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale_init: float = 1e-5,
        norm_cfg: dict | None = None,
        attn_dw_dilation: Sequence[int] = (1, 2, 3),
        attn_channel_split: Sequence[int] = (1, 3, 4),
        attn_force_fp32: bool = False,
        gate_fp32: bool = False,
    ):
        super().__init__()
        self.norm1 = build_norm(embed_dims, norm_cfg)
        options = (attn_dw_dilation, attn_channel_split, attn_force_fp32, gate_fp32)
        self.attn = MultiOrderGatedAggregation(embed_dims, *options)
        self.norm2 = build_norm(embed_dims, norm_cfg)
        self.mlp = ChannelAggregationFFN(embed_dims, int(embed_dims * ffn_ratio), ffn_drop=drop_rate)
        self.drop_path = DropPath(drop_path_rate)
        self.layer_scale_1 = nn.Parameter(torch.full((1, embed_dims, 1, 1), layer_scale_init))
        self.layer_scale_2 = nn.Parameter(torch.full((1, embed_dims, 1, 1), layer_scale_init))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.layer_scale_1 * self.attn(self.norm1(x)))
        return x + self.drop_path(self.layer_scale_2 * self.mlp(self.norm2(x)))


class StemPatchEmbed(nn.Module):
    """First patch embedding: two 3x3 convolutions, each followed by a norm, with GELU in between.

    Args:
        in_channels: Channels of the image.
        embed_dims: Channels of stage 1; the first convolution has half as many.
        strides: Strides of the two convolutions: (2, 2) divides height and width by 4; (1, 1) is for 32 px images.
        norm_cfg: See :func:`build_norm`.
    """

    def __init__(
        self, in_channels: int, embed_dims: int, strides: Sequence[int] = (2, 2), norm_cfg: dict | None = None
    ):
        super().__init__()
        self.projection = nn.Sequential(
            nn.Conv2d(in_channels, embed_dims // 2, 3, stride=strides[0], padding=1),
            build_norm(embed_dims // 2, norm_cfg),
            nn.GELU(),
            nn.Conv2d(embed_dims // 2, embed_dims, 3, stride=strides[1], padding=1),
            build_norm(embed_dims, norm_cfg),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(x)


class PatchEmbed(nn.Module):
    """Patch embedding between stages: a 3x3 convolution of stride 2 and a norm; odd sizes round up."""

    def __init__(self, in_channels: int, embed_dims: int, norm_cfg: dict | None = None):
        super().__init__()
        self.projection = nn.Conv2d(in_channels, embed_dims, 3, stride=2, padding=1)
        self.norm = build_norm(embed_dims, norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.projection(x))
