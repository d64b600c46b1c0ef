"""The published results as data: one line of results.csv a result, each figure to the digits that were printed.

Figures of the repositories of the paper, of OpenMixup, of its author's mmpretrain branch and of OpenSTL. A figure that
was not held against the paper itself is left out; its row stays, and says so.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import PurePosixPath

TASKS = (
    'classification',
    'mixup',
    'object-detection',
    'instance-segmentation',
    'semantic-segmentation',
    'pose',
    'face-3d',
    'hand-3d',
    'video-prediction',
)
GATES = {'single': False, 'double': True, '': None}
SUFFIXES = ('.pth.tar', '.pth')


@dataclass(frozen=True)
class Result:
    """A published result.

    Args:
        id: Name of the row.
        task: One of ``TASKS``.
        dataset: Data set that it was tested on.
        method: What stands around the backbone.
        model: Backbone, or translator of a video predictor.
        is_moganet: Whether that is MogaNet; the rest are baselines of the same tables.
        config: Config here, below ``configs/``; '' if there is none.
        reason: Why there is none.
        pretrain: What the training started from.
        resolution: Input size, as printed.
        schedule: Length of the training, as printed.
        params_m: Parameters in M as printed; '' if they were not.
        gmacs: Multiply-adds in G as printed; '' if they were not.
        fps: Sequences a second on a V100, of video predictors.
        metrics: Metric to value as printed.
        weights: Address of the weight file; '' if none was published.
        gate: Gate function that the weights were trained with: 'single', 'double' (``attn_force_fp32``), '' for a
            network that has no such choice.
        weight_set: Set of the file that the figures belong to, where it holds two: 'ema', 'raw', or '' for the plain
            names.
        source: Repository, page and line.
        exception: Why the published size is not that of the network.
        note: What else to know.
    """

    id: str
    task: str
    dataset: str
    method: str
    model: str
    is_moganet: bool
    config: str
    reason: str
    pretrain: str
    resolution: str
    schedule: str
    params_m: str
    gmacs: str
    fps: str
    metrics: dict[str, str]
    weights: str
    gate: str
    weight_set: str
    source: str
    exception: str
    note: str

    @property
    def weights_file(self) -> str:
        """File name at the end of the address; '' if there is none."""
        return PurePosixPath(self.weights).name

    @property
    def weights_name(self) -> str:
        """What stands behind ``mogacore://``: the file's name without its suffix."""
        return next((self.weights_file.removesuffix(s) for s in SUFFIXES if self.weights_file.endswith(s)), '')

    @property
    def attn_force_fp32(self) -> bool | None:
        """The backbone's setting for these weights; None for a network without it."""
        return GATES[self.gate]

    @property
    def measures(self) -> str:
        """Metrics in a few words, as in a table."""
        return ', '.join(f'{name} {value}' for name, value in self.metrics.items())


@lru_cache(maxsize=1)
def load_results() -> tuple[Result, ...]:
    """All results, in the order of the published tables."""
    with (files(__package__) / 'results.csv').open(newline='', encoding='utf-8') as file:
        return tuple(_result(row) for row in csv.DictReader(file))


def _result(row: dict[str, str]) -> Result:
    metrics = dict(entry.split('=') for entry in row.pop('metrics').split())
    return Result(
        is_moganet=row.pop('moganet') == 'yes',
        params_m=row.pop('params_M'),
        gmacs=row.pop('gmacs'),
        metrics=metrics,
        **row,
    )


def published_complexity() -> dict[str, tuple[float, float]]:
    """Parameters in M and multiply-adds in G that were printed, by config; of several rows of a config the first.

    Returns:
        Config path below ``configs/`` to (parameters in M, GMACs).
    """
    found = {}
    for result in load_results():
        if result.config and result.params_m and result.gmacs:
            found.setdefault(result.config, (float(result.params_m), float(result.gmacs)))
    return found


def official_weights() -> dict[str, str]:
    """Names that ``mogacore://`` knows, to the addresses where their authors publish the files.

    ``moganet_tiny`` and so on, the names of ``create_model``, are the files of the paper's release for ImageNet-1K at
    224; every other file goes by its own name.
    """
    results = [result for result in load_results() if result.weights_name]
    short = {
        name.partition('_sz224_')[0]: result.weights
        for result in results
        if (name := result.weights_name).startswith('moganet_') and '_sz224_' in name
    }
    return short | {result.weights_name: result.weights for result in results}


def result_of_weights(file_name: str) -> list[Result]:
    """The results that belong to a weight file, by its name."""
    return [result for result in load_results() if result.weights_file == file_name]
