"""Pasted masks are those of mmdet."""

import numpy as np
import pytest
import torch

from mogacore.runtime.masks import paste_masks


def test_pasted_masks_equal_those_of_mmdet():
    pytest.importorskip('mmdet')
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(40, 1, 28, 28, generator=generator)
    corners = torch.rand(40, 2, 2, generator=generator) * torch.tensor([90.0, 70]) - 5
    boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
    boxes[0] = torch.tensor([3.0, 4, 3, 4])  # without area
    boxes[1] = torch.tensor([0.0, 0, 80, 60])
    boxes[2] = torch.tensor([-50.0, -50, -20, -20])  # outside
    expected = torch.zeros(40, 60, 80, dtype=bool)
    for i in set(range(len(boxes))) - {2}:  # as mmdet does on a CPU, which cannot paste the third
        pasted, region = _do_paste_mask(masks[i, None], boxes[i, None], 60, 80, skip_empty=True)
        expected[(i, *region)] = pasted[0] >= 0.5
    found = paste_masks(masks[:, 0].numpy(), boxes.numpy(), 60, 80)
    assert found.any((1, 2)).sum() > 30
    differing = (found != expected.numpy()).sum()
    assert differing <= 2  # rounding


def test_no_masks_are_pasted_as_none():
    assert paste_masks(np.zeros((0, 28, 28)), np.zeros((0, 4)), 5, 6).shape == (0, 5, 6)
