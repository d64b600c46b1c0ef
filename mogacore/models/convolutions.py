"""Depth-wise and 1x1 convolutions and their gradients in the form that is fastest on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten

LARGEST_KERNEL = 64  # oneDNN is fast for convolutions whose kernel is a map of up to this size
MOST_PIXELS = 2048  # of a batch, up to which a 1x1 convolution of all images at once is faster
FEWEST_ELEMENTS = 2**17  # of an output; below, applying an activation function within the convolution costs more
# Names of activation functions in oneDNN, with the variant, and the same functions in place.
ACTIVATIONS = {'gelu': ('gelu', 'none', aten.gelu_), 'silu': ('swish', '', aten.silu_)}
HAS_FUSED = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, '_convolution_pointwise')


def is_exported() -> bool:
    """Whether the network is being exported to another runtime."""
    # torch.compiler.is_exporting() is also true inside torch.compile.
    is_export = torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
    return is_export or torch.jit.is_tracing()


def is_traced() -> bool:
    """Whether the network runs under torch.compile or export, which optimize the plain formulas on their own."""
    return torch.compiler.is_compiling() or is_exported()


def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
    """Depth-wise convolution with stride 1 and "same" padding.

    oneDNN, torch's library on CPUs, is slow for large dilations d. In that case, the map is split into d x d phases
    (every d-th row and column), which a single convolution without dilation processes, and reassembled.

    Args:
        x: (B, C, H, W).
        weight: (C, 1, K, K), K odd.
        bias: (C,) or None.
        dilation: Distance between kernel elements.
    """
    size, channels = int(weight.shape[-1]), weight.shape[0]  # torch.jit.trace yields tensors
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

    On a CPU, both run as forward convolutions, which are faster: the gradient of the input convolves ``grad`` with the
    flipped kernel; the gradient of the weight convolves the input with ``grad`` as the kernel and the dilation as the
    stride.
    """
    size, (b, c, h, w) = weight.shape[-1], x.shape
    padding = dilation * (size // 2)
    is_fast = x.device.type == 'cpu' and x.dtype == torch.float32
    if not is_fast or size < 5 or max(h, w) > LARGEST_KERNEL or b == 0:
        return aten.convolution_backward(
            grad, x, weight, [c], [1, 1], [padding] * 2, [dilation] * 2, False, [0, 0], c, [True] * 3
        )
    # A single sample with the channels of all images.
    images = x.permute(2, 3, 0, 1).reshape(1, h, w, b * c).permute(0, 3, 1, 2)
    taps = F.conv2d(images, grad.reshape(b * c, 1, h, w), None, dilation, padding, 1, b * c)
    grad_weight = taps.view(b, c, size, size).sum(0).unsqueeze(1)
    return depthwise_conv(grad, weight.flip(2, 3), None, dilation), grad_weight, grad.sum((0, 2, 3))


def pointwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None) -> Tensor:
    """1x1 convolution, and an activation function of its output.

    oneDNN divides the work by image. On a CPU, all pixels of a batch of small maps therefore become one row of pixels,
    which makes no copy in channels_last: a map of 7 x 7 pixels is 20 % faster that way, one of 14 x 14 5 %.

    Args:
        x: (B, C, H, W).
        weight: (D, C, 1, 1).
        bias: (D,) or None.
        activation: As in :func:`activated_conv`, without gradients; None for none.

    Returns:
        (B, D, H, W).
    """
    b, c, h, w = x.shape
    is_row = not is_traced() and x.device.type == 'cpu' and 1 < b <= MOST_PIXELS // max(h * w, 1)
    if is_row := is_row and c > 1 and x.is_contiguous(memory_format=torch.channels_last):
        x = x.permute(0, 2, 3, 1).reshape(1, 1, b * h * w, c).permute(0, 3, 1, 2)
    out = F.conv2d(x, weight, bias) if activation is None else activated_conv(x, weight, bias, activation)
    return out.permute(0, 2, 3, 1).reshape(b, h, w, -1).permute(0, 3, 1, 2) if is_row else out


def activated_conv(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, groups: int = 1) -> Tensor:
    """Convolution with stride 1 and "same" padding, and an activation function of its output; without gradients.

    On a CPU in fp32, oneDNN applies the function before it writes a large output, with an absolute error of about 1e-6.

    Args:
        x: (B, C, H, W).
        weight: (D, C / groups, K, K), K odd.
        bias: (D,) or None.
        activation: One of ``ACTIVATIONS``; GELU is the exact one.
        groups: Number of groups.
    """
    padding = [weight.shape[-1] // 2] * 2
    name, variant, apply = ACTIVATIONS[activation]
    is_fused = not is_traced() and HAS_FUSED and x.device.type == 'cpu' and x.dtype == weight.dtype == torch.float32
    if is_fused and x[:, 0].numel() * len(weight) >= FEWEST_ELEMENTS and torch._C._get_mkldnn_enabled():
        run = torch.ops.mkldnn._convolution_pointwise
        return run(x, weight, bias, padding, [1, 1], [1, 1], groups, name, [], variant)
    return apply(F.conv2d(x, weight, bias, 1, padding, 1, groups))
