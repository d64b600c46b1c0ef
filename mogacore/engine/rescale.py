"""Schedules that follow a changed training length.

A recipe states its length several times: in ``train_cfg`` and as ends, periods and milestones of its schedules. If a
config or an option changes only the first, the schedules would end too early or be cut off.
"""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path

from mmengine.config import Config
from mmengine.optim.scheduler.param_scheduler import INF

from mogacore.errors import UserError

from .length import LENGTHS, choose_loop, list_schedules, warm_up

# Settings of a schedule that are numbers of steps counted from its begin.
SPANS = ('T_max', 'total_steps', 'cosine_end', 'step_size')


def follow_length(cfg: Config, cfg_options: dict | None = None) -> list[str]:
    """Scale the schedules of a config from the length that they are written for to that of the training; in place.

    That length is the one of the file that sets ``param_scheduler``. Ends and periods that cover the whole training
    cover the new one; other steps keep their fraction of it. Warm-ups, settings given as an option, and schedules in
    another unit than the training stay.

    Args:
        cfg: Config read from a file, with the options applied.
        cfg_options: The options.

    Returns:
        One line that lists the changes, ``name old -> new``; empty if there are none.
    """
    options = cfg_options or {}
    if not cfg.get('param_scheduler') or 'param_scheduler' in options:
        return []
    was, now = _written_for(Config.fromfile(cfg.filename)), _length(cfg)
    if was is None or now is None or was[0] != now[0] or was == now:
        return []
    (name, old), (_, new) = was, now
    in_epochs = name == 'max_epochs'
    schedules = [item for item in list_schedules(cfg.param_scheduler) if item[1].get('by_epoch', True) == in_epochs]
    warm_ups = {option for option, schedule in schedules if (found := warm_up(schedule)) and found[0] == 'end'}
    start = max((schedule.get('end', 0) for option, schedule in schedules if option in warm_ups), default=0)
    changes = []
    for option, schedule in schedules:
        if option in warm_ups or option in options:
            continue
        for key, value in _scaled(schedule, old, new, start).items():
            if f'{option}.{key}' not in options and value != schedule[key]:
                changes.append(f'{option}.{key} {schedule[key]} -> {value}')
                schedule[key] = value
    return [f'schedules follow train_cfg.{name} {old} -> {new}: {", ".join(changes)}'] if changes else []


def _length(cfg: Config) -> tuple[str, int] | None:
    """Setting and value of the length of a training; None if it has none, or a loop of its own."""
    settings = deepcopy(cfg.get('train_cfg'))
    try:
        choose_loop(settings)
    except (AttributeError, UserError):
        return None
    name = LENGTHS.get(settings['type'])
    return (name, settings[name]) if name else None


def _written_for(cfg: Config) -> tuple[str, int] | None:
    """Length of the training in the file that sets the schedules, or in the first one above it that sets a length."""
    if not re.search(r'\bparam_scheduler\b', Path(cfg.filename).read_text(encoding='utf-8')):
        for base in Config._get_base_files(cfg.filename):
            base_cfg = Config.fromfile(Config._get_cfg_path(base, cfg.filename)[0])
            if 'param_scheduler' in base_cfg and (found := _written_for(base_cfg)):
                return found
    return _length(cfg)


def _scaled(schedule: dict, old: int, new: int, start: int) -> dict:
    """New values of the settings of a schedule that count steps; empty if the schedule would have no step left.

    Args:
        schedule: Settings of the schedule.
        old: Length of the training that they are written for.
        new: Length of the training.
        start: Step at which the warm-up ends; steps up to it stay.
    """

    def moved(step: int) -> int:
        if step <= start:
            return step
        if old <= step <= old + 1:  # a schedule may reach its final value in the step after the last one
            return new + step - old
        return max(round(step * new / old), 1)

    begin, end = schedule.get('begin', 0), schedule.get('end', INF)
    values = dict(begin=moved(begin), end=end if end >= INF else moved(end))
    span = (old if end >= INF else end) - begin
    new_span = (new if end >= INF else values['end']) - values['begin']
    if new_span <= 0:
        return {}
    for key in SPANS:
        if schedule.get(key):
            is_whole = schedule[key] == span
            values[key] = new_span if is_whole else max(round(schedule[key] * new / old), 1)
    for key in ('milestones', 'periods'):
        if key in schedule:
            values[key] = [max(round(step * new / old), 1) for step in schedule[key]]
    return {key: value for key, value in values.items() if key in schedule}
