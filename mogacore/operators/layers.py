"""Convolutions, attention and normalization, with the interface of mmcv's extension."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ._table import full_precision, gradients, operator

vision = torch.ops.torchvision


# Deformable convolution, version 1 (Dai et al., arXiv 1703.06211) and 2, with a mask (Zhu et al., arXiv 1811.11168).


def _empty_mask(input: Tensor) -> Tensor:
    return input.new_zeros(len(input), 1)


@operator
def deform_conv_forward(
    input, weight, offset, output, columns, ones,
    kW, kH, dW, dH, padW, padH, dilationW, dilationH, group, deformable_group, im2col_step,
):  # fmt: skip
    x, weight, offset = full_precision(input, weight, offset)
    geometry = dH, dW, padH, padW, dilationH, dilationW, group, deformable_group, False
    output.copy_(vision.deform_conv2d(x, weight, offset, _empty_mask(x), x.new_zeros(weight.size(0)), *geometry))


@operator
def deform_conv_backward_input(
    input, offset, gradOutput, gradInput, gradOffset, weight, columns,
    kW, kH, dW, dH, padW, padH, dilationW, dilationH, group, deformable_group, im2col_step,
):  # fmt: skip
    x, offset, grad, weights = full_precision(input, offset, gradOutput, weight)
    geometry = dH, dW, padH, padW, dilationH, dilationW, group, deformable_group, False
    grad_input, grad_weight, grad_offset, _, _ = vision._deform_conv2d_backward(
        grad, x, weights, offset, _empty_mask(x), x.new_zeros(weight.size(0)), *geometry
    )
    gradInput.copy_(grad_input)
    gradOffset.copy_(grad_offset)
    # torchvision computes all gradients at once: mmcv's buffer keeps that of the weights for the next call.
    columns.set_(grad_weight.to(columns.dtype))


@operator
def deform_conv_backward_parameters(
    input, offset, gradOutput, gradWeight, columns, ones,
    kW, kH, dW, dH, padW, padH, dilationW, dilationH, group, deformable_group, scale, im2col_step,
):  # fmt: skip
    if columns.shape != gradWeight.shape:
        x, offset, grad, weight = full_precision(input, offset, gradOutput, gradWeight)
        geometry = dH, dW, padH, padW, dilationH, dilationW, group, deformable_group, False
        _, columns, _, _, _ = vision._deform_conv2d_backward(
            grad, x, weight, offset, _empty_mask(x), x.new_zeros(weight.size(0)), *geometry
        )
    gradWeight.add_(columns, alpha=scale)


@operator
def modulated_deform_conv_forward(
    input, weight, bias, ones, offset, mask, output, columns,
    kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group, with_bias,
):  # fmt: skip
    x, weight, bias, offset, mask = full_precision(input, weight, bias, offset, mask)
    bias = bias if with_bias else x.new_zeros(weight.size(0))
    geometry = stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group, True
    output.copy_(vision.deform_conv2d(x, weight, offset, mask, bias, *geometry))


@operator
def modulated_deform_conv_backward(
    input, weight, bias, ones, offset, mask, columns,
    grad_input, grad_weight, grad_bias, grad_offset, grad_mask, grad_output,
    kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group, with_bias,
):  # fmt: skip
    grad, x, weight, offset, mask, bias = full_precision(grad_output, input, weight, offset, mask, bias)
    bias = bias if with_bias else x.new_zeros(weight.size(0))
    geometry = stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group, True
    grads = vision._deform_conv2d_backward(grad, x, weight, offset, mask, bias, *geometry)
    targets = [grad_input, grad_weight, grad_offset, grad_mask]
    for target, values in zip([*targets, grad_bias] if with_bias else targets, grads, strict=False):
        target.copy_(values)


# Multi-scale deformable attention; Zhu et al., arXiv 2010.04159.


def _attend(value: Tensor, locations: Tensor, weights: Tensor, shapes: list[list[int]]) -> Tensor:
    """Weighted sum of the values at the sampled points of all levels.

    Args:
        value: (B, keys of all levels, heads, channels).
        locations: (B, queries, heads, levels, points, 2), (x, y) in [0, 1].
        weights: (B, queries, heads, levels, points).
        shapes: Height and width of each level.

    Returns:
        (B, queries, heads * channels).
    """
    batch, _, heads, channels = value.shape
    output = value.new_zeros(())
    for level, keys in enumerate(value.split([height * width for height, width in shapes], 1)):
        keys = keys.permute(0, 2, 3, 1).reshape(batch * heads, channels, *shapes[level])
        grid = locations[:, :, :, level].transpose(1, 2).flatten(0, 1) * 2 - 1
        samples = F.grid_sample(keys, grid, align_corners=False)  # (B * heads, channels, queries, points)
        output = output + (samples * weights[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)
    return output.unflatten(0, (batch, heads)).permute(0, 3, 1, 2).flatten(2)


@operator
def ms_deform_attn_forward(
    value, value_spatial_shapes, value_level_start_index, sampling_locations, attention_weights, im2col_step
):
    values, locations, weights = full_precision(value, sampling_locations, attention_weights)
    return _attend(values, locations, weights, value_spatial_shapes.tolist()).to(value.dtype)


@operator
def ms_deform_attn_backward(
    value, value_spatial_shapes, value_level_start_index, sampling_locations, attention_weights,
    grad_output, grad_value, grad_sampling_loc, grad_attn_weight, im2col_step,
):  # fmt: skip
    shapes = value_spatial_shapes.tolist()
    inputs = full_precision(value, sampling_locations, attention_weights)
    grads = gradients(
        lambda values, locations, weights: _attend(values, locations, weights, shapes), inputs, grad_output
    )
    for target, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True):
        target.copy_(grad)


# Content-aware upsampling; Wang et al., CARAFE, arXiv 1905.02188.


def _carafe(features: Tensor, masks: Tensor, kernel: int, groups: int, scale: int) -> Tensor:
    """Each of the scale x scale pixels of a cell is a weighted sum of the kernel x kernel neighbors of the cell.

    Args:
        features: (B, C, H, W).
        masks: Weights, (B, groups * kernel * kernel, scale * H, scale * W).
    """
    batch, channels, height, width = features.shape
    padded = F.pad(features, [kernel // 2] * 4).unflatten(1, (groups, channels // groups))
    masks = masks.view(batch, groups, kernel * kernel, height, scale, width, scale)
    output = features.new_zeros(())
    for i in range(kernel * kernel):
        y, x = divmod(i, kernel)
        neighbors = padded[..., y : y + height, x : x + width]
        output = output + neighbors[..., :, None, :, None] * masks[:, :, i, None]
    return output.reshape(batch, channels, height * scale, width * scale)


@operator
def carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor):
    x, weights = full_precision(features, masks)
    output.copy_(_carafe(x, weights, kernel_size, group_size, scale_factor))


@operator
def carafe_naive_backward(top_grad, features, masks, bottom_grad, mask_grad, kernel_size, group_size, scale_factor):
    def upsample(features, masks):
        return _carafe(features, masks, kernel_size, group_size, scale_factor)

    grads = gradients(upsample, full_precision(features, masks), top_grad)
    bottom_grad.copy_(grads[0])
    mask_grad.copy_(grads[1])


@operator
def carafe_forward(features, masks, rfeatures, routput, rmasks, output, kernel_size, group_size, scale_factor):
    rfeatures.copy_(features)  # the backward pass receives this copy only
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)


@operator
def carafe_backward(
    top_grad, rfeatures, masks, rtop_grad, rbottom_grad_hs, rbottom_grad, rmask_grad, bottom_grad, mask_grad,
    kernel_size, group_size, scale_factor,
):  # fmt: skip
    carafe_naive_backward(top_grad, rfeatures, masks, bottom_grad, mask_grad, kernel_size, group_size, scale_factor)


# The attention map of a point-wise spatial attention network; Zhao et al., PSANet, ECCV 2018.


def _mask_channels(height, width, h_mask, w_mask, half_h_mask, half_w_mask, device) -> tuple[Tensor, Tensor]:
    """Channel of the mask at each pixel that belongs to each other pixel, and whether it exists.

    Returns:
        Channels and a bool mask, both (others, height, width).
    """

    def position(size, half):
        at = torch.arange(size, device=device)
        return at[:, None] - at + half  # (others, size)

    rows, columns = position(height, half_h_mask)[:, None, :, None], position(width, half_w_mask)[:, None]
    inside = (rows >= 0) & (rows < h_mask) & (columns >= 0) & (columns < w_mask)
    channels = (rows * w_mask + columns).masked_fill(~inside, 0)
    return channels.flatten(0, 1), inside.flatten(0, 1)


@operator
def psamask_forward(input, output, psa_type, num_, h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask):
    channels, inside = _mask_channels(h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask, input.device)
    collected = input.gather(1, channels.expand(num_, -1, -1, -1)).masked_fill(~inside, 0)
    if psa_type == 1:  # distribute: information flows from each pixel to the others
        collected = collected.flatten(2).transpose(1, 2).unflatten(2, (h_feature, w_feature))
    output.copy_(collected)


@operator
def psamask_backward(
    grad_output, grad_input, psa_type, num_, h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask
):
    device = grad_output.device
    channels, inside = _mask_channels(h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask, device)
    if psa_type == 1:
        grad_output = grad_output.flatten(2).transpose(1, 2).unflatten(2, (h_feature, w_feature))
    grad_input.scatter_add_(1, channels.expand(num_, -1, -1, -1), grad_output.masked_fill(~inside, 0))


# Convolution at selected pixels of one image; mmcv multiplies the columns with the weights.


@operator
def masked_im2col_forward(im, mask_h_idx, mask_w_idx, col, kernel_h, kernel_w, pad_h, pad_w):
    below, right = max(kernel_h - 1 - pad_h, 0), max(kernel_w - 1 - pad_w, 0)
    padded = F.pad(im[0], (pad_w, right, pad_h, below))
    rows = mask_h_idx + torch.arange(kernel_h, device=im.device)[:, None]
    columns = mask_w_idx + torch.arange(kernel_w, device=im.device)[:, None]
    col.copy_(padded[:, rows[:, None], columns].reshape(col.shape))  # from (C, kernel_h, kernel_w, pixels)


@operator
def masked_col2im_forward(col, mask_h_idx, mask_w_idx, im, height, width, channels):
    im[0, :, mask_h_idx, mask_w_idx] = col


# Synchronized batch normalization, (B, C, pixels): mmcv exchanges the statistics between these steps.


@operator
def sync_bn_forward_mean(input, mean):
    mean.copy_(input.float().mean((0, 2)))


@operator
def sync_bn_forward_var(input, mean, var):
    var.copy_((input.float() - mean[:, None]).square().mean((0, 2)))


@operator
def sync_bn_forward_output(
    input, mean, var, weight, bias, running_mean, running_var, norm, std, output, eps, momentum, group_size
):
    std.copy_((var + eps).sqrt())
    norm.copy_((input - mean[:, None]) / std[:, None])
    output.copy_(norm * weight[:, None] + bias[:, None])
    count = input.numel() // input.size(1) * group_size if input.numel() else 0
    running_mean.lerp_(mean, float(momentum))
    running_var.lerp_(var * count / (count - 1) if count > 1 else var, float(momentum))


@operator
def sync_bn_backward_param(grad_output, norm, grad_weight, grad_bias):
    grad = grad_output.float()
    grad_weight.copy_((grad * norm).sum((0, 2)))
    grad_bias.copy_(grad.sum((0, 2)))


@operator
def sync_bn_backward_data(grad_output, weight, grad_weight, grad_bias, norm, std, grad_input):
    count = grad_output.numel() // grad_output.size(1)
    shared = (grad_weight[:, None] * norm + grad_bias[:, None]) / count
    grad_input.copy_((grad_output.float() - shared) * (weight / std)[:, None])
