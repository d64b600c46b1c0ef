"""Base class of the tasks: how predictions are described and drawn."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mogacore.errors import UserError
from mogacore.files import readable
from mogacore.runtime.drawing.canvas import enlarged, enlargement, make_palette

Result = dict[str, np.ndarray]  # the arrays of a prediction for one image, in pixels of the image
SCORE_THR = 0.3  # default


class Task:
    """How the predictions of one task are described and drawn.

    Each subclass documents the arrays of its results. Names are those of the outputs of exported files.

    Args:
        meta: ``classes``, ``palette`` and ``keypoints`` as in the description of an exported file.
        score_thr: Minimum score of reported instances and of drawn keypoints.
    """

    draws_images = True
    has_threshold = True  # whether ``score_thr`` has an effect
    cell_width = 320  # pixels of an image in the overview

    def __init__(self, meta: dict[str, Any], score_thr: float):
        self.score_thr = score_thr
        self.classes: list[str] | None = list(meta.get('classes') or ()) or None
        self.palette = make_palette(meta.get('palette'), len(self.classes or ()))

    def class_name(self, label: int) -> str:
        """Name of a class; its index if the data set has no names."""
        if self.classes is None:
            return str(label)
        if label >= len(self.classes):
            raise UserError(
                f'the model predicts class {label}, but there are only {len(self.classes)} class names: '
                'set test_dataloader.dataset.metainfo.classes to the classes of the training data'
            )
        return self.classes[label]

    def color(self, label: int) -> tuple[int, int, int]:
        """Color of a class."""
        if label >= len(self.palette):
            self.palette = make_palette(None, label + 1)
        return self.palette[label]

    def select(self, result: Result) -> Result:
        """What is reported of all that the model predicts."""
        return result

    def describe(self, result: Result) -> dict:
        """The prediction as JSON-serializable values."""
        raise NotImplementedError

    def write(self, result: Result, out_dir: Path, name: str) -> dict:
        """Write additional files; return the fields that refer to them in the record."""
        return {}

    def report(self) -> dict:
        """Fields of the report that apply to all records."""
        return {}

    def draw(self, image: np.ndarray, result: Result) -> np.ndarray:
        """Draw the prediction on an image (H, W, 3) uint8 RGB; a small image is enlarged by an integer factor."""
        return self.paint(enlarged(image), result, enlargement(image))

    def paint(self, image: np.ndarray, result: Result, factor: int) -> np.ndarray:
        """Draw a prediction on its image, which has been enlarged by ``factor`` and may be changed."""
        raise NotImplementedError

    def titles(self, records: list[dict], all_records: Iterable[dict]) -> list[tuple[str, str]]:
        """Title and title color of the image of each record in the overview, a selection of all."""
        return [(readable(Path(record['image']).name), 'black') for record in records]
