"""The Moga block of layers.py with less memory traffic: same function, same parameters.

Two steps are reassociated so that they read and write fewer full-size maps (sigma and the layer scales are per-channel
vectors, W is a 1x1 convolution):

* feature decomposition: ``p + sigma * (p - mean(p))`` with ``p = W u + b`` equals
  ``(1 + sigma) W u + b - sigma W mean(u)``: one convolution and one vector per image;
* channel aggregation: ``W (h + sigma * (h - a)) + b`` with ``a`` one channel wide equals
  ``(W diag(1 + sigma)) h + b - (W sigma) a``: the hidden map, 4 to 8 times wider than the block, is read once.

In training, layer scales multiply the weights of the last convolution of their branch, and hand-written backward passes
recompute activations instead of storing them. Without gradients, activation functions work in place. On a CPU, the
hidden map is processed in chunks of images that fit into its cache.

:func:`select` only chooses this form for a block that is exactly as its constructor built it, similar to the fast path
of ``torch.nn.TransformerEncoderLayer``. :func:`disabled` and the environment variable ``MOGACORE_ACCELERATED=0`` turn
it off. Gradients are exact; second derivatives require it to be off.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.function import Function
from torch.fx import _symbolic_trace

from mogacore.errors import UserError

from .convolutions import (
    activated_conv,
    depthwise_conv,
    depthwise_conv_backward,
    is_exported,
    is_traced,
    pointwise_conv,
)
from .layers import ChannelAggregationFFN, MogaBlock, MultiOrderDWConv, MultiOrderGatedAggregation, autocast_off
from .untouched import is_untouched

aten = torch.ops.aten

CACHED_ELEMENTS = 2**21  # of an intermediate map: 8 MiB in fp32, about the last-level cache of a CPU core
SMALLEST_UNIT = 2.0**-14  # of a layer scale, which may be 0; the smallest normal number in fp16

# What turns acceleration off: one entry for the environment variable, one for each active :func:`disabled`. The entries
# hold for all threads: one may run a backward pass or a replica of the model for another.
_disablers = ['environment'] if os.environ.get('MOGACORE_ACCELERATED') == '0' else []


@contextmanager
def disabled() -> Iterator[None]:
    """Context in which every block runs as defined in layers.py, and maps keep the layout of the input."""
    _disablers.append('context')
    try:
        yield
    finally:
        _disablers.pop()


def is_enabled() -> bool:
    """Whether acceleration is on.

    It is off in forward-mode differentiation, in transforms of torch.func (vmap, grad ...), and in torch.fx's symbolic
    tracing, whose graph is that of layers.py.
    """
    if torch.compiler.is_compiling():
        return not _disablers
    return not (
        _disablers
        or _symbolic_trace._is_fx_tracing_flag
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def select(block: nn.Module) -> Callable[[Tensor], Tensor]:
    """The function to run for ``block``: its accelerated form if that computes the same, otherwise the block itself."""
    if is_enabled() and is_untouched(block) and not (block.mlp.drop.training and block.mlp.drop.p > 0):
        return partial(run_block, block)
    return block


def fast_layout(x: Tensor) -> Tensor:
    """``x``, (B, C, H, W), in the fastest layout: channels_last unless acceleration is off."""
    return channels_last(x) if is_enabled() else x


def run_block(block: MogaBlock, x: Tensor) -> Tensor:
    """The accelerated form of an untouched block; (B, C, H, W) to the same shape."""
    if is_traced() and not block.training:
        return _infer_traced(block, x)
    if not (torch.is_grad_enabled() or _is_dropping(block) or is_traced()):
        return _infer_block(block, x)
    u = block.norm1(x)
    keep, scale, unit = _residual_factors(block, x, block.layer_scale_1)
    # The inner skip connection of the branch adds the normalized map.
    x = torch.addcmul(x, u.to(x.dtype), keep * block.layer_scale_1.to(x.dtype))
    x = torch.addcmul(x, _gated_aggregation(block.attn, u, scale).to(x.dtype), keep * unit)
    keep, scale, unit = _residual_factors(block, x, block.layer_scale_2)
    return torch.addcmul(x, _channel_aggregation(block.mlp, block.norm2(x), scale).to(x.dtype), keep * unit)


def _infer_block(block: MogaBlock, x: Tensor) -> Tensor:
    """:func:`run_block` without gradients or drop path: in place, and with scales applied to maps, not to weights.

    ``x`` and the inputs and outputs of the norms are not modified, since hooks on the norms may keep them.
    """
    attn, scale = block.attn, block.layer_scale_1.to(x.dtype)
    u = block.norm1(x)
    p = _pointwise(attn.proj_1, u)
    sigma = attn.sigma.scale.to(p.dtype)
    s = F.silu(torch.addcmul(p.mean((2, 3), keepdim=True) * -sigma, p, 1 + sigma), inplace=True)
    orders = _orders(attn.value, _depthwise(attn.value.DW_conv0, s))
    if attn.attn_force_fp32 or attn.gate_fp32:
        out = attn.aggregate(attn.gate(s), attn.value.PW_conv(orders))
    else:
        gated = _pointwise(attn.gate, s, 'silu').mul_(_pointwise(attn.value.PW_conv, orders, 'silu'))
        out = _pointwise(attn.proj_2, gated)
    x = torch.addcmul(x, out.to(x.dtype), scale).addcmul_(u.to(x.dtype), scale)
    out = _channel_aggregation(block.mlp, block.norm2(x)).to(x.dtype)
    return torch.addcmul(x, out, block.layer_scale_2.to(x.dtype))


def _infer_traced(block: MogaBlock, x: Tensor) -> Tensor:
    """:func:`run_block` in eval mode under torch.compile or export: scales are applied to weights, which these fold."""
    scale = block.layer_scale_1
    u = block.norm1(x)
    skip = x * (1 + scale) if u is x else torch.addcmul(x, u.to(x.dtype), scale.to(x.dtype))
    x = skip + _gated_aggregation(block.attn, u, scale)
    return x + _channel_aggregation(block.mlp, block.norm2(x), block.layer_scale_2)


def _is_dropping(block: MogaBlock) -> bool:
    return block.drop_path.training and block.drop_path.drop_prob > 0


def _residual_factors(block: MogaBlock, x: Tensor, layer_scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Drop path factor per sample (B or 1, 1, 1, 1), and the layer scale as a product of two factors.

    The weights of the branch are multiplied by the layer scale divided by its maximum, and the map by that maximum:
    with the small initial layer scales, fp16 weights would underflow.
    """
    unit = layer_scale.detach().abs().amax().clamp(min=SMALLEST_UNIT).to(x.dtype)
    keep = block.drop_path(x.new_ones(x.shape[0] if _is_dropping(block) else 1, 1, 1, 1))
    return keep, layer_scale / unit, unit


