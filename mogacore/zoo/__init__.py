"""Published figures as data."""

from __future__ import annotations

import csv
from importlib.resources import files


def published_complexity() -> dict[str, tuple[float, float]]:
    """Parameters in millions and multiply-adds in billions that the paper's repository prints, by config.

    Returns:
        Config path below ``configs/`` to (parameters in M, GMACs).

    Source: the tables of Westlake-AI/MogaNet, and of OpenSTL for the video sets that it adds, as printed; the second
        row of Mask R-CNN L repeats the figures of B.
    """
    with (files(__package__) / 'complexity.csv').open(newline='') as file:
        return {row['config']: (float(row['params_M']), float(row['gmacs'])) for row in csv.DictReader(file)}
