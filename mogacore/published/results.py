"""The published results as data: one line of results.csv per result, each figure with the digits that were printed.

Sources are the repositories of the paper, OpenMixup, the mmpretrain branch of its author, and OpenSTL. Figures that
could not be checked against the paper are omitted; the note of the row says so.
"""

from __future__ import annotations

import csv
import io
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
        dataset: Test data set.
        method: The model around the backbone, such as the detector.
        model: Backbone, or translator of a video predictor.
        is_moganet: Whether the model is MogaNet; the others are baselines of the same tables.
        config: Path of our config below ``configs/``; '' if there is none.
        reason: Reason why there is no config.
        pretrain: Initialization of the training.
        resolution: Input size, as printed.
        schedule: Length of the training, as printed.
        params_m: Parameters in M, as printed; '' if not published.
        gmacs: Multiply-adds in G, as printed; '' if not published.
        fps: Sequences per second of a video predictor on a V100, as printed.
        metrics: Metric to value, as printed.
        weights: Address of the weight file; '' if not published.
        gate: Gate function of the training: 'single', 'double' (``attn_force_fp32``), or '' for a network without this
            option.
        weight_set: Weights in the file that the figures belong to: 'ema', 'raw', or '' for the only ones.
        source: Repository, page and line; after a semicolon, the page of a metric that the first does not print.
        exception: Reason why the published size differs from that of the network.
        note: Other remarks.
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
        """Name after ``mogacore://``: the file name without its suffix."""
        return next((self.weights_file.removesuffix(s) for s in SUFFIXES if self.weights_file.endswith(s)), '')

    @property
    def attn_force_fp32(self) -> bool | None:
        """Setting of the backbone for these weights; None for a network without this option."""
        return GATES[self.gate]

    @property
    def measures(self) -> str:
        """Metrics as text, for tables."""
        return ', '.join(f'{name} {value}' for name, value in self.metrics.items())


@lru_cache(maxsize=1)
def load_results() -> tuple[Result, ...]:
    """All results, in the order of the published tables."""
    text = (files(__package__) / 'results.csv').read_text(encoding='utf-8')
    return tuple(_result(row) for row in csv.DictReader(io.StringIO(text)))


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
    """Published parameters and multiply-adds of each config; the first row of a config counts.

    Returns:
        Config path below ``configs/`` to (parameters in M, GMACs).
    """
    found: dict[str, tuple[float, float]] = {}
    for result in load_results():
        if result.config and result.params_m and result.gmacs:
            found.setdefault(result.config, (float(result.params_m), float(result.gmacs)))
    return found


def official_weights() -> dict[str, str]:
    """Names of ``mogacore://`` to the addresses at which the authors publish the files.

    The names of ``create_model``, such as ``moganet_tiny``, are the released files for ImageNet-1K at 224 x 224; every
    other file is named by its file name.
    """
    results = [result for result in load_results() if result.weights_name]
    short = {
        name.partition('_sz224_')[0]: result.weights
        for result in results
        if (name := result.weights_name).startswith('moganet_') and '_sz224_' in name
    }
    return short | {result.weights_name: result.weights for result in results}


def result_of_weights(file_name: str) -> list[Result]:
    """The results that were obtained with a weight file, given its file name."""
    return [result for result in load_results() if result.weights_file == file_name]
