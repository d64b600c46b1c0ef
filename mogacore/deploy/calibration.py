"""Inputs of an exported file from a folder of images, to find the range of each map for int8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mogacore.errors import UserError
from mogacore.runtime.batches import feed
from mogacore.runtime.decode import DECODERS
from mogacore.runtime.inputs import IMAGE_SUFFIXES, UnreadableError, find_inputs
from mogacore.runtime.predictor import Predictor
from mogacore.text import shorten

MAX_IMAGES = 300  # the ranges hardly change beyond


def read_feeds(
    model: str | Path, folder: str | Path, log: Callable[[str], None] = print
) -> list[dict[str, np.ndarray]]:
    """Prepare images as the file says, each as a batch of its own.

    Args:
        model: Exported file of an image model.
        folder: Folder of images, or what else :func:`mogacore.runtime.inputs.find_inputs` accepts. Of more than
            ``MAX_IMAGES``, evenly spaced ones are used. A model of poses or hands takes each image as one object.
        log: Called with a line about images that cannot be read, which are skipped.

    Raises:
        UserError: If there is no readable image, or the model takes no images.
    """
    predictor = Predictor(model)
    if predictor.task not in DECODERS:
        raise UserError(f'{predictor.task} has no int8 form, since its inputs are not images: use fp16')
    paths = [path for path in find_inputs(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    chosen = spread(len(paths), MAX_IMAGES)
    decoder = DECODERS[predictor.task](predictor.metadata, predictor.backend.inputs)
    feeds, broken = [], []
    for path in (paths[index] for index in chosen):
        try:
            crops = decoder.crops(predictor.load(path).pixels, None)
        except UnreadableError:
            broken.append(path)
            continue
        feeds += [feed(predictor.metadata, [crop]) for crop in crops]
    if not feeds:
        raise UserError(f'--calibration {folder} has no readable image: give a folder of at least one')
    if broken:
        log(f'calibration: skipped {len(broken)} of {len(chosen)} images, which cannot be read: {shorten(broken, 3)}')
    return feeds


def spread(size: int, count: int) -> list[int]:
    """At most ``count`` indices below ``size``, evenly spaced."""
    return np.linspace(0, size - 1, min(size, count)).round().astype(int).tolist() if size else []
