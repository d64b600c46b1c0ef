"""Rows of frames in the colors of the data set."""

import torch
from mmengine.structures import BaseDataElement

from mogacore.inference.filmstrips import sequence_rows


def test_channels_in_the_order_bgr_are_drawn_in_true_colors():
    red = torch.tensor([1.0, 0.5, 0.0])[None, :, None, None].expand(2, 3, 64, 64)
    rows = {}
    for order, frames in (('rgb', red), ('bgr', red.flip(1))):
        sample = BaseDataElement(pred_frames=frames / 2, gt_frames=frames)
        rows[order] = sequence_rows(frames, sample, dict(mean=0.0, std=1.0, channel_order=order))
    for name, values in (('input', [255, 128, 0]), ('truth', [255, 128, 0]), ('prediction', [128, 64, 0]),
                         ('difference', [128, 64, 0])):  # fmt: skip
        assert rows['rgb'][name][0, 0, 0].tolist() == rows['bgr'][name][0, 0, 0].tolist() == values


def test_values_outside_0_1_are_drawn_in_the_range_of_the_known_frames():
    frames = torch.linspace(-3, 5, 64 * 64).view(1, 1, 64, 64)
    sample = BaseDataElement(pred_frames=frames, gt_frames=frames)
    rows = sequence_rows(frames, sample, dict(mean=[280.0], std=[10.0]))
    assert rows['input'].min() == 0 and rows['input'].max() == 255
    assert sequence_rows(frames, sample, {})['input'].max() == 255  # clipped
    assert (sequence_rows(frames, sample, {})['input'] == 0).mean() > 0.3
