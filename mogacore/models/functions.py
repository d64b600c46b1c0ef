"""Steps of the Moga block whose activations are computed again in the backward pass instead of being kept.

An activation costs a pass over memory to compute, and as much to store and load; kept, it also costs the memory. Each
function takes tensors of one data type and gives what its docstring writes; gradients are exact.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

aten = torch.ops.aten


def _conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, dilation: int = 1, groups: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input, weight and bias of a convolution of stride 1 that keeps the size."""
    padding, bias_size = [dilation * (weight.shape[-1] // 2)] * 2, [weight.shape[0]]
    return aten.convolution_backward(
        grad, x, weight, bias_size, [1, 1], padding, [dilation] * 2, False, [0, 0], groups, [True] * 3
    )


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
        grad_product, grad_weight, grad_bias = _conv_backward(grad, silu_gate * silu_value, weight)
        grad_gate = aten.silu_backward(silu_value.mul_(grad_product), gate)
        grad_value = aten.silu_backward(silu_gate.mul_(grad_product), value)
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
        padding = dilation * (dw_weight.shape[-1] // 2)
        context = F.conv2d(s, dw_weight, dw_bias, padding=padding, dilation=dilation, groups=len(dw_weight))
        return F.conv2d(s, gate_weight, gate_bias), context

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_gate: Tensor, grad_context: Tensor):
        p, gate_weight, dw_weight = ctx.saved_tensors
        s = F.silu(p)
        grad_s, grad_gate_weight, grad_gate_bias = _conv_backward(grad_gate, s, gate_weight)
        grad_s2, grad_dw_weight, grad_dw_bias = _conv_backward(
            grad_context, s, dw_weight, ctx.dilation, groups=len(dw_weight)
        )
        grad_p = aten.silu_backward(grad_s.add_(grad_s2), p)
        return grad_p, grad_gate_weight, grad_gate_bias, grad_dw_weight, grad_dw_bias, None


class ChannelAggregation(Function):
    """``conv1x1(h) - w GELU(decompose(h))``, with ``h = GELU(z)`` the widest map of the block; keeps z alone.

    ``decompose`` is a 1x1 convolution to one channel, ``w`` a vector (1, C, 1, 1).
    """

    @staticmethod
    def forward(
        ctx,
        z: Tensor,
        weight: Tensor,
        bias: Tensor,
        decompose_weight: Tensor,
        decompose_bias: Tensor,
        common_weight: Tensor,
    ) -> Tensor:
        h = F.gelu(z)
        d = F.conv2d(h, decompose_weight, decompose_bias)
        ctx.save_for_backward(z, weight, decompose_weight, d, common_weight)
        return F.conv2d(h, weight, bias).addcmul_(F.gelu(d), common_weight, value=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        z, weight, decompose_weight, d, common_weight = ctx.saved_tensors
        h = F.gelu(z)
        grad_common = -(grad * F.gelu(d)).sum((0, 2, 3), keepdim=True)
        grad_a = F.conv2d(grad, -common_weight)
        grad_h, grad_weight, grad_bias = _conv_backward(grad, h, weight)
        grad_h2, grad_decompose_weight, grad_decompose_bias = _conv_backward(
            aten.gelu_backward(grad_a, d), h, decompose_weight
        )
        grad_z = aten.gelu_backward(grad_h.add_(grad_h2), z)
        return grad_z, grad_weight, grad_bias, grad_decompose_weight, grad_decompose_bias, grad_common
