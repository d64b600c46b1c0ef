"""Predicted sequences of videos, written to a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mogacore.errors import UserError
from mogacore.files import writable_folder, write_png

from .drawing.filmstrips import draw_strip, sequence_rows, stack_images, write_animation
from .folders import Source
from .report import write_report
from .videos import cut_sequences, find_videos, warn_if_truncated

OVERVIEW_SEQUENCES = 4
NUM_SEQUENCES = 8  # default


def draw_sequence(out_dir: Path, number: int, rows: dict[str, np.ndarray]) -> tuple[dict, np.ndarray]:
    """Draw a sequence to ``drawn/NNNNN.png`` and ``.gif``.

    Returns:
        The fields of its record that name these files, and the strip of frames, (H, W, 3) uint8 RGB.
    """
    strip, name = draw_strip(rows), f'drawn/{number:05}'
    write_png(out_dir / f'{name}.png', strip)
    write_animation(out_dir / f'{name}.gif', rows)
    return {'drawn': f'{name}.png', 'animation': f'{name}.gif'}, strip


def draw_overview(out_dir: Path, strips: list[np.ndarray]) -> None:
    """Draw the first strips to ``predictions.png``."""
    write_png(out_dir / 'predictions.png', stack_images(strips[:OVERVIEW_SEQUENCES]))


def check_num_sequences(number: int | None) -> int:
    """The number of sequences to predict; None for ``NUM_SEQUENCES``.

    Raises:
        UserError: If it is below 1.
    """
    if number is None:
        return NUM_SEQUENCES
    if number < 1:
        raise UserError(f'--num-sequences is {number}: use 1 or more')
    return number


def write_sequences(
    predict: Callable[[np.ndarray], np.ndarray],
    settings: dict[str, Any],
    shape: Sequence[int],
    num_targets: int,
    source: Source,
    out_dir: str | Path,
    header: dict[str, Any],
    num_sequences: int | None = None,
) -> list[dict]:
    """Predict future frames of videos; write ``predictions.json``, strips of frames and animations.

    Args:
        predict: Frames (1, T', C, H, W) for frames (1, T, C, H, W).
        settings: ``frame_step`` and ``channel_order`` of the data set; ``is_image``: whether these are images.
        shape: Shape of the past frames, (T, C, H, W).
        num_targets: Number of predicted frames.
        source: Videos, folders of the numbered frames of one, patterns or lists of them.
        out_dir: Output folder.
        header: First fields of the JSON file.
        num_sequences: Maximum number of predicted sequences; None for ``NUM_SEQUENCES``.

    Returns:
        One record per sequence.

    Raises:
        UserError: If an input is missing or invalid, or the model does not predict images.
    """
    num_sequences = check_num_sequences(num_sequences)
    num_inputs, channels, height, width = shape
    if channels not in (1, 3) or not settings.get('is_image', True):
        raise UserError('this network does not predict images: use predict_frames')
    videos, out_dir = find_videos(source, out_dir), writable_folder(out_dir)
    truncated: list[dict] = []
    order = settings.get('channel_order', 'rgb')
    sequences = cut_sequences(
        videos, num_inputs, num_targets, (channels, height, width),
        settings.get('frame_step', 1), order == 'bgr', partial(warn_if_truncated, truncated=truncated),
    )  # fmt: skip
    records, strips = [], []
    for number, sequence in enumerate(islice(sequences, num_sequences)):
        past, truth = np.split(sequence.frames, [num_inputs])
        (predicted,) = predict(past[None])
        files, strip = draw_sequence(out_dir, number, sequence_rows(past, predicted, truth, {'channel_order': order}))
        strips.append(strip)
        records.append({'sequence': sequence.name, **files})
    write_report(out_dir, {**header, 'predictions': records, **({'truncated': truncated} if truncated else {})})
    draw_overview(out_dir, strips)
    return records
