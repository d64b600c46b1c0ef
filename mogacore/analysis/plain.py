"""The network as the paper writes it, step by step: what the fast one is held against, in tests and benchmarks.

Each function runs the written-out formula on the parameters of the module that it is given.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mogacore.models.layers import (
    ChannelAggregationFFN,
    FeedForward,
    MogaBlock,
    MultiOrderDWConv,
    MultiOrderGatedAggregation,
    SingleOrderDWConv,
    SqueezeExcitationFFN,
)
from mogacore.models.moganet import MogaNet
from mogacore.models.simvp import SimVP


def plain_channel_aggregation(mlp: FeedForward, x: Tensor) -> Tensor:
    h = F.gelu(mlp.dwconv(mlp.fc1(x)))
    if isinstance(mlp, ChannelAggregationFFN):
        h = h + mlp.sigma.scale * (h - F.gelu(mlp.decompose(h)))
    elif isinstance(mlp, SqueezeExcitationFFN):
        h = h * torch.sigmoid(mlp.excite(F.relu(mlp.squeeze(h.mean((2, 3), keepdim=True)))))
    return mlp.fc2(h)


def plain_gated_aggregation(attn: MultiOrderGatedAggregation, x: Tensor) -> Tensor:
    p = attn.proj_1(x)
    if attn.sigma is not None:
        p = p + attn.sigma.scale * (p - p.mean((2, 3), keepdim=True))
    s = F.silu(p)
    value = plain_multi_order(attn.value, s)
    if attn.gate is None:
        return attn.proj_2(F.silu(value)) + x
    gate = attn.gate(s)
    gate, value = F.silu(gate), F.silu(value)
    if attn.attn_force_fp32:
        gate, value = F.silu(gate), F.silu(value)
    return attn.proj_2(gate * value) + x


def plain_multi_order(value: MultiOrderDWConv | SingleOrderDWConv, x: Tensor) -> Tensor:
    if isinstance(value, SingleOrderDWConv):
        return value.PW_conv(value.DW_conv0(x))
    low, middle, high = torch.split(value.DW_conv0(x), value.split_dims, dim=1)
    return value.PW_conv(torch.cat([low, value.DW_conv1(middle), value.DW_conv2(high)], dim=1))


def plain_block(block: MogaBlock, x: Tensor) -> Tensor:
    x = x + block.drop_path(block.layer_scale_1 * plain_gated_aggregation(block.attn, block.norm1(x)))
    return x + block.drop_path(block.layer_scale_2 * plain_channel_aggregation(block.mlp, block.norm2(x)))


class PlainMogaNet(nn.Module):
    """A MogaNet or classifier that computes as the published code does: contiguous maps, the blocks above.

    Args:
        network: The fast network; its parameters are shared.
    """

    def __init__(self, network: MogaNet):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What ``network`` gives for images (B, in_channels, H, W)."""
        outs = []
        for i in range(1, self.network.num_stages + 1):
            x = getattr(self.network, f'patch_embed{i}')(x)
            for block in getattr(self.network, f'blocks{i}'):
                x = plain_block(block, x)
            x = getattr(self.network, f'norm{i}')(x)
            if i - 1 in self.network.out_indices:
                outs.append(x)
        return self.network.head(outs[-1].mean((2, 3))) if hasattr(self.network, 'head') else tuple(outs)


class PlainSimVP(nn.Module):
    """A SimVP of Moga blocks that computes as the published code does: contiguous maps, the blocks above.

    Args:
        network: The fast network; its parameters are shared.
    """

    def __init__(self, network: SimVP):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Frames (B, T, C, H, W) to the T that follow."""
        num_samples, num_frames = x.shape[:2]
        maps, skip = self.network.enc(x.flatten(0, 1))
        stacked = maps.reshape(num_samples, -1, *maps.shape[2:])  # (B, T * D, h, w)
        for stage in self.network.hid.enc:
            stacked = stage.reduction(plain_block(stage.block, stacked))
        return self.network.dec(stacked.reshape(maps.shape), skip).unflatten(0, (num_samples, num_frames))


def plain(network: nn.Module) -> nn.Module:
    """The written-out form of a MogaNet, classifier or SimVP; its parameters are shared."""
    return (PlainSimVP if isinstance(network, SimVP) else PlainMogaNet)(network)