def _parameters(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias; every convolution of an untouched block has both."""
    assert conv.bias is not None
    return conv.weight, conv.bias


def _gated_aggregation(attn: MultiOrderGatedAggregation, x: Tensor, scale: Tensor) -> Tensor:
    """The branch without its skip connection, multiplied by ``scale`` (1, C, 1, 1)."""
    sigma = attn.sigma.scale.view(-1, 1, 1, 1)  # for the output channels
    weight, value = attn.proj_1.weight, attn.value
    mean = F.conv2d(x.mean((2, 3), keepdim=True), weight * -sigma)  # (B, C, 1, 1)
    p = F.conv2d(x, weight * (1 + sigma), attn.proj_1.bias) + mean
    first = value.DW_conv0
    if is_traced():
        s = F.silu(p)
        gate, context = F.conv2d(s, attn.gate.weight, attn.gate.bias), _depthwise(first, s)
    else:
        inputs = cast_as_autocast(p, *_parameters(attn.gate), *_parameters(first))
        gate, context = GateAndContext.apply(*inputs, first.dilation[0])
    return _gated_projection(attn, gate, value.PW_conv(_orders(value, context)), scale)


def _orders(value: MultiOrderDWConv, context: Tensor) -> Tensor:
    """Outputs of the depth-wise convolutions of a multi-order convolution; the first one's, (B, C, H, W), is given."""
    low, middle, high = context.split(value.split_dims, dim=1)
    return torch.cat([low, _depthwise(value.DW_conv1, middle), _depthwise(value.DW_conv2, high)], dim=1)


def _pointwise(conv: nn.Conv2d, x: Tensor, activation: str | None = None) -> Tensor:
    """A 1x1 convolution without gradients, see :func:`pointwise_conv`."""
    x, weight, bias = cast_as_autocast(x, *_parameters(conv))
    return pointwise_conv(x, weight, bias, activation)


def _depthwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    if is_traced():
        return depthwise_conv(x, conv.weight, conv.bias, conv.dilation[0])
    x, weight, bias = cast_as_autocast(x, *_parameters(conv))
    run = DepthwiseConv.apply if torch.is_grad_enabled() else depthwise_conv
    return run(x, weight, bias, conv.dilation[0])


def _gated_projection(attn: MultiOrderGatedAggregation, gate: Tensor, value: Tensor, scale: Tensor) -> Tensor:
    weight, bias = _parameters(attn.proj_2)
    weight, bias = weight * scale.view(-1, 1, 1, 1), bias * scale.flatten()
    if attn.attn_force_fp32:
        gate, value = F.silu(gate), F.silu(value)
    if attn.attn_force_fp32 or attn.gate_fp32:
        with autocast_off(gate.device.type):
            gated = F.silu(gate.float()) * F.silu(value.float())
            return F.conv2d(gated.to(weight.dtype), weight, bias)
    if is_traced():
        return F.conv2d(F.silu(gate) * F.silu(value), weight, bias)
    return GatedProjection.apply(*cast_as_autocast(gate, value, weight, bias))


def _channel_aggregation(mlp: ChannelAggregationFFN, x: Tensor, scale: Tensor | None = None) -> Tensor:
    """The feed-forward network, multiplied by ``scale`` (1, C, 1, 1) if given."""
    sigma = mlp.sigma.scale
    if not (is_traced() or torch.is_grad_enabled()) and scale is None and x[:, 0].numel() < mlp.fc2.out_channels:
        return _small_channel_aggregation(mlp, x)
    weight, bias = _parameters(mlp.fc2)
    if scale is not None:
        weight, bias = weight * scale.view(-1, 1, 1, 1), bias * scale.flatten()
    with autocast_off(x.device.type):
        common_weight = (weight.flatten(1) @ sigma.flatten()).view(1, -1, 1, 1)
    weight = weight * (1 + sigma)
    if is_traced() and (is_exported() or mlp.training):
        h = F.gelu(_depthwise(mlp.dwconv, F.conv2d(x, mlp.fc1.weight, mlp.fc1.bias)))
        common = F.gelu(F.conv2d(h, mlp.decompose.weight, mlp.decompose.bias))  # (B, 1, H, W)
        return F.conv2d(h, weight, bias) + F.conv2d(common, -common_weight.view(-1, 1, 1, 1))
    parameters = (*_parameters(mlp.fc1), *_parameters(mlp.dwconv), weight, bias, *_parameters(mlp.decompose))
    inputs = cast_as_autocast(x, *parameters, common_weight)
    if torch.is_grad_enabled() and not is_traced():
        return ChannelAggregation.apply(*inputs)
    return ChannelAggregation.forward(None, *inputs)


def _small_channel_aggregation(mlp: ChannelAggregationFFN, x: Tensor) -> Tensor:
    """The feed-forward network for a map with fewer pixels than channels: scaling it costs less than the weights."""
    x, *parameters = cast_as_autocast(x, *_parameters(mlp.fc1), *_parameters(mlp.dwconv), mlp.sigma.scale)
    fc1_weight, fc1_bias, dw_weight, dw_bias, sigma = parameters
    h = activated_conv(pointwise_conv(x, fc1_weight, fc1_bias), dw_weight, dw_bias, 'gelu', len(dw_weight))
    common = F.gelu(mlp.decompose(h))
    return _pointwise(mlp.fc2, h.mul_(1 + sigma).addcmul_(common, sigma, value=-1))


def cast_as_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors, converted to the data type that autocast, if enabled, uses for convolutions; it keeps float64."""
    device = tensors[0].device.type
    if device == 'meta' or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in tensors)


def channels_last(x: Tensor) -> Tensor:
    """``x``, (B, C, H, W), in torch.channels_last, the fastest layout for depth-wise and 1x1 convolutions.

    The strides of a one-channel map match both layouts, so torch would leave them as they are; they are set explicitly.
    """
    if is_exported():  # the other runtime chooses the layout
        return x
    x = x.contiguous(memory_format=torch.channels_last)
    if x.shape[1] == 1:
        x = x.reshape(x.shape[0], *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x


def pointwise_conv_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """Gradients of input, weight and bias of a 1x1 convolution."""
    # A forward convolution is faster, as above, unless the weight to transpose is large.
    is_forward = x.device.type == 'cpu' and weight.numel() < CACHED_ELEMENTS
    grad_x, grad_weight, grad_bias = aten.convolution_backward(
        grad, x, weight, [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [not is_forward, True, True]
    )
    if is_forward:
        grad_x = pointwise_conv(grad, weight.transpose(0, 1))
    return grad_x, grad_weight, grad_bias


def chunk_size(x: Tensor, channels: int) -> int:
    """Number of images of ``x`` (B, C, H, W) to process at once through a hidden map with ``channels`` channels.

    All images except on a CPU; there, too, if the weights between the two maps fill the cache, since every chunk would
    load them again.
    """
    if x.device.type != 'cpu' or x.shape[1] * channels >= CACHED_ELEMENTS:
        return len(x)
    return max(1, min(len(x), CACHED_ELEMENTS // (channels * x.shape[2] * x.shape[3])))


def first_derivative(backward: Callable) -> Callable:
    """Decorator for a backward pass that cannot be differentiated again, and whose data types autocast may not change.

    It raises UserError for second derivatives; torch's ``once_differentiable`` would return wrong ones if the incoming
    gradient is a constant.
    """

    @wraps(backward)
    def run(ctx, *grads: Tensor):
        if torch.is_grad_enabled():
            raise UserError(
                'second derivatives (create_graph=True) through an accelerated Moga block are not supported: compute '
                'the forward pass in mogacore.models.accelerated.disabled()'
            )
        with autocast_off(grads[0].device.type):
            return backward(ctx, *grads)

    return run


class DepthwiseConv(Function):
    """:func:`depthwise_conv` with the gradients of :func:`depthwise_conv_backward`."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return depthwise_conv(x, weight, bias, dilation)

    @staticmethod
    @first_derivative
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        return *depthwise_conv_backward(grad, x, weight, ctx.dilation), None


class GatedProjection(Function):
    """``conv1x1(SiLU(gate) * SiLU(value))``; stores only gate and value."""

    @staticmethod
    def forward(ctx, gate: Tensor, value: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(gate, value, weight)
        return pointwise_conv(F.silu(gate).mul_(F.silu(value)), weight, bias)

    @staticmethod
    @first_derivative
    def backward(ctx, grad: Tensor):
        gate, value, weight = ctx.saved_tensors
        silu_gate, silu_value = F.silu(gate), F.silu(value)
        grad_product, grad_weight, grad_bias = pointwise_conv_backward(grad, silu_gate * silu_value, weight)
        grad_gate = aten.silu_backward.grad_input(silu_value.mul_(grad_product), gate, grad_input=silu_value)
        grad_value = aten.silu_backward.grad_input(silu_gate.mul_(grad_product), value, grad_input=silu_gate)
        return grad_gate, grad_value, grad_weight, grad_bias


class GateAndContext(Function):
    """``conv1x1(s)`` and the depth-wise convolution of ``s``, with ``s = SiLU(p)``; stores only p."""

    @staticmethod
    def forward(
        ctx, p: Tensor, gate_weight: Tensor, gate_bias: Tensor, dw_weight: Tensor, dw_bias: Tensor, dilation: int
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(p, gate_weight, dw_weight)
        ctx.dilation = dilation
        s = F.silu(p)
        return pointwise_conv(s, gate_weight, gate_bias), depthwise_conv(s, dw_weight, dw_bias, dilation)

    @staticmethod
    @first_derivative
    def backward(ctx, grad_gate: Tensor, grad_context: Tensor):
        p, gate_weight, dw_weight = ctx.saved_tensors
        s = F.silu(p)
        grad_s, grad_gate_weight, grad_gate_bias = pointwise_conv_backward(grad_gate, s, gate_weight)
        grad_s2, grad_dw_weight, grad_dw_bias = depthwise_conv_backward(grad_context, s, dw_weight, ctx.dilation)
        grad_p = aten.silu_backward.grad_input(grad_s.add_(grad_s2), p, grad_input=grad_s)
        return grad_p, grad_gate_weight, grad_gate_bias, grad_dw_weight, grad_dw_bias, None


class ChannelAggregation(Function):
    """``conv1x1(h) - w GELU(decompose(h))`` with ``h = GELU(dwconv(fc1(x)))``, the widest map of the block.

    ``fc1`` and ``decompose`` (to one channel) are 1x1 convolutions, ``w`` is a vector (1, C, 1, 1). With one chunk, the
    maps before and after ``dwconv`` are stored; with several, they are recomputed from x.
    """

    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        fc1_weight: Tensor,
        fc1_bias: Tensor,
        dw_weight: Tensor,
        dw_bias: Tensor,
        weight: Tensor,
        bias: Tensor,
        decompose_weight: Tensor,
        decompose_bias: Tensor,
        common_weight: Tensor,
    ) -> Tensor:
        parts = x.split(chunk_size(x, len(fc1_weight)))
        outs, ds = [], []
        maps: tuple[Tensor, ...] = ()
        is_stored = ctx is not None and len(parts) == 1  # ctx is None without gradients
        for part in parts:
            y = pointwise_conv(part, fc1_weight, fc1_bias)
            if is_stored:
                z = depthwise_conv(y, dw_weight, dw_bias)
                maps = y, z
                h = F.gelu(z)
            else:
                h = activated_conv(y, dw_weight, dw_bias, 'gelu', len(dw_weight))
            del y  # free the widest maps as early as possible
            d = F.conv2d(h, decompose_weight, decompose_bias)
            outs.append(pointwise_conv(h, weight, bias).addcmul_(F.gelu(d), common_weight, value=-1))
            ds.append(d)
        if ctx is not None:
            tensors = (x, fc1_weight, fc1_bias, dw_weight, dw_bias, weight, decompose_weight, common_weight)
            ctx.save_for_backward(*tensors, torch.cat(ds), *maps)
        return torch.cat(outs) if len(parts) > 1 else outs[0]

    @staticmethod
    @first_derivative
    def backward(ctx, grad: Tensor):
        x, fc1_weight, fc1_bias, dw_weight, dw_bias, weight, decompose_weight, common_weight, d, *maps = (
            ctx.saved_tensors
        )
        grad_common = -(grad * F.gelu(d)).sum((0, 2, 3), keepdim=True)
        grad_d = aten.gelu_backward(F.conv2d(grad, -common_weight), d)
        size = chunk_size(x, len(fc1_weight))
        grads_x = []
        totals: Sequence[Tensor] = ()
        for part, part_grad, part_grad_d in zip(x.split(size), grad.split(size), grad_d.split(size), strict=True):
            if maps:
                y, z = maps
            else:
                y = pointwise_conv(part, fc1_weight, fc1_bias)
                z = depthwise_conv(y, dw_weight, dw_bias)
            h = F.gelu(z)
            grad_h, *grads_out = pointwise_conv_backward(part_grad, h, weight)
            grad_decompose = torch.tensordot(part_grad_d, h, ([0, 2, 3], [0, 2, 3])).view_as(decompose_weight)
            del h
            grad_h.addcmul_(part_grad_d, decompose_weight)
            grad_z = aten.gelu_backward.grad_input(grad_h, z, grad_input=grad_h)
            grad_y, *grads_dw = depthwise_conv_backward(grad_z, y, dw_weight)
            del y, z, grad_h, grad_z
            grad_x, *grads_fc1 = pointwise_conv_backward(grad_y, part, fc1_weight)
            grads_x.append(grad_x)
            grads = (*grads_fc1, *grads_dw, *grads_out, grad_decompose)
            totals = [total.add_(more) for total, more in zip(totals, grads, strict=True)] if totals else grads
        grad_x = torch.cat(grads_x) if len(grads_x) > 1 else grads_x[0]
        return grad_x, *totals, grad_d.sum().view(1), grad_common
