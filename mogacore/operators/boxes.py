"""Box overlaps and non-maximum suppression, with the interface of mmcv's extension."""

from ctypes import c_float

import torch
import torch.nn.functional as F
from torch import Tensor

from ._table import full_precision, operator

vision = torch.ops.torchvision

# Boxes are (x1, y1, x2, y2) with width x2 - x1 + offset and height y2 - y1 + offset.


def _overlaps(boxes1: Tensor, boxes2: Tensor, offset: int, mode: int = 0) -> Tensor:
    """Intersection over union, or over the area of ``boxes1`` for mode 1; (..., 4) and (..., 4) broadcast."""
    left1, top1, right1, bottom1 = boxes1.unbind(-1)
    left2, top2, right2, bottom2 = boxes2.unbind(-1)
    width = (torch.minimum(right1, right2) - torch.maximum(left1, left2) + offset).clamp_(min=0)
    height = (torch.minimum(bottom1, bottom2) - torch.maximum(top1, top2) + offset).clamp_(min=0)
    overlap = width * height
    area = (right1 - left1 + offset) * (bottom1 - top1 + offset)
    if mode == 0:
        area = area + (right2 - left2 + offset) * (bottom2 - top2 + offset) - overlap
    return overlap / area


@operator
def bbox_overlaps(bboxes1, bboxes2, ious, mode, aligned, offset):
    bboxes1, bboxes2 = full_precision(bboxes1, bboxes2)
    ious.copy_(_overlaps(bboxes1 if aligned else bboxes1[:, None], bboxes2, offset, mode))


@operator
def nms(boxes, scores, iou_threshold, offset):
    if offset:
        # Enlarging the boxes by the offset gives the same overlaps. float64 keeps small boxes exact, because
        # batched_nms shifts boxes by large amounts.
        boxes, scores = boxes.double(), scores.double()
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), 1)
    else:
        boxes, scores = full_precision(boxes, scores)
        # mmcv compares with a float32 threshold, torchvision with float64: a box with overlap exactly 0.3 is kept.
        iou_threshold = c_float(iou_threshold).value
    return vision.nms(boxes, scores, iou_threshold)


@operator
def softnms(boxes, scores, dets, iou_threshold, sigma, min_score, method, offset):
    """Soft-NMS; method 0 is naive (drop), 1 linear decay, 2 Gaussian decay. Bodla et al., arXiv 1704.04503."""
    boxes, scores = full_precision(boxes, scores)
    kept = torch.arange(len(boxes), dtype=boxes.dtype, device=boxes.device)
    rows = torch.cat((boxes, scores[:, None], kept[:, None]), 1)
    done = 0
    while done < len(rows):
        # Swapping, here and below, reproduces mmcv's order of equal scores.
        best = done + int(rows[done:, 4].argmax())
        row = rows[best].clone()
        rows[best], rows[done] = rows[done], row
        done += 1
        overlaps = _overlaps(row[:4], rows[done:, :4], offset)
        if method == 2:
            decay = torch.exp(-(overlaps**2) / sigma)
        else:
            decay = torch.where(overlaps >= iou_threshold, 1 - overlaps if method == 1 else 0.0, 1.0)
        rows[done:, 4] *= decay
        stays = rows[done:, 4] >= min_score
        count = int(stays.sum())
        if count < len(stays):
            # Each dropped box is replaced by the last kept one.
            holes = (~stays[:count]).nonzero()[:, 0] + done
            movers = (stays[count:].nonzero()[:, 0] + done + count).flip(0)
            rows[holes] = rows[movers]
            rows = rows[: done + count]
    dets[: len(rows)] = rows[:, :5].to(dets.dtype)
    return rows[:, 5].long()


@operator
def nms_match(dets, iou_threshold):
    dets = dets.float()
    order = dets[:, 4].argsort(descending=True, stable=True)
    groups = []
    while len(order):
        overlaps = _overlaps(dets[order[0], :4], dets[order, :4], 0)
        matched = overlaps >= iou_threshold
        matched[0] = True
        groups.append(order[matched].tolist())
        order = order[~matched]
    return groups


@operator
def line_nms_forward(boxes, scores, thresh, top_k):
    """NMS of lanes, by the mean distance of two lanes over the strips that both cover.

    Args:
        boxes: (N, 5 + strips): 2 logits, start y in [0, 1], start x, length, and x at each strip.
        scores: (N,).
        thresh: Distance below which a lane is suppressed.
        top_k: Largest number of kept lanes.

    Returns:
        Kept indices padded with zeros, (N,); their number, (); for each lane, 1 plus the rank of the last kept lane
        within the distance, which may be itself, (N,); 0 if there is none.

    Source: Zheng et al., CLRNet, arXiv 2203.10350.
    """
    (lanes,) = full_precision(boxes)
    order = scores.argsort(descending=True, stable=True)
    lanes = lanes[order]
    strips = torch.arange(lanes.size(1) - 5, device=lanes.device)
    start = (lanes[:, 2] * (len(strips) - 1) + 0.5).long()
    end = start + lanes[:, 4].long() - 1
    removed = torch.zeros(len(lanes), dtype=torch.bool, device=lanes.device)
    parents = torch.zeros_like(order)
    number = torch.zeros((), dtype=torch.long, device=lanes.device)
    keeps = torch.zeros_like(removed)
    for i in range(len(lanes)):
        keep = ~removed[i] & (number < top_k)
        first, last = torch.maximum(start[i], start), torch.minimum(end[i], end).clamp(max=len(strips) - 1)
        shared = (strips >= first[:, None]) & (strips <= last[:, None])
        distance = ((lanes[i, 5:] - lanes[:, 5:]).abs() * shared).sum(1)
        near = (distance < thresh * (last - first + 1)) & (last >= first) & (first >= 0)
        near[:i], near[i] = False, True
        number += keep
        parents = torch.where(keep & near, number, parents)
        removed |= keep & near
        keeps[i] = keep
    kept = F.pad(order[keeps], (0, len(lanes)))[: len(lanes)]
    return [kept, number, torch.zeros_like(parents).scatter_(0, order, parents)]
