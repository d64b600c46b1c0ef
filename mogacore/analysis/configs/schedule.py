"""Learning rate and weight decay over a training, from running the schedules of its config on an optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.registry import OPTIMIZERS, PARAM_SCHEDULERS
from torch import nn

from mogacore.engine.config import locate_data, use_library
from mogacore.engine.length import LENGTHS, check_schedules, choose_loop, list_schedules
from mogacore.engine.loaders import build_loader
from mogacore.engine.optim import sub_wrappers
from mogacore.engine.rescale import follow_length
from mogacore.errors import UserError
from mogacore.files import write_figure
from mogacore.text import type_name

MAX_POINTS = 2000  # of a curve in a report or a drawing
LABELS = {'lr': 'learning rate', 'weight_decay': 'weight decay'}


@dataclass(frozen=True)
class Schedule:
    """What an optimizer is given at each step of a training.

    Args:
        unit: 'iteration', or 'epoch' if nothing changes within an epoch.
        epoch_length: Iterations of an epoch; None if it does not matter.
        values: (steps,) of each setting by name, such as ``lr``; of several optimizers, ``name.lr``. They are those of
            a parameter group without multipliers.
        notes: What the training would report about its schedules.
    """

    unit: str
    epoch_length: int | None
    values: dict[str, np.ndarray]
    notes: list[str]

    @property
    def num_steps(self) -> int:
        return len(next(iter(self.values.values())))

    def rows(self, number: int = 11) -> list[int]:
        """Evenly spaced steps with the first, the last and those of the largest values."""
        peaks = [int(values.argmax()) for name, values in self.values.items() if name.endswith('lr')]
        return sorted({*np.linspace(0, self.num_steps - 1, number).round().astype(int).tolist(), *peaks})

    def as_json(self) -> dict:
        """JSON-serializable fields, with at most ``MAX_POINTS`` evenly spaced steps."""
        steps = self.rows(MAX_POINTS)
        points = {name: values[steps].tolist() for name, values in self.values.items()}
        report = {'unit': self.unit, 'num_steps': self.num_steps, 'epoch_length': self.epoch_length, 'steps': steps}
        return {**report, **points, 'notes': self.notes}


def run_schedule(
    cfg: Config, cfg_options: Mapping[str, Any] | None = None, epoch_length: int | None = None
) -> Schedule:
    """Run the schedules of a config, without its model.

    Args:
        cfg: Config read by :func:`mogacore.engine.config.load_config`; changed in place as by a training.
        cfg_options: The options that it was read with.
        epoch_length: Iterations of an epoch; None takes those of the training set with one process.

    Raises:
        UserError: If the config trains nothing, a schedule does not fit, or the length of an epoch matters and the
            training set is missing.
    """
    for key in ('train_cfg', 'optim_wrapper'):
        if not cfg.get(key):
            raise UserError(f'config {cfg.filename} has no {key}: give the config of a training')
    if epoch_length is not None and epoch_length < 1:
        raise UserError(f'--epoch-length {epoch_length} is out of range: give at least 1 iteration')
    use_library(cfg)
    choose_loop(cfg.train_cfg, cfg_options or ())
    loop = cfg.train_cfg.type
    if loop not in LENGTHS:
        raise UserError(f'the length of a {loop} is unknown: use one of {", ".join(LENGTHS)}')
    notes = follow_length(cfg, dict(cfg_options or {})) + check_schedules(cfg)
    by_epoch = loop == 'EpochBasedTrainLoop'
    total = cfg.train_cfg[LENGTHS[loop]]
    settings = [item for _, item in list_schedules(cfg.get('param_scheduler'))]
    steps_by_iter = [not item.get('by_epoch', True) or item.get('convert_to_iter_based', False) for item in settings]
    if epoch_length is None and any(steps_by_iter) and (by_epoch or not all(_by_iter(item) for item in settings)):
        epoch_length = _epoch_length(cfg)
    if by_epoch and epoch_length is None:
        values = _run(cfg, notes, range(total), 1, total, total)
        return Schedule('epoch', None, values, notes)
    length = epoch_length or total
    num_iters = total * length if by_epoch else total
    max_epochs = total if by_epoch else -(-total // length)
    return Schedule('iteration', epoch_length, _run(cfg, notes, range(num_iters), length, max_epochs, num_iters), notes)


def _by_iter(schedule: Mapping) -> bool:
    return not schedule.get('by_epoch', True)


def _epoch_length(cfg: Config) -> int:
    try:
        locate_data(cfg, 'train')
    except UserError as error:
        raise UserError(f'{error}; or give the iterations of an epoch with --epoch-length') from None
    return len(build_loader(cfg.train_dataloader))


def _run(
    cfg: Config, notes: list[str], steps: Sequence[int], epoch_length: int, max_epochs: int, max_iters: int
) -> dict[str, np.ndarray]:
    """Values of each optimizer at each step, see :class:`Schedule`; an epoch ends after ``epoch_length`` steps."""
    from rich.progress import track

    wrappers = sub_wrappers(cfg.optim_wrapper)
    names = [name for name, item in cfg.optim_wrapper.items() if item in wrappers] if wrappers else ['']
    all_settings = cfg.get('param_scheduler')
    found: dict[str, list[float]] = {}
    runs = []
    for name in names:
        optimizer = OPTIMIZERS.build(
            dict(
                (cfg.optim_wrapper[name] if name else cfg.optim_wrapper).optimizer,
                params=[nn.Parameter(torch.zeros(1))],
            )
        )
        is_own = name and isinstance(all_settings, Mapping) and 'type' not in all_settings
        settings = [item for _, item in list_schedules(all_settings.get(name) if is_own else all_settings)]
        runs.append((f'{name}.' if name else '', optimizer, list(_build(settings, optimizer, epoch_length, max_epochs,
                                                                        max_iters, notes))))  # fmt: skip
    is_long = len(steps) > 20_000
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the optimizer makes no steps
        for step in track(steps, 'running the schedules', transient=True, disable=not is_long):
            ends_epoch = (step + 1) % epoch_length == 0
            for prefix, optimizer, schedulers in runs:
                for key, value in _numbers(optimizer.param_groups[0]):
                    found.setdefault(prefix + key, []).append(value)
                for scheduler in schedulers:
                    if not scheduler.by_epoch or ends_epoch:
                        scheduler.step()
    arrays = {name: np.array(values) for name, values in found.items()}
    return {
        name: values for name, values in arrays.items()
        if name.rpartition('.')[2] in LABELS or values.min() != values.max()
    }  # fmt: skip


def _numbers(group: Mapping) -> Iterator[tuple[str, float]]:
    """The rate and the decay of a parameter group, and its momentum, which few schedules change."""
    yield 'lr', group['lr']
    yield 'weight_decay', group.get('weight_decay', 0.0)
    yield 'momentum', group['betas'][0] if 'betas' in group else group.get('momentum', 0.0)


def _build(
    settings: list[dict], optimizer, epoch_length: int, max_epochs: int, max_iters: int, notes: list[str]
) -> Iterator[_ParamScheduler]:
    for item in settings:
        if type_name(item['type']).startswith('ReduceOnPlateau'):
            notes.append(f'{item["type"]} depends on the validation and is left out')
            continue
        item = deepcopy(dict(item))
        item.setdefault('end', max_epochs if item.get('by_epoch', True) else max_iters)
        yield PARAM_SCHEDULERS.build(item, default_args=dict(optimizer=optimizer, epoch_length=epoch_length))


def plot_schedule(schedule: Schedule, path: str | Path, title: str) -> None:
    """Draw each setting over the training: one panel per setting, with epochs at the top where they are known.

    Args:
        schedule: What to draw.
        path: Image file to write.
        title: Title of the figure.
    """
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(name.rpartition('.')[2] for name in schedule.values))
    figure = Figure(figsize=(7, 1 + 2.2 * len(kinds)), layout='constrained')
    figure.suptitle(title, fontsize=10, parse_math=False)
    axes = figure.subplots(len(kinds), 1, sharex=True, squeeze=False)[:, 0]
    steps = schedule.rows(MAX_POINTS)
    for axis, kind in zip(axes, kinds, strict=True):
        for name, values in schedule.values.items():
            if name.rpartition('.')[2] == kind:
                style = 'steps-post' if schedule.unit == 'epoch' else 'default'
                axis.plot(steps, values[steps], label=name.rpartition('.')[0] or None, drawstyle=style)
        axis.set_ylabel(LABELS.get(kind, kind))
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        if any('.' in name for name in schedule.values):
            axis.legend(fontsize=8)
    axes[-1].set_xlabel(schedule.unit)
    if schedule.unit == 'iteration' and schedule.epoch_length:
        length = schedule.epoch_length
        top = axes[0].secondary_xaxis('top', functions=(lambda x: x / length, lambda x: x * length))
        top.set_xlabel('epoch')
    write_figure(path, figure, dpi=100)
