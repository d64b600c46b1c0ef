"""Time from an image in memory to its predictions: whole models of configs, and exported files, side by side."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from mogacore.engine.devices import choose_device, describe_machine
from mogacore.errors import UserError
from mogacore.inference.predictor import Predictor
from mogacore.locations import is_config_name
from mogacore.runtime.backends import SUFFIXES
from mogacore.runtime.folders import ImagePredictor
from mogacore.runtime.inputs import UnreadableError
from mogacore.runtime.predictor import Predictor as RuntimePredictor

from .throughput import timed


def is_exported(name: str) -> bool:
    """Whether a network of a benchmark is an exported file."""
    return Path(name).suffix.lower() in SUFFIXES


def open_pipeline(name: str, checkpoint: str | None, device: str) -> ImagePredictor:
    """Predictor of a network.

    Args:
        name: Exported file, or config.
        checkpoint: Weight file for a config.
        device: torch device for a config; exported files run on the CPU.

    Raises:
        UserError: If it is neither, a config has no weights, or it does not predict single images.
    """
    if is_exported(name):
        predictor = RuntimePredictor(name)
        if predictor.task == 'video_prediction':
            raise UserError(f'{name} predicts videos: give a file that predicts images')
        return predictor
    if not is_config_name(name):
        raise UserError(f'{name!r} is no config and no {" or ".join(SUFFIXES)} file: omit --checkpoint for others')
    if checkpoint is None:
        raise UserError(f'{name} is a config, so its predictions need weights: give --checkpoint')
    return Predictor(name, checkpoint, device)


def read_image(path: str | Path | None, shape: Sequence[int]) -> np.ndarray:
    """Image (H, W, 3) uint8 BGR of a file, or noise of ``shape`` (C, H, W) for None.

    Raises:
        UserError: If the file is no image.
    """
    if path is None:
        return np.random.default_rng(0).integers(0, 256, (*shape[-2:], 3), np.uint8)
    import cv2

    image = cv2.imread(str(path))
    if image is None:
        raise UserError(f'image {path} does not exist or is no image: give another')
    return image


def measure_pipelines(
    names: Sequence[str],
    image: np.ndarray,
    checkpoint: str | None = None,
    rounds: int = 11,
    device: str | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> dict:
    """Time predictions of one image in turn, round by round; in each round, the second of two is timed.

    A prediction includes resizing, the network and the post-processing, such as NMS and the resizing of masks.

    Args:
        names: Configs and exported files.
        image: (H, W, 3) uint8 BGR.
        checkpoint: Weight file of the configs.
        rounds: Number of timed rounds.
        device: torch device for configs; None is a GPU if available.
        progress: Called with a description of each step.

    Returns:
        A report that is serializable as JSON: machine, size of the image, and ``measurements``: per network ``name``,
        ``ms`` (median), ``quartiles``, ``images_per_s``, ``ratio`` (time of the first over its own) and ``found``, the
        number of instances in the image, or None.

    Raises:
        UserError: See :func:`open_pipeline`; if a network does not accept the image.
    """
    if rounds < 1:
        raise UserError(f'{rounds} rounds are invalid: give at least 1')
    device = choose_device(device)
    runs, found = [], []
    for name in names:
        progress(name)
        predictor = open_pipeline(name, checkpoint, device)
        try:
            _, result = predictor.predict_one(image, None)
        except UnreadableError as error:
            raise UserError(f'{name}: {error}') from None
        runs.append(lambda predictor=predictor: predictor.predict_one(image, None))
        found.append(len(result['scores']) if 'scores' in result else None)
    times: list[list[float]] = [[] for _ in runs]
    for number in range(rounds):
        progress(f'round {number + 1} of {rounds}')
        for run, seconds in zip(runs, times, strict=True):
            run()  # warms up the caches, which the previous one left in another state
            seconds.append(timed(run, torch.device(device)))
    return {
        'machine': describe_machine(device),
        'rounds': rounds,
        'image': list(image.shape[:2]),
        'measurements': [
            _row(name, seconds, times[0], count) for name, seconds, count in zip(names, times, found, strict=True)
        ],
    }


def _row(name: str, seconds: list[float], first: list[float], count: int | None) -> dict:
    median = statistics.median(seconds)
    quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
    return {
        'name': name,
        'ms': 1e3 * median,
        'quartiles': [1e3 * quartiles[0], 1e3 * quartiles[2]],
        'images_per_s': 1 / median,
        'ratio': statistics.median(a / b for a, b in zip(first, seconds, strict=True)),
        'found': count,
    }
