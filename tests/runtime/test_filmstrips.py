"""Rows of frames in the colors of the data set."""

import numpy as np

from mogacore.runtime.drawing.filmstrips import sequence_rows


def test_channels_in_the_order_bgr_are_drawn_in_true_colors():
    red = np.ones((2, 3, 64, 64)) * np.reshape([1.0, 0.5, 0.0], (3, 1, 1))
    rows = {}
    for order, frames in (('rgb', red), ('bgr', red[:, ::-1])):
        rows[order] = sequence_rows(frames, frames / 2, frames, dict(mean=0.0, std=1.0, channel_order=order))
    for name, values in (('input', [255, 128, 0]), ('truth', [255, 128, 0]), ('prediction', [128, 64, 0]),
                         ('difference', [128, 64, 0])):  # fmt: skip
        assert rows['rgb'][name][0, 0, 0].tolist() == rows['bgr'][name][0, 0, 0].tolist() == values


def test_values_outside_0_1_are_drawn_in_the_range_of_the_known_frames():
    frames = np.linspace(-3, 5, 64 * 64).reshape(1, 1, 64, 64)
    rows = sequence_rows(frames, frames, frames, dict(mean=[280.0], std=[10.0]))
    assert rows['input'].min() == 0 and rows['input'].max() == 255
    assert sequence_rows(frames, frames, frames, {})['input'].max() == 255  # clipped
    assert (sequence_rows(frames, frames, frames, {})['input'] == 0).mean() > 0.3
