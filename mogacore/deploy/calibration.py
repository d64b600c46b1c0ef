"""Inputs of an exported file from a folder of images, to find the range of each map for int8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mogacore import images as image_files
from mogacore.errors import UserError
from mogacore.runtime.batches import feed
from mogacore.runtime.decode import DECODERS
from mogacore.runtime.inputs import IMAGE_SUFFIXES, UnreadableError, find_inputs
from mogacore.runtime.predictor import Predictor
from mogacore.text import shorten

MAX_IMAGES = 300  # the ranges hardly change beyond


def find_images(folder: str | Path) -> list[Path]:
    """Images for :func:`read_feeds`, of which at least one can be read; evenly spaced ones if there are many.

    Args:
        folder: Folder of images, or what else :func:`mogacore.runtime.inputs.find_inputs` accepts.

    Returns:
        At most ``MAX_IMAGES`` files.

    Raises:
        UserError: If there is no readable image.
    """
    try:
        paths = [path for path in find_inputs(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    except UserError as error:
        raise UserError(f'--calibration: {error}') from None
    chosen = [paths[index] for index in spread(len(paths), MAX_IMAGES)]
    if not any(map(_is_readable, chosen)):
        raise _none_readable(folder)
    return chosen


def _is_readable(path: Path) -> bool:
    try:
        image_files.check_pixels(path)
    except UserError:
        return False
    return image_files.read(path) is not None


def _none_readable(place: object) -> UserError:
    return UserError(f'--calibration {place} has no readable image: give a folder of at least one')


def read_feeds(
    model: str | Path, images: Sequence[Path], log: Callable[[str], None] = print
) -> list[dict[str, np.ndarray]]:
    """Prepare images as the file says, each as a batch of its own.

    Args:
        model: Exported file of an image model.
        images: From :func:`find_images`. A model of poses or hands takes each image as one object.
        log: Called with a line about images that cannot be read, which are skipped.

    Raises:
        UserError: If no image can be read and prepared.
    """
    predictor = Predictor(model)
    decoder = DECODERS[predictor.task](predictor.metadata, predictor.backend.inputs)
    feeds, broken = [], []
    for path in images:
        try:
            crops = decoder.crops(predictor.load(path).pixels, None)
        except UnreadableError:
            broken.append(path)
            continue
        feeds += [feed(predictor.metadata, [crop]) for crop in crops]
    if not feeds:
        raise _none_readable(shorten(images, 3))
    if broken:
        log(f'calibration: skipped {len(broken)} of {len(images)} images, which cannot be read: {shorten(broken, 3)}')
    return feeds


def spread(size: int, count: int) -> list[int]:
    """At most ``count`` indices below ``size``, evenly spaced."""
    return np.linspace(0, size - 1, min(size, count)).round().astype(int).tolist() if size else []
