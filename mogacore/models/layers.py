"""The Moga block and its parts, smallest first.

Source: Li et al., MogaNet, ICLR 2024 (arXiv 2211.03295), section 4; parameter names follow the published code, so its
weights load without a key map.

Two steps are computed in an equal but cheaper form, which reads and writes fewer full-size tensors (sigma and the
layer scales are per-channel vectors, W is a 1x1 convolution):

* feature decomposition: ``p + sigma * (p - mean(p))`` with ``p = W u + b`` is
  ``(1 + sigma) W u + b - sigma W mean(u)``: one convolution and one vector per image;
* channel aggregation: ``W (h + sigma * (h - a)) + b`` with ``a`` one channel wide is
  ``(W diag(1 + sigma)) h + b - (W sigma) a``: the hidden tensor, 4 to 8 times wider than the block, is read once.

Layer scales act on the weights of the last convolution of their branch instead of on its map. Outside of compilers the
steps run by functions.py, which moves and keeps less memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .functions import ChannelAggregation, DepthwiseConv, GateAndContext, GatedProjection, depthwise_conv, is_traced

NORM_LAYERS = {'BN': nn.BatchNorm2d, 'BN2d': nn.BatchNorm2d, 'SyncBN': nn.SyncBatchNorm, 'GN': nn.GroupNorm}


def build_norm(num_channels: int, norm_cfg: dict | None = None) -> nn.Module:
    """Normalisation layer over the channels of a map.

    Args:
        num_channels: Channels C of the (B, C, H, W) map.
        norm_cfg: ``dict(type='BN' | 'SyncBN' | 'GN', **arguments)``; ``requires_grad=False`` stops the gradients of
            its parameters. None is BN, as published.

    Raises:
        ValueError: If the type is none of these.
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


def cast_as_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the type in which autocast, if it is on, would run a convolution of them."""
    device = tensors[0].device.type
    if device == 'meta' or not torch.is_autocast_enabled(device):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors)


def without_autocast(device_type: str) -> AbstractContextManager:
    """Inside, autocast is off; the meta device knows none."""
    return nullcontext() if device_type == 'meta' else torch.autocast(device_type, enabled=False)


class DropPath(nn.Module):
    """Stochastic depth: in training each sample is zeroed with probability ``drop_prob``, survivors are rescaled.

    Source: Huang et al., arXiv 1603.09382.
    """

    def __init__(self, drop_prob: float = 0.0):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0.0:
            return x
        keep_prob = 1.0 - self.drop_prob
        keep = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep_prob)
        return x * keep.div_(keep_prob)

    def extra_repr(self) -> str:
        return f'drop_prob={self.drop_prob:.3f}'


class ElementScale(nn.Module):
    """Holds a learnt factor per channel, ``scale`` of shape (1, C, 1, 1): the sigma of the paper's equations."""

    def __init__(self, embed_dims: int, init_value: float = 0.0):
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, embed_dims, 1, 1), init_value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class FeedForward(nn.Module):
    """Feed-forward network with a depth-wise convolution between its two 1x1 ones: ``fc2(GELU(dwconv(fc1(x))))``.

    Args:
        embed_dims: Channels C of input and output.
        feedforward_channels: Hidden channels H.
        kernel_size: Kernel of the depth-wise convolution.
        ffn_drop: Dropout rate after the activation and at the end.
    """

    def __init__(self, embed_dims: int, feedforward_channels: int, kernel_size: int = 3, ffn_drop: float = 0.0):
        super().__init__()
        self.fc1 = nn.Conv2d(embed_dims, feedforward_channels, 1)
        self.dwconv = nn.Conv2d(
            feedforward_channels,
            feedforward_channels,
            kernel_size,
            padding=kernel_size // 2,
            groups=feedforward_channels,
        )
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(feedforward_channels, embed_dims, 1)
        self.drop = nn.Dropout(ffn_drop)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """(B, C, H, W) to the same shape, times ``scale`` (1, C, 1, 1) if given."""
        out = self.drop(self.fc2(self.hidden(x)))
        return out if scale is None else out * scale

    def hidden(self, x: Tensor) -> Tensor:
        """The hidden map (B, H, height, width) that ``fc2`` reads."""
        return self.drop(self.act(self.dwconv(self.fc1(x))))


