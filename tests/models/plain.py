"""The Moga block as the paper writes it, step by step: what the fast block is held against.

Each function takes a block of mogacore and runs the written-out formula on that block's parameters.
"""

import torch
import torch.nn.functional as F


def plain_channel_aggregation(mlp, x):
    h = F.gelu(mlp.dwconv(mlp.fc1(x)))
    h = h + mlp.sigma.scale * (h - F.gelu(mlp.decompose(h)))
    return mlp.fc2(h)


def plain_gated_aggregation(attn, x):
    p = attn.proj_1(x)
    p = p + attn.sigma.scale * (p - p.mean((2, 3), keepdim=True))
    s = F.silu(p)
    gate, value = attn.gate(s), plain_multi_order(attn.value, s)
    gate, value = F.silu(gate), F.silu(value)
    if attn.attn_force_fp32:
        gate, value = F.silu(gate), F.silu(value)
    return attn.proj_2(gate * value) + x


def plain_multi_order(value, x):
    low, middle, high = torch.split(value.DW_conv0(x), value.split_dims, dim=1)
    return value.PW_conv(torch.cat([low, value.DW_conv1(middle), value.DW_conv2(high)], dim=1))


def plain_block(block, x):
    x = x + block.layer_scale_1 * plain_gated_aggregation(block.attn, block.norm1(x))
    return x + block.layer_scale_2 * plain_channel_aggregation(block.mlp, block.norm2(x))
