"""Drawings of predicted frames: a strip of all frames, and an animation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mogacore.files import write_gif

from .canvas import draw_text, enlargement

LEGIBLE_SIDE = 64  # pixels; smaller frames are enlarged by an integer factor
GAP = 2  # pixels between images
LABEL_WIDTH, LABEL_HEIGHT = 96, 20
FRAME_MS = 150
GRAY = 128


def sequence_rows(inputs: np.ndarray, predicted: np.ndarray, truth: np.ndarray, meta: dict) -> dict[str, np.ndarray]:
    """Render the frames of a predicted sequence, row by row.

    Args:
        inputs: Frames (T, C, H, W). If C is not 3, the first channel is shown.
        predicted: Predicted frames (T', C, H, W).
        truth: The known ones of these (T'', C, H, W).
        meta: Metainfo of the data set; {} for RGB images in 0..1. With a mean other than 0, the range of input and
            truth is mapped to 0..1. With the ``channel_order`` 'bgr', the three channels are reversed.

    Returns:
        'input', 'truth', 'prediction' and 'difference' (absolute), each (frames, H, W, 3) uint8 RGB.
    """
    inputs, predicted, truth = (np.asarray(frames, np.float32) for frames in (inputs, predicted, truth))
    if meta.get('channel_order') == 'bgr' and inputs.shape[1] == 3:
        inputs, predicted, truth = inputs[:, ::-1], predicted[:, ::-1], truth[:, ::-1]
    low, high = 0.0, 1.0
    if meta.get('mean', 0) != 0:
        known = np.concatenate([inputs, truth])[:, : 3 if inputs.shape[1] == 3 else 1]
        low, high = float(known.min()), max(float(known.max()), float(known.min()) + 1e-6)
    shown = predicted.clip(low, high)
    difference = abs(shown[: len(truth)] - truth)
    rows = {'input': inputs, 'truth': truth, 'prediction': shown}
    images = {name: _to_images((frames - low) / (high - low)) for name, frames in rows.items()}
    return images | {'difference': _to_images(difference / (high - low))}


def _to_images(frames: np.ndarray) -> np.ndarray:
    frames = frames if frames.shape[1] == 3 else frames[:, :1].repeat(3, axis=1)
    images = np.round(frames.clip(0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    factor = enlargement(images[0], LEGIBLE_SIDE) if len(images) else 1
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def _label(text: str, height: int, width: int) -> np.ndarray:
    label = np.full((height, width, 3), 255, np.uint8)
    draw_text(label, text, 4, (height - LABEL_HEIGHT) // 2 + 2, 13)
    return label


def draw_strip(rows: dict[str, np.ndarray]) -> np.ndarray:
    """Draw one labeled row of images per name, as (H, W, 3) uint8 RGB.

    Args:
        rows: Output of :func:`sequence_rows`; rows without images are skipped.
    """
    num_columns = max(len(images) for images in rows.values())
    height, width = next(images.shape[1:3] for images in rows.values())
    lines = []
    for name, images in rows.items():
        if not len(images):
            continue
        line = np.full((height + GAP, LABEL_WIDTH + num_columns * (width + GAP), 3), 255, np.uint8)
        line[:height, :LABEL_WIDTH] = _label(name, height, LABEL_WIDTH)
        for column, image in enumerate(images):
            left = LABEL_WIDTH + column * (width + GAP)
            line[:height, left : left + width] = image
        lines.append(line)
    return np.concatenate(lines)


def stack_images(images: list[np.ndarray]) -> np.ndarray:
    """Stack images (H, W, 3) of any width vertically, with gray lines between them."""
    width = max(image.shape[1] for image in images)
    stacked = []
    for image in images:
        padding = ((0, GAP), (0, width - image.shape[1]), (0, 0))
        padded = np.pad(image, padding, constant_values=255)
        padded[-GAP:] = GRAY
        stacked.append(padded)
    return np.concatenate(stacked)[:-GAP]


def write_animation(path: Path, rows: dict[str, np.ndarray]) -> None:
    """Write an endless GIF of truth, prediction and difference side by side; the first two start with the input.

    Args:
        path: File to write; parent folders are created.
        rows: Output of :func:`sequence_rows`; missing true frames are gray.
    """
    height, width = rows['input'].shape[1:3]
    gray = np.full((height, width, 3), GRAY, np.uint8)
    width = max(width, LABEL_WIDTH)
    steps = [(('input', frame), ('input', frame), ('', gray)) for frame in rows['input']]
    for index, predicted in enumerate(rows['prediction']):
        known = index < len(rows['truth'])
        steps.append(
            (
                ('truth', rows['truth'][index] if known else gray),
                ('prediction', predicted),
                ('difference', rows['difference'][index] if known else gray),
            )
        )
    frames = []
    for step in steps:
        columns = []
        for name, image in step:
            column = np.full((LABEL_HEIGHT + height, width + GAP, 3), 255, np.uint8)
            column[:LABEL_HEIGHT, :width] = _label(name, LABEL_HEIGHT, width)
            column[LABEL_HEIGHT:, : image.shape[1]] = image
            columns.append(column)
        frames.append(np.concatenate(columns, axis=1))
    write_gif(path, frames, FRAME_MS)