class SqueezeExcitationFFN(FeedForward):
    """Feed-forward network whose hidden channels are weighted by squeeze and excitation (Hu et al., arXiv 1709.01507).

    How wide the squeeze of the paper's ablation is was not published with its code; here it is C / 32, nearly as
    narrow as the one channel of channel aggregation.
    """

    def __init__(self, embed_dims: int, feedforward_channels: int, kernel_size: int = 3, ffn_drop: float = 0.0):
        super().__init__(embed_dims, feedforward_channels, kernel_size, ffn_drop)
        squeezed = max(embed_dims // 32, 1)
        self.squeeze = nn.Conv2d(feedforward_channels, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, feedforward_channels, 1)

    def hidden(self, x: Tensor) -> Tensor:
        h = super().hidden(x)
        weights = self.excite(F.relu(self.squeeze(h.mean((2, 3), keepdim=True))))
        return h * weights.sigmoid()


class ChannelAggregationFFN(FeedForward):
    """Feed-forward network with channel aggregation (paper section 4.3).

    ``h = GELU(dwconv(fc1(x)))``, then ``fc2(h + sigma * (h - GELU(decompose(h))))``. Arguments as of
    :class:`FeedForward`.
    """

    def __init__(self, embed_dims: int, feedforward_channels: int, kernel_size: int = 3, ffn_drop: float = 0.0):
        super().__init__(embed_dims, feedforward_channels, kernel_size, ffn_drop)
        self.decompose = nn.Conv2d(feedforward_channels, 1, 1)
        self.sigma = ElementScale(feedforward_channels, init_value=1e-5)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """(B, C, H, W) to the same shape, times ``scale`` (1, C, 1, 1) if given."""
        sigma, weight, bias = self.sigma.scale, self.fc2.weight, self.fc2.bias
        if scale is not None:
            weight, bias = weight * scale.view(-1, 1, 1, 1), bias * scale.flatten()
        common_weight = (weight * sigma).sum(1).view(1, -1, 1, 1)
        weight = weight * (1 + sigma)
        if is_traced() or (self.training and self.drop.p > 0):
            h = self.hidden(x)
            common = self.act(self.decompose(h))  # (B, 1, H, W)
            out = F.conv2d(h, weight, bias)
            return self.drop(torch.addcmul(out, common, common_weight.to(out.dtype), value=-1))
        parameters = [p for layer in (self.fc1, self.dwconv) for p in (layer.weight, layer.bias)]
        parameters += [weight, bias, self.decompose.weight, self.decompose.bias, common_weight]
        return ChannelAggregation.apply(*cast_as_autocast(x, *parameters))


class MultiOrderDWConv(nn.Module):
    """Depth-wise convolutions of three orders of context on three shares of the channels, mixed by a 1x1 convolution.

    Source: paper section 4.2, equation 4.

    Args:
        embed_dims: Channels C, a multiple of ``sum(channel_split)``.
        dw_dilation: Dilations of the 5x5, 5x5 and 7x7 kernels.
        channel_split: Shares of the low, middle and high order.

    Raises:
        ValueError: If C cannot be split so.
    """

    def __init__(
        self, embed_dims: int, dw_dilation: Sequence[int] = (1, 2, 3), channel_split: Sequence[int] = (1, 3, 4)
    ):
        super().__init__()
        if len(dw_dilation) != 3 or len(channel_split) != 3:
            raise ValueError(
                f'dw_dilation {tuple(dw_dilation)} and channel_split {tuple(channel_split)} need three numbers each'
            )
        if embed_dims % sum(channel_split):
            raise ValueError(
                f'width {embed_dims} cannot be split {":".join(map(str, channel_split))}: '
                f'choose a multiple of {sum(channel_split)}'
            )
        middle, high = (embed_dims * share // sum(channel_split) for share in channel_split[1:])
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
        return self.mix(self._context(self.DW_conv0, x))

    def mix(self, context: Tensor) -> Tensor:
        """What follows on the first depth-wise convolution, (B, C, H, W)."""
        low, middle, high = context.split(self.split_dims, dim=1)
        orders = (low, self._context(self.DW_conv1, middle), self._context(self.DW_conv2, high))
        return self.PW_conv(torch.cat(orders, dim=1))

    @staticmethod
    def _context(conv: nn.Conv2d, x: Tensor) -> Tensor:
        if is_traced():
            return depthwise_conv(x, conv.weight, conv.bias, conv.dilation[0])
        return DepthwiseConv.apply(*cast_as_autocast(x, conv.weight, conv.bias), conv.dilation[0])


class SingleOrderDWConv(nn.Module):
    """One depth-wise convolution on all channels, mixed by a 1x1 convolution: what the multi-order one is ablated to.

    Args:
        embed_dims: Channels C.
        kernel_size: Its kernel.
    """

    def __init__(self, embed_dims: int, kernel_size: int):
        super().__init__()
        self.DW_conv0 = nn.Conv2d(embed_dims, embed_dims, kernel_size, padding=kernel_size // 2, groups=embed_dims)
        self.PW_conv = nn.Conv2d(embed_dims, embed_dims, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.DW_conv0(x))

    def mix(self, context: Tensor) -> Tensor:
        """What follows on the depth-wise convolution, (B, C, H, W)."""
        return self.PW_conv(context)


# What attn_context and ffn_mixer may be; the first is the published network, the others are ablations of it.
CONTEXTS = {'multi-order': None, '5x5': 5, '7x7': 7}
FFN_MIXERS = {'ca': ChannelAggregationFFN, 'se': SqueezeExcitationFFN, 'plain': FeedForward}


class MultiOrderGatedAggregation(nn.Module):
    """Spatial aggregation: feature decomposition, then multi-order context behind a gate (paper section 4.2).

    ``proj_2(SiLU(gate(s)) * SiLU(value(s))) + x`` with ``s = SiLU(p + sigma * (p - mean(p)))``, ``p = proj_1(x)``.

    Args:
        embed_dims: Channels C of input and output.
        dw_dilation: See :class:`MultiOrderDWConv`.
        channel_split: See :class:`MultiOrderDWConv`.
        attn_force_fp32: The published option of this name. It is **another function**, not a precision switch: gate
            and value pass SiLU twice, in fp32. Weights must be run with the function they were trained with.
        gate_fp32: Compute the gate product and ``proj_2`` in fp32 under autocast, the function unchanged: the product
            is the one place of the block where fp16 can overflow.
        use_gate: False leaves the gate out, an ablation: ``proj_2(SiLU(value(s))) + x``.
        context: Depth-wise convolution of the value: 'multi-order', or for ablations '5x5' or '7x7'.
        use_decompose: False leaves the feature decomposition out, an ablation: ``s = SiLU(p)``.
    """

    def __init__(
        self,
        embed_dims: int,
        dw_dilation: Sequence[int] = (1, 2, 3),
        channel_split: Sequence[int] = (1, 3, 4),
        attn_force_fp32: bool = False,
        gate_fp32: bool = False,
        use_gate: bool = True,
        context: str = 'multi-order',
        use_decompose: bool = True,
    ):
        super().__init__()
        self.attn_force_fp32 = attn_force_fp32
        self.gate_fp32 = gate_fp32
        self.proj_1 = nn.Conv2d(embed_dims, embed_dims, 1)
        self.gate = nn.Conv2d(embed_dims, embed_dims, 1) if use_gate else None
        kernel_size = CONTEXTS[context]
        if kernel_size is None:
            self.value = MultiOrderDWConv(embed_dims, dw_dilation, channel_split)
        else:
            self.value = SingleOrderDWConv(embed_dims, kernel_size)
        self.proj_2 = nn.Conv2d(embed_dims, embed_dims, 1)
        self.sigma = ElementScale(embed_dims, init_value=1e-5) if use_decompose else None

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x) + x

    def branch(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """What is added to ``x``, (B, C, H, W), times ``scale`` (1, C, 1, 1) if given."""
        p = self.proj_1(x) if self.sigma is None else self.decompose(x)
        if self.gate is None:
            out = self.proj_2(F.silu(self.value(F.silu(p))))
            return out if scale is None else out * scale
        first = self.value.DW_conv0
        if is_traced():
            s = F.silu(p)
            gate, context = self.gate(s), first(s)
        else:
            weights = (self.gate.weight, self.gate.bias, first.weight, first.bias)
            gate, context = GateAndContext.apply(*cast_as_autocast(p, *weights), first.dilation[0])
        return self.aggregate(gate, self.value.mix(context), scale)

    def decompose(self, x: Tensor) -> Tensor:
        """``proj_1`` with its spatially constant part re-weighted, re-associated as in the module docstring."""
        sigma, weight = self.sigma.scale, self.proj_1.weight
        scale = sigma.view(-1, 1, 1, 1)  # acts on the output channels
        mean = F.conv2d(x.mean((2, 3), keepdim=True), weight * scale)  # (B, C, 1, 1)
        return F.conv2d(x, weight * (1 + scale), self.proj_1.bias) - mean

    def aggregate(self, gate: Tensor, value: Tensor, scale: Tensor | None = None) -> Tensor:
        """``proj_2`` of the gated context; both maps (B, C, H, W), before their activation."""
        weight, bias = self.proj_2.weight, self.proj_2.bias
        if scale is not None:
            weight, bias = weight * scale.view(-1, 1, 1, 1), bias * scale.flatten()
        if self.attn_force_fp32 or self.gate_fp32:
            if self.attn_force_fp32:
                gate, value = F.silu(gate), F.silu(value)
            with without_autocast(gate.device.type):
                gated = F.silu(gate.float()) * F.silu(value.float())
                return F.conv2d(gated.to(weight.dtype), weight, bias)
        if is_traced():
            return F.conv2d(F.silu(gate) * F.silu(value), weight, bias)
        return GatedProjection.apply(*cast_as_autocast(gate, value, weight, bias))


class MogaBlock(nn.Module):
    """Spatial aggregation and channel aggregation, each on a residual branch with layer scale and drop path.

    ``x + ls_1 * attn(norm1(x))``, then ``x + ls_2 * mlp(norm2(x))``; (B, C, H, W) to the same shape.

    Args:
        embed_dims: Channels C.
        ffn_ratio: Hidden channels of the feed-forward network over C.
        drop_rate: Dropout rate in the feed-forward network.
        drop_path_rate: Probability of dropping each branch of a sample in training.
        layer_scale_init: Initial value of both layer scales.
        norm_cfg: See :func:`build_norm`.
        attn_dw_dilation: See :class:`MultiOrderDWConv`.
        attn_channel_split: See :class:`MultiOrderDWConv`.
        attn_force_fp32: See :class:`MultiOrderGatedAggregation`.
        gate_fp32: See :class:`MultiOrderGatedAggregation`.
        attn_gate: Its ``use_gate``.
        attn_context: Its ``context``.
        attn_decompose: Its ``use_decompose``.
        ffn_mixer: Feed-forward network: 'ca' (channel aggregation), or for ablations 'se' or 'plain'.
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
        attn_gate: bool = True,
        attn_context: str = 'multi-order',
        attn_decompose: bool = True,
        ffn_mixer: str = 'ca',
    ):
        super().__init__()
        self.norm1 = build_norm(embed_dims, norm_cfg)
        self.attn = MultiOrderGatedAggregation(
            embed_dims,
            attn_dw_dilation,
            attn_channel_split,
            attn_force_fp32,
            gate_fp32,
            attn_gate,
            attn_context,
            attn_decompose,
        )
        self.norm2 = build_norm(embed_dims, norm_cfg)
        self.mlp = FFN_MIXERS[ffn_mixer](embed_dims, int(embed_dims * ffn_ratio), ffn_drop=drop_rate)
        self.drop_path = DropPath(drop_path_rate)
        self.layer_scale_1 = nn.Parameter(torch.full((1, embed_dims, 1, 1), layer_scale_init))
        self.layer_scale_2 = nn.Parameter(torch.full((1, embed_dims, 1, 1), layer_scale_init))

    def forward(self, x: Tensor) -> Tensor:
        u = self.norm1(x)
        keep, scale, unit = self._scales(x, self.layer_scale_1)
        # The short cut inside the branch adds the normed map.
        x = torch.addcmul(x, u.to(x.dtype), keep * self.layer_scale_1.to(x.dtype))
        x = torch.addcmul(x, self.attn.branch(u, scale).to(x.dtype), keep * unit)
        keep, scale, unit = self._scales(x, self.layer_scale_2)
        return torch.addcmul(x, self.mlp(self.norm2(x), scale).to(x.dtype), keep * unit)

    def _scales(self, x: Tensor, layer_scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Drop path's factor of each sample (B or 1, 1, 1, 1), and the layer scale as the product of two.

        The branch's weights take the layer scale over its largest value, and its map that value: small as layer scales
        begin, fp16 weights would lose them.
        """
        unit = layer_scale.detach().abs().amax().clamp(min=torch.finfo(layer_scale.dtype).tiny).to(x.dtype)
        is_dropping = self.training and self.drop_path.drop_prob > 0
        keep = self.drop_path(x.new_ones(x.shape[0] if is_dropping else 1, 1, 1, 1))
        return keep, layer_scale / unit, unit


class StemPatchEmbed(nn.Module):
    """First patch embedding: two 3x3 convolutions with a norm each and GELU between them.

    Args:
        in_channels: Channels of the image.
        embed_dims: Channels of stage 1; the first convolution has half of them.
        strides: Strides of the two convolutions: (2, 2) divides height and width by 4; (1, 1) suits images of 32 px.
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


class FrozenRunningStats:
    """Inside, BatchNorm layers of ``module`` normalise as before but leave their running statistics alone.

    Recomputing a checkpointed block must not count its batch twice.
    """

    def __init__(self, module: nn.Module):
        self.norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def __enter__(self):
        self.saved = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in self.norms]
        for norm in self.norms:
            norm.momentum = 0.0

    def __exit__(self, *exc):
        for norm, (momentum, num_batches) in zip(self.norms, self.saved, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(num_batches)
