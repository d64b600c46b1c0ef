"""Drawings of predicted frames: a strip of all of them, an animation."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from mogacore.files import write_gif

LEGIBLE_SIDE = 64  # pixels; smaller frames are enlarged a whole number of times
GAP = 2  # pixels between pictures
LABEL_WIDTH, LABEL_HEIGHT = 96, 20
FRAME_MS = 150
GREY = 128


def sequence_rows(inputs: Tensor, sample: BaseDataElement, is_picture: bool = True) -> dict[str, np.ndarray]:
    """What a predicted sequence shows, row by row.

    Args:
        inputs: Frames (T, C, H, W); of channels other than three the first is shown.
        sample: ``pred_frames`` (T', C, H, W), and ``gt_frames`` (T'', C, H, W) as far as there are.
        is_picture: Whether values are 0..1; else the range of input and truth is shown.

    Returns:
        'input', 'truth', 'prediction' and 'difference', the last the absolute one of what is shown, (frames, H, W, 3)
        uint8 RGB each.
    """
    predicted, target = sample.pred_frames.cpu().float(), sample.gt_frames.cpu().float()
    low, high = 0.0, 1.0
    if not is_picture:
        known = torch.cat([inputs, target])[:, : 3 if inputs.shape[1] == 3 else 1]
        low, high = known.min().item(), max(known.max().item(), known.min().item() + 1e-6)
    shown = predicted.clamp(low, high)
    difference = (shown[: len(target)] - target).abs()
    rows = {'input': inputs, 'truth': target, 'prediction': shown}
    pictures = {name: _pictures((frames - low) / (high - low)) for name, frames in rows.items()}
    return pictures | {'difference': _pictures(difference / (high - low))}


def _pictures(frames: Tensor) -> np.ndarray:
    frames = frames if frames.shape[1] == 3 else frames[:, :1].expand(-1, 3, -1, -1)
    pictures = (frames.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    factor = -(-LEGIBLE_SIDE // max(pictures.shape[1:3]))
    return pictures.repeat(factor, axis=1).repeat(factor, axis=2)


def _label(text: str, height: int, width: int) -> np.ndarray:
    label = np.full((height, width, 3), 255, np.uint8)
    origin = 4, height // 2 + 5
    return cv2.putText(label, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)


def draw_strip(rows: dict[str, np.ndarray]) -> np.ndarray:
    """One row of pictures a name, its name at the left, as (H, W, 3) uint8 RGB.

    Args:
        rows: As :func:`sequence_rows` gives them; a row without pictures is left out.
    """
    num_columns = max(len(pictures) for pictures in rows.values())
    height, width = next(pictures.shape[1:3] for pictures in rows.values())
    lines = []
    for name, pictures in rows.items():
        if not len(pictures):
            continue
        line = np.full((height + GAP, LABEL_WIDTH + num_columns * (width + GAP), 3), 255, np.uint8)
        line[:height, :LABEL_WIDTH] = _label(name, height, LABEL_WIDTH)
        for column, picture in enumerate(pictures):
            left = LABEL_WIDTH + column * (width + GAP)
            line[:height, left : left + width] = picture
        lines.append(line)
    return np.concatenate(lines)


def stack_pictures(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures (H, W, 3) of any widths below each other, with grey lines between them."""
    width = max(picture.shape[1] for picture in pictures)
    stacked = []
    for picture in pictures:
        padding = ((0, GAP), (0, width - picture.shape[1]), (0, 0))
        padded = np.pad(picture, padding, constant_values=255)
        padded[-GAP:] = GREY
        stacked.append(padded)
    return np.concatenate(stacked)[:-GAP]


def write_animation(path: Path, rows: dict[str, np.ndarray]) -> None:
    """Truth, prediction and difference side by side as an endless GIF; while the input runs, the first two show it.

    Args:
        path: File to write; folders are made if need be.
        rows: As :func:`sequence_rows` gives them; missing true frames are grey.
    """
    height, width = rows['input'].shape[1:3]
    grey = np.full((height, width, 3), GREY, np.uint8)
    width = max(width, LABEL_WIDTH)
    moments = [(('input', frame), ('input', frame), ('', grey)) for frame in rows['input']]
    for index, predicted in enumerate(rows['prediction']):
        known = index < len(rows['truth'])
        moments.append(
            (
                ('truth', rows['truth'][index] if known else grey),
                ('prediction', predicted),
                ('difference', rows['difference'][index] if known else grey),
            )
        )
    frames = []
    for moment in moments:
        columns = []
        for name, picture in moment:
            column = np.full((LABEL_HEIGHT + height, width + GAP, 3), 255, np.uint8)
            column[:LABEL_HEIGHT, :width] = _label(name, LABEL_HEIGHT, width)
            column[LABEL_HEIGHT:, : picture.shape[1]] = picture
            columns.append(column)
        frames.append(np.concatenate(columns, axis=1))
    write_gif(path, frames, FRAME_MS)
