"""The block as formulas from the paper applied to its modules: the oracle for both of its forms."""

import torch
import torch.nn.functional as F


def channel_aggregation(mlp, x):
    """``mlp`` is channel aggregation, squeeze and excitation, or a plain feed-forward network."""
    h = F.gelu(mlp.dwconv(mlp.fc1(x)))
    if hasattr(mlp, 'decompose'):
        h = h + mlp.sigma.scale * (h - F.gelu(mlp.decompose(h)))
    elif hasattr(mlp, 'squeeze'):
        h = h * torch.sigmoid(mlp.excite(F.relu(mlp.squeeze(h.mean((2, 3), keepdim=True)))))
    return mlp.fc2(h)


def gated_aggregation(attn, x):
    p = attn.proj_1(x)
    if attn.sigma is not None:
        p = p + attn.sigma.scale * (p - p.mean((2, 3), keepdim=True))
    s = F.silu(p)
    value = multi_order(attn.value, s)
    if attn.gate is None:
        return attn.proj_2(F.silu(value)) + x
    gate = attn.gate(s)
    gate, value = F.silu(gate), F.silu(value)
    if attn.attn_force_fp32:
        gate, value = F.silu(gate), F.silu(value)
    return attn.proj_2(gate * value) + x


def multi_order(value, x):
    if not hasattr(value, 'DW_conv1'):
        return value.PW_conv(value.DW_conv0(x))
    low, middle, high = torch.split(value.DW_conv0(x), value.split_dims, dim=1)
    return value.PW_conv(torch.cat([low, value.DW_conv1(middle), value.DW_conv2(high)], dim=1))


def moga_block(block, x):
    x = x + block.drop_path(block.layer_scale_1 * gated_aggregation(block.attn, block.norm1(x)))
    return x + block.drop_path(block.layer_scale_2 * channel_aggregation(block.mlp, block.norm2(x)))


def assert_same_function_and_gradients(function, formula, module, x):
    """Outputs and the gradients of the input and every parameter agree to 1e-5 of their magnitude."""
    upstream = torch.randn_like(function(module, x))
    results = []
    for run in (function, formula):
        module.zero_grad()
        x_leaf = x.clone().requires_grad_()
        out = run(module, x_leaf)
        out.backward(upstream)
        results.append([out.detach(), x_leaf.grad, *(p.grad.clone() for p in module.parameters())])
    names = ['output', 'input', *(name for name, _ in module.named_parameters())]
    for name, ours, theirs in zip(names, *results, strict=True):
        error = (ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)
        assert error <= 1e-5, f'{name}: {error:.1e}'
