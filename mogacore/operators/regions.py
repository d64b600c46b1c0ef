"""Pooling of regions of interest, with the interface of mmcv's extension."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ._table import full_precision, gradients, operator

vision = torch.ops.torchvision

# Regions of interest are (image index, x1, y1, x2, y2).


def _sample_grids(rois: Tensor, height: int, width: int, scale: float, ratio: int, aligned: bool) -> Iterator[tuple]:
    """Group regions by their number of sample points per bin: yields the regions, points down, points across."""
    if ratio > 0:
        yield slice(None), ratio, ratio
        return
    shift = 0.5 if aligned else 0.0
    sides = (rois[:, 3:] * scale - shift) - (rois[:, 1:3] * scale - shift)
    if not aligned:
        sides = sides.clamp(min=1)
    grids = (sides / sides.new_tensor([width, height])).ceil().clamp(min=1).long()
    sizes, inverse = grids.unique(dim=0, return_inverse=True)
    for i, (across, down) in enumerate(sizes.tolist()):
        yield (inverse == i).nonzero()[:, 0], down, across


@operator
def roi_align_forward(
    input, rois, output, argmax_y, argmax_x, aligned_height, aligned_width, spatial_scale, sampling_ratio,
    pool_mode, aligned,
):  # fmt: skip
    """RoIAlign; pool mode 1 is average, 0 maximum, which stores the largest sample of each bin in ``argmax``."""
    input, rois = full_precision(input, rois)
    size = aligned_height, aligned_width
    if pool_mode == 1:
        output.copy_(vision.roi_align(input, rois, spatial_scale, *size, sampling_ratio, aligned))
        return
    for which, down, across in _sample_grids(rois, *size, spatial_scale, sampling_ratio, aligned):
        columns = aligned_width * across
        samples = vision.roi_align(input, rois[which], spatial_scale, aligned_height * down, columns, 1, aligned)
        largest, index = F.max_pool2d(samples, (down, across), return_indices=True)
        output[which] = largest.to(output.dtype)
        argmax_y[which] = (index // columns % down).to(output.dtype)
        argmax_x[which] = (index % across).to(output.dtype)


@operator
def roi_align_backward(
    grad_output, rois, argmax_y, argmax_x, grad_input, aligned_height, aligned_width, spatial_scale,
    sampling_ratio, pool_mode, aligned,
):  # fmt: skip
    grad, rois = full_precision(grad_output, rois)
    size, shape = (aligned_height, aligned_width), grad_input.shape
    if pool_mode == 1:
        grads = vision._roi_align_backward(grad, rois, spatial_scale, *size, *shape, sampling_ratio, aligned)
        grad_input.copy_(grads)
        return
    total = grad.new_zeros(shape)
    for which, down, across in _sample_grids(rois, *size, spatial_scale, sampling_ratio, aligned):
        rows, columns = aligned_height * down, aligned_width * across
        y = argmax_y[which].long() + torch.arange(0, rows, down, device=grad.device)[:, None]
        x = argmax_x[which].long() + torch.arange(0, columns, across, device=grad.device)
        samples = grad.new_zeros(*y.shape[:2], rows * columns)
        samples.scatter_(2, (y * columns + x).flatten(2), grad[which].flatten(2))
        samples = samples.unflatten(2, (rows, columns))
        total += vision._roi_align_backward(samples, rois[which], spatial_scale, rows, columns, *shape, 1, aligned)
    grad_input.copy_(total)


def _pool_bins(rois: Tensor, height: int, width: int, scale: float, image_size: torch.Size) -> tuple[Tensor, Tensor]:
    """mmcv's bins of whole pixels as regions, (N * height * width, 5), and which bins are empty.

    torchvision rounds the region before dividing it into bins, mmcv does not.
    """
    starts, ends = rois[:, 1:3] * scale, (rois[:, 3:] + 1) * scale
    sides = ends - starts
    edges = []
    for axis, count in ((1, height), (0, width)):
        at, size = starts[:, axis, None], sides[:, axis, None] / count
        steps, limit = torch.arange(count, device=rois.device), image_size[1 - axis]
        edges.append(((steps * size + at).floor().clamp(0, limit), ((steps + 1) * size + at).ceil().clamp(0, limit)))
    (y1, y2), (x1, x2) = edges
    corners = rois[:, :1, None], x1[:, None], y1[..., None], x2[:, None] - 1, y2[..., None] - 1
    bins = torch.stack(torch.broadcast_tensors(*corners), -1)  # (N, height, width, 5), corners included
    bad = (sides <= 0).any(1)[:, None, None]
    empty = (bins[..., 3:] < bins[..., 1:3]).any(-1) | bad
    return bins.flatten(0, 2), empty


@operator
def roi_pool_forward(input, rois, output, argmax, pooled_height, pooled_width, spatial_scale):
    features, rois = full_precision(input, rois)
    bins, empty = _pool_bins(rois, pooled_height, pooled_width, spatial_scale, input.shape[2:])
    for target, values, fill in zip((output, argmax), vision.roi_pool(features, bins, 1.0, 1, 1), (0, -1), strict=True):
        values = values.view(*empty.shape, input.size(1)).masked_fill(empty[..., None], fill)
        target.copy_(values.permute(0, 3, 1, 2))


@operator
def roi_pool_backward(grad_output, rois, argmax, grad_input, pooled_height, pooled_width, spatial_scale):
    grad, rois = full_precision(grad_output, rois)
    _, channels, height, width = grad_input.shape
    plane = rois[:, :1].long() * channels + torch.arange(channels, device=rois.device)  # (N, C)
    index = plane[..., None, None] * (height * width) + argmax.clamp(min=0)
    total = grad.new_zeros(grad_input.numel())
    total.scatter_add_(0, index.flatten(), grad.masked_fill(argmax < 0, 0).flatten())
    grad_input.copy_(total.view_as(grad_input))


def _deform_roi_pool(input, offset, rois, size, spatial_scale, sampling_ratio, gamma):
    """Average RoIAlign of bins shifted by gamma * side of the region * offset; Dai et al., arXiv 1703.06211."""
    height, width = size
    image_size = input.new_tensor([input.size(3), input.size(2)])
    pooled = input.new_zeros(len(rois), input.size(1), height, width)
    for which, down, across in _sample_grids(rois, height, width, spatial_scale, sampling_ratio, True):
        starts = rois[which, 1:3] * spatial_scale - 0.5
        sides = rois[which, 3:] * spatial_scale - 0.5 - starts
        y, x = (
            (torch.arange(count, dtype=rois.dtype, device=rois.device) + 0.5) / count
            for count in (height * down, width * across)
        )
        points = starts[:, None, None] + sides[:, None, None] * torch.stack(torch.meshgrid(x, y, indexing='xy'), -1)
        if offset.numel():
            moves = gamma * sides[:, None, None] * offset[which].permute(0, 2, 3, 1)
            points = points + moves.repeat_interleave(down, 1).repeat_interleave(across, 2)
        inside = ((points >= -1) & (points <= image_size)).all(-1)
        grid = points * 2 / (image_size - 1).clamp(min=1) - 1
        regions = torch.arange(len(rois), device=rois.device)[which]
        image = rois[which, 0].long()
        for i in image.unique().tolist():
            mine = image == i
            samples = F.grid_sample(
                input[i : i + 1], grid[mine].flatten(0, 1)[None], padding_mode='border', align_corners=True
            )
            samples = samples[0].unflatten(1, (-1, height * down)).transpose(0, 1) * inside[mine][:, None]
            pooled = pooled.index_copy(0, regions[mine], F.avg_pool2d(samples, (down, across)))
    return pooled


@operator
def deform_roi_pool_forward(
    input, rois, offset, output, pooled_height, pooled_width, spatial_scale, sampling_ratio, gamma
):
    input, rois, offset = full_precision(input, rois, offset)
    size = pooled_height, pooled_width
    output.copy_(_deform_roi_pool(input, offset, rois, size, spatial_scale, sampling_ratio, gamma))


@operator
def deform_roi_pool_backward(
    grad_output, input, rois, offset, grad_input, grad_offset, pooled_height, pooled_width, spatial_scale,
    sampling_ratio, gamma,
):  # fmt: skip
    input, rois, offset = full_precision(input, rois, offset)

    def pool(input, offset=offset):
        size = pooled_height, pooled_width
        return _deform_roi_pool(input, offset, rois, size, spatial_scale, sampling_ratio, gamma)

    targets = (grad_input, grad_offset) if offset.numel() else (grad_input,)
    for target, grad in zip(targets, gradients(pool, [input, offset][: len(targets)], grad_output), strict=True):
        target.copy_(grad)
