"""Steps of the Moga block with hand-written passes: less memory traffic, less kept for the backward pass.

An activation costs a pass over memory to compute, and as much to store and load; kept, it also costs the memory. So
activations are computed again, and on a CPU the widest maps, which outgrow its caches, are never whole: they are made
and used up a few images at a time. Each function takes tensors of one data type and gives what its docstring writes;
gradients are exact. They have no second derivatives.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

aten = torch.ops.aten

CACHED_ELEMENTS = 2**21  # of a map that passes between two steps; 8 MiB in fp32 stay near most CPUs
LARGEST_KERNEL = 64  # oneDNN has fast code for convolutions with a map of this size as the kernel


def channels_last(x: Tensor) -> Tensor:
    """``x``, (B, C, H, W), in the layout on which depth-wise and 1x1 convolutions are fastest.

    Layouts of a map of one channel differ in strides alone: torch takes each for the other, and what follows would keep
    that of the input.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    if not is_exported() and x.shape[1] == 1:
        x = x.reshape(len(x), *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x


def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
    """Depth-wise convolution of stride 1 that keeps the size.

    oneDNN, torch's library on CPUs, is slow at wide dilations. There a map of dilation d is taken apart into its d x d
    phases (every d-th row and column), which a convolution without dilation treats alike, and put together again.

    Args:
        x: (B, C, H, W).
        weight: (C, 1, K, K), K odd.
        bias: (C,) or None.
        dilation: Distance of two taps.
    """
    size, channels = weight.shape[-1], weight.shape[0]
    if dilation < 3 or x.device.type != 'cpu' or is_exported():
        return F.conv2d(x, weight, bias, 1, dilation * (size // 2), dilation, channels)
    b, c, h, w = x.shape
    rows, columns = -(-h // dilation), -(-w // dilation)
    phases = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, columns * dilation - w, 0, rows * dilation - h))
    phases = phases.reshape(b, rows, dilation, columns, dilation, c).permute(2, 4, 0, 1, 3, 5)
    phases = phases.reshape(-1, rows, columns, c).permute(0, 3, 1, 2)
    out = F.conv2d(phases, weight, bias, 1, size // 2, 1, c).permute(0, 2, 3, 1)
    out = out.reshape(dilation, dilation, b, rows, columns, c).permute(2, 3, 0, 4, 1, 5)
    out = out.reshape(b, rows * dilation, columns * dilation, c)[:, :h, :w]
    return out.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def depthwise_conv_backward(grad: Tensor, x: Tensor, weight: Tensor, dilation: int = 1) -> tuple[Tensor, ...]:
    """Gradients of input, weight and bias of :func:`depthwise_conv`.

    On a CPU both are forward convolutions, whose code is faster: the gradient of the input that of ``grad`` with the
    kernel turned round; the gradient of the weight that of the input with ``grad`` as the kernel, and the dilation as
    the stride.
    """
    size, (b, c, h, w) = weight.shape[-1], x.shape
    padding = dilation * (size // 2)
    is_fast = x.device.type == 'cpu' and x.dtype == torch.float32
    if not is_fast or size < 5 or max(h, w) > LARGEST_KERNEL:
        return aten.convolution_backward(
            grad, x, weight, [c], [1, 1], [padding] * 2, [dilation] * 2, False, [0, 0], c, [True] * 3
        )
    # One sample whose channels are those of all images.
    images = x.permute(2, 3, 0, 1).reshape(1, h, w, b * c).permute(0, 3, 1, 2)
    taps = F.conv2d(images, grad.reshape(b * c, 1, h, w), None, dilation, padding, 1, b * c)
    grad_weight = taps.view(b, c, size, size).sum(0).unsqueeze(1)
    return depthwise_conv(grad, weight.flip(2, 3), None, dilation), grad_weight, grad.sum((0, 2, 3))


def pointwise_conv_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """Gradients of input, weight and bias of a 1x1 convolution."""
    # As a forward convolution, as above; large weights take longer to turn round than that saves.
    is_forward = x.device.type == 'cpu' and weight.numel() < CACHED_ELEMENTS
    grad_x, grad_weight, grad_bias = aten.convolution_backward(
        grad, x, weight, [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [not is_forward, True, True]
    )
    if is_forward:
        grad_x = F.conv2d(grad, weight.transpose(0, 1))
    return grad_x, grad_weight, grad_bias


def is_exported() -> bool:
    """Whether the network is being written down for another runtime, which has its own ways."""
    # Inside of torch.compile, torch.compiler.is_exporting() is true as well.
    is_export = torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
    return is_export or torch.jit.is_tracing()


def is_traced() -> bool:
    """Whether a compiler or an exporter looks on, which find their own way through the written-out formulas."""
    return torch.compiler.is_compiling() or is_exported()


def images_at_a_time(x: Tensor, channels: int) -> int:
    """How many of the images ``x`` (B, C, H, W) to take through a map of so many channels: all, except on a CPU.

    All there too if the weights between the two fill the cache themselves: every part would fetch them anew.
    """
    if x.device.type != 'cpu' or x.shape[1] * channels >= CACHED_ELEMENTS:
        return len(x)
    return max(1, min(len(x), CACHED_ELEMENTS // (channels * x.shape[2] * x.shape[3])))


class DepthwiseConv(Function):
    """:func:`depthwise_conv` with its fast gradients."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return depthwise_conv(x, weight, bias, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        return *depthwise_conv_backward(grad, *ctx.saved_tensors, ctx.dilation), None


class GatedProjection(Function):
    """``conv1x1(SiLU(gate) * SiLU(value))``; keeps gate and value alone."""

    @staticmethod
    def forward(ctx, gate: Tensor, value: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(gate, value, weight)
        return F.conv2d(F.silu(gate).mul_(F.silu(value)), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        gate, value, weight = ctx.saved_tensors
        silu_gate, silu_value = F.silu(gate), F.silu(value)
        grad_product, grad_weight, grad_bias = pointwise_conv_backward(grad, silu_gate * silu_value, weight)
        grad_gate = aten.silu_backward.grad_input(silu_value.mul_(grad_product), gate, grad_input=silu_value)
        grad_value = aten.silu_backward.grad_input(silu_gate.mul_(grad_product), value, grad_input=silu_gate)
        return grad_gate, grad_value, grad_weight, grad_bias


class GateAndContext(Function):
    """``conv1x1(s)`` and the depth-wise convolution of ``s``, with ``s = SiLU(p)``; keeps p alone."""

    @staticmethod
    def forward(
        ctx, p: Tensor, gate_weight: Tensor, gate_bias: Tensor, dw_weight: Tensor, dw_bias: Tensor, dilation: int
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(p, gate_weight, dw_weight)
        ctx.dilation = dilation
        s = F.silu(p)
        return F.conv2d(s, gate_weight, gate_bias), depthwise_conv(s, dw_weight, dw_bias, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_gate: Tensor, grad_context: Tensor):
        p, gate_weight, dw_weight = ctx.saved_tensors
        s = F.silu(p)
        grad_s, grad_gate_weight, grad_gate_bias = pointwise_conv_backward(grad_gate, s, gate_weight)
        grad_s2, grad_dw_weight, grad_dw_bias = depthwise_conv_backward(grad_context, s, dw_weight, ctx.dilation)
        grad_p = aten.silu_backward.grad_input(grad_s.add_(grad_s2), p, grad_input=grad_s)
        return grad_p, grad_gate_weight, grad_gate_bias, grad_dw_weight, grad_dw_bias, None


class ChannelAggregation(Function):
    """``conv1x1(h) - w GELU(decompose(h))`` with ``h = GELU(dwconv(fc1(x)))``, the widest map of the block.

    ``fc1`` and ``decompose``, the latter to one channel, are 1x1 convolutions, ``w`` a vector (1, C, 1, 1). Where the
    wide maps pass whole, those before and after ``dwconv`` are kept; where in parts, x alone, and they are computed
    again.
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
        parts = x.split(images_at_a_time(x, len(fc1_weight)))
        outs, ds = [], []
        for part in parts:
            y = F.conv2d(part, fc1_weight, fc1_bias)
            z = depthwise_conv(y, dw_weight, dw_bias)
            h = F.gelu(z)
            d = F.conv2d(h, decompose_weight, decompose_bias)
            outs.append(F.conv2d(h, weight, bias).addcmul_(F.gelu(d), common_weight, value=-1))
            ds.append(d)
        maps = (y, z) if len(parts) == 1 else ()
        ctx.save_for_backward(
            x, fc1_weight, fc1_bias, dw_weight, dw_bias, weight, decompose_weight, common_weight, torch.cat(ds), *maps
        )
        return torch.cat(outs) if len(parts) > 1 else outs[0]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, fc1_weight, fc1_bias, dw_weight, dw_bias, weight, decompose_weight, common_weight, d, *maps = (
            ctx.saved_tensors
        )
        grad_common = -(grad * F.gelu(d)).sum((0, 2, 3), keepdim=True)
        grad_d = aten.gelu_backward(F.conv2d(grad, -common_weight), d)
        size = images_at_a_time(x, len(fc1_weight))
        grads_x, totals = [], None
        for part, part_grad, part_grad_d in zip(x.split(size), grad.split(size), grad_d.split(size), strict=True):
            y, z = maps or (None, None)
            if y is None:
                y = F.conv2d(part, fc1_weight, fc1_bias)
                z = depthwise_conv(y, dw_weight, dw_bias)
            h = F.gelu(z)
            grad_h, *grads_out = pointwise_conv_backward(part_grad, h, weight)
            grad_decompose = torch.tensordot(part_grad_d, h, ([0, 2, 3], [0, 2, 3])).view_as(decompose_weight)
            del h  # the widest maps: each is let go as soon as it can be
            grad_h.addcmul_(part_grad_d, decompose_weight)
            grad_z = aten.gelu_backward.grad_input(grad_h, z, grad_input=grad_h)
            grad_y, *grads_dw = depthwise_conv_backward(grad_z, y, dw_weight)
            del y, z, grad_h, grad_z
            grad_x, *grads_fc1 = pointwise_conv_backward(grad_y, part, fc1_weight)
            grads_x.append(grad_x)
            grads = (*grads_fc1, *grads_dw, *grads_out, grad_decompose)
            totals = grads if totals is None else [total.add_(more) for total, more in zip(totals, grads, strict=True)]
        grad_x = torch.cat(grads_x) if len(grads_x) > 1 else grads_x[0]
        return grad_x, *totals, grad_d.sum().view(1), grad_common
