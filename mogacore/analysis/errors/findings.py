"""What the analysis of every task gives, and the base class of the analyses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset

from mogacore.engine.dataset_meta import dataset_facts
from mogacore.errors import UserError
from mogacore.runtime.tasks import TASKS, Result

Panel = tuple[str, np.ndarray]  # title, and image (H, W, 3) uint8 RGB


@dataclass(frozen=True)
class Picture:
    """A figure of a report.

    Args:
        title: Its heading.
        note: How to read it.
        image: Content of a PNG file.
    """

    title: str
    note: str
    image: bytes


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Args:
        title: Its heading.
        note: How to read it.
        rows: Values by column; all rows have the same columns.
    """

    title: str
    note: str
    rows: list[dict[str, Any]]


@dataclass
class Findings:
    """Results of an analysis.

    Args:
        scores: Numbers for the whole test set, named as the evaluators of the task libraries name them.
        tables: By name in ``report.json``.
        pictures: By name.
    """

    scores: dict[str, float]
    tables: dict[str, Table] = field(default_factory=dict)
    pictures: dict[str, Picture] = field(default_factory=dict)


class Analysis:
    """Compares the predictions of one task with the truth, one sample after the other.

    Args:
        cfg: Loaded config, with its data located.
        dataset: Its test set.
        score_thr: Lowest score of a box that counts as predicted.

    Attributes:
        decimals: Digits after the point to which the evaluator of the task library rounds; None for all.
        unit: What a sample is.
        panel_width: Largest width of a drawn image in pixels.
    """

    task: str
    decimals: int | None = None
    unit = 'image'
    panel_width = 400

    def __init__(self, cfg: Config, dataset: BaseDataset, score_thr: float):
        self.cfg, self.dataset, self.score_thr = cfg, dataset, score_thr
        facts = dataset_facts(dataset.metainfo)
        self.names: list[str] = facts['classes'] or []
        self.writer = TASKS[self.task](facts, score_thr)

    def add(self, names: dict, info: dict, result: Result) -> tuple[float, float]:
        """Compare a sample.

        Args:
            names: Fields of the prediction other than its arrays.
            info: What the data set knows of the sample.
            result: The predicted arrays.

        Returns:
            How good the prediction is, and the weight of the sample among equally good ones; not finite to leave the
            sample out of the best and worst.

        Raises:
            UserError: If the prediction does not fit the data set.
        """
        raise NotImplementedError

    def findings(self) -> Findings:
        """The results, after all samples have been added."""
        raise NotImplementedError

    def panels(self, image: np.ndarray, info: dict, result: Result) -> list[Panel]:
        """The truth and the prediction, drawn on the image of a sample, (H, W, 3) uint8 RGB."""
        raise NotImplementedError

    def caption(self, info: dict, result: Result, score: float) -> str:
        """One line below the panels."""
        raise NotImplementedError

    def check_classes(self, labels: np.ndarray, of: str) -> None:
        """Raise UserError if a label is not one of the classes of the data set."""
        if labels.size and not 0 <= labels.min() <= labels.max() < len(self.names):
            bad = labels[(labels < 0) | (labels >= len(self.names))][0]
            raise UserError(
                f'{of} has class {bad}, but the test set has {len(self.names)} classes, counted from 0: give the '
                'config with which the predictions were made'
            )


def ratio(part, whole):
    """Quotient of arrays, NaN where the divisor is 0."""
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.where(np.asarray(whole) > 0, np.asarray(part, float) / whole, np.nan)


def mean(values) -> float:
    """Mean of the values that are numbers; NaN if there are none."""
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float('nan')


def confused_pairs(matrix: np.ndarray, names: list[str], number: int = 20) -> list[dict[str, Any]]:
    """The pairs of different classes that are confused most often, by share of the true class among equal counts.

    Args:
        matrix: (C, C) counts, true classes in rows.
        names: The C names.
        number: Largest number of pairs.
    """
    errors = matrix.copy()
    np.fill_diagonal(errors, 0)
    shares = ratio(errors, matrix.sum(1, keepdims=True))
    rows, columns = np.nonzero(errors)
    order = np.lexsort((-shares[rows, columns], -errors[rows, columns]))[:number]
    return [
        {
            'truth': names[row],
            'predicted': names[column],
            'count': int(errors[row, column]),
            'share of the class': float(shares[row, column]),
        }
        for row, column in zip(rows[order], columns[order], strict=True)
    ]


@contextmanager
def without_output() -> Iterator[None]:
    """Drop what the body prints."""
    from contextlib import redirect_stdout
    from io import StringIO

    with redirect_stdout(StringIO()):
        yield
