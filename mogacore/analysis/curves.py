"""Training curves from the logs that mmengine writes to a work dir."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mogacore.errors import UserError
from mogacore.files import write_figure

TIMES = ('time', 'data_time')
COUNTERS = ('step', 'iter', 'epoch')


class Curve(NamedTuple):
    """A scalar over a training.

    Args:
        steps: (N,), ascending.
        values: (N,).
        is_validation: Whether it comes from validation.
        unit: Of the steps: 'iteration', or 'epoch' for validations of a training that counts epochs.
    """

    steps: np.ndarray
    values: np.ndarray
    is_validation: bool
    unit: str


def read_curves(work_dir: str | Path) -> dict[str, Curve]:
    """Read every scalar that a training logged, over all of its runs.

    A resumed run logs some steps again; the value of the last run counts. Times of validations are left out.

    Args:
        work_dir: Work dir of tools/train.py, or of any mmengine Runner.

    Returns:
        Curve of each scalar by name; a scalar of validations that training steps have as well is named ``val/NAME``.

    Raises:
        UserError: If there are no scalars, or they cannot be read.
    """
    found: dict[bool, dict[str, dict[int, float]]] = {False: {}, True: {}}
    num_epochs = 0
    for step, scalars in _lines(work_dir):
        num_epochs = max(num_epochs, scalars.get('epoch', 0))
        is_validation = _is_validation(scalars)
        for name, value in scalars.items():
            if name in COUNTERS or (is_validation and name in TIMES) or not _has_value(name, value):
                continue
            found[is_validation].setdefault(name, {})[step] = value
    training, validation = found[False], found[True]
    curves = {name: _curve(points, False, 'iteration') for name, points in training.items()}
    unit = 'epoch' if num_epochs >= max((max(points) for points in validation.values()), default=0) else 'iteration'
    return curves | {
        f'val/{name}' if name in training else name: _curve(points, True, unit) for name, points in validation.items()
    }


def read_validations(work_dir: str | Path) -> dict[int, dict[str, float]]:
    """Read the scores of every validation of a training, over all of its runs; of repeated ones, the last counts.

    Args:
        work_dir: See :func:`read_curves`.

    Returns:
        Name to score of each validation, by epoch, or by iteration in a training that counts iterations; ascending.

    Raises:
        UserError: See :func:`read_curves`.
    """
    found = {}
    for step, scalars in _lines(work_dir):
        if _is_validation(scalars):
            found[step] = {
                name: value
                for name, value in scalars.items()
                if name not in (*COUNTERS, *TIMES) and _has_value(name, value)
            }
    return dict(sorted(found.items()))


def _lines(work_dir: str | Path) -> Iterator[tuple[int, dict]]:
    """Step and scalars of each line of the logs, oldest first."""
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'), key=lambda path: path.parts[-3])
    if not files:
        raise UserError(f'{work_dir} has no */vis_data/scalars.json: give the work dir of a training')
    for path in files:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            try:
                scalars = json.loads(line)
                yield scalars['step'], scalars
            except (ValueError, KeyError, RecursionError, TypeError):
                raise UserError(f'line {number} of {path} is not a log line of mmengine: remove it') from None


def _has_value(name: str, value: object) -> bool:
    """Whether an entry of a log is a number; COCO's metrics give -1 for sizes of objects that do not occur."""
    return isinstance(value, (int, float)) and not (name.startswith('coco/') and value == -1)


def _is_validation(scalars: dict) -> bool:
    """Whether a line of a log is one of a validation: mmengine writes ``iter`` in those of training steps alone."""
    return 'iter' not in scalars


def _curve(points: dict[int, float], is_validation: bool, unit: str) -> Curve:
    steps = sorted(points)
    return Curve(np.array(steps), np.array([points[step] for step in steps], float), is_validation, unit)


def smooth(values: np.ndarray, factor: float) -> np.ndarray:
    """Bias-corrected exponential moving average.

    Args:
        values: (N,).
        factor: Weight of the previous average, in [0, 1).

    Returns:
        (N,).
    """
    average, weight, smoothed = 0.0, 0.0, []
    for value in values:
        average = factor * average + (1 - factor) * value
        weight = factor * weight + (1 - factor)
        smoothed.append(average / weight)
    return np.array(smoothed)


def plot(
    work_dirs: Sequence[tuple[str, str | Path]],
    path: str | Path,
    keys: Sequence[str] | None = None,
    smoothing: float = 0.0,
) -> dict[str, dict[str, float]]:
    """Draw the curves of several trainings: one panel per scalar, one line per training.

    Args:
        work_dirs: Labels and work dirs.
        path: Image file to write.
        keys: Names of scalars; None is the loss and all validation scalars.
        smoothing: ``factor`` of :func:`smooth` for training scalars; 0 is no smoothing.

    Returns:
        The last logged value of each scalar, by label and name.

    Raises:
        UserError: If a log or scalar is missing, or an argument is invalid.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not 0 <= smoothing < 1:
        raise UserError(f'smoothing {smoothing} is invalid: choose at least 0 and less than 1')
    found = {label: read_curves(work_dir) for label, work_dir in work_dirs}
    if len(found) < len(work_dirs):
        raise UserError('two work dirs have the same label: write LABEL=DIR')
    names = list(dict.fromkeys(name for curves in found.values() for name in curves))
    if keys is None:
        keys = [
            name
            for name in names
            if name == 'loss' or any(name in curves and curves[name].is_validation for curves in found.values())
        ]
    if not keys:
        what = (
            f'only {", ".join(names)}: name some with --keys' if names else 'nothing: wait until it logs, or remove it'
        )
        raise UserError(f'the logs of {", ".join(map(str, found))} have no loss and no validation, {what}')
    for key in keys:
        if key not in names:
            raise UserError(f'scalar {key!r} is not in the logs: choose from {", ".join(names)}')
    num_cols = min(3, len(keys))
    num_rows = -(-len(keys) // num_cols)
    figure = Figure(figsize=(4.2 * num_cols, 3.2 * num_rows), layout='constrained')
    axes = figure.subplots(num_rows, num_cols, squeeze=False).ravel()
    colors = {label: f'C{number}' for number, label in enumerate(found)}
    for axis, key in zip(axes, keys, strict=False):
        units = set()
        for label, curves in found.items():
            if key not in curves:
                continue
            steps, values, from_validation, unit = curves[key]
            units.add(unit)
            if smoothing and not from_validation:
                axis.plot(steps, values, color=colors[label], alpha=0.25, linewidth=0.8)
                values = smooth(values, smoothing)
            marker = '.' if from_validation or len(steps) == 1 else None
            axis.plot(steps, values, color=colors[label], marker=marker, label=label)
        axis.set(title=key, xlabel=' or '.join(sorted(units)))
        axis.xaxis.set_major_locator(MaxNLocator('auto', integer=True))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    for axis in axes[len(keys) :]:
        axis.axis('off')
    write_figure(path, figure, dpi=100)
    return {
        label: {key: float(curves[key].values[-1]) for key in keys if key in curves} for label, curves in found.items()
    }
