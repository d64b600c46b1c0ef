"""Optimizer settings and schedules of a resumed run: as in an uninterrupted run with the current config.

A checkpoint holds the state of the optimizer (its moments), its settings (rates, momenta, weight decay) and the state
of the schedules. If settings and schedules are those of the current config, they are loaded as they are. Otherwise the
settings come from the current config, and its schedules are replayed from the first step to that of the checkpoint.
Schedules of mmengine compute a value from the previous one, so there is no closed form that covers all of them.
"""

from __future__ import annotations

import copy
from itertools import zip_longest
from types import SimpleNamespace
from typing import NoReturn

from mmengine.hooks import Hook
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop

from mogacore.errors import UserError
from mogacore.text import shorten

from .optim import named_wrappers

# State of a schedule that changes in every step, and state that a metric changes.
COUNTERS = ('_global_step', 'last_step', '_last_value')
METRIC_STATE = ('best', 'num_bad_epochs', 'cooldown_counter')
# Entries of a parameter group that are not settings.
NOT_SETTINGS = ('params', 'param_names')
# Settings that only some optimizers have.
HALLMARKS = ('betas', 'momentum', 'alpha', 'rho')
# Options of optimizers that add tensors to their state.
STATE_OPTIONS = ('amsgrad', 'centered')
MAX_LISTED = 6


def check_training_state(container: dict, path: str) -> None:
    """Check that a checkpoint contains all that a run needs to resume.

    Raises:
        UserError: If the progress, the optimizer or the schedules are missing.
    """
    meta = container.get('meta')
    missing = None
    if not isinstance(meta, dict) or not all(isinstance(meta.get(key), int) for key in ('epoch', 'iter')):
        missing = 'training state'
    elif not _groups_of(container):
        missing = 'state of the optimizer'
    elif not isinstance(container.get('param_schedulers'), (list, dict)):
        groups = [group for named in _groups_of(container).values() for group in named]
        if any(str(key).startswith('initial_') for group in groups for key in group):
            missing = 'state of the schedules'
    if missing:
        raise UserError(
            f'{path} contains no {missing}, so a run cannot resume from it: resume from an epoch_*.pth or iter_*.pth '
            f'file, or start a new run from its weights with --cfg-options load_from={path}'
        )


def replay(schedules: list[_ParamScheduler], num_epochs: int, num_iters: int, batch_in_epoch: int = 0) -> None:
    """Advance schedules from their first step as a training would, without the optimizer.

    Args:
        schedules: Schedules of one optimizer, which must be at their first step.
        num_epochs: Number of finished epochs; 0 in a run that counts iterations.
        num_iters: Number of finished iterations.
        batch_in_epoch: Number of them in the unfinished epoch.
    """
    by_iter = [schedule for schedule in schedules if not schedule.by_epoch]
    by_epoch = [schedule for schedule in schedules if schedule.by_epoch]
    verbose = [schedule.verbose for schedule in schedules]
    for schedule in schedules:
        schedule.verbose = False
        schedule.optimizer._global_step = 0  # otherwise mmengine warns that the schedule is ahead of its optimizer
    done = 0
    for epoch in range(1, num_epochs + 1):
        end = (num_iters - batch_in_epoch) * epoch // num_epochs
        _advance(by_iter, end - done)
        _advance(by_epoch, 1)
        done = end
    _advance(by_iter, num_iters - done)
    for schedule, is_verbose in zip(schedules, verbose, strict=True):
        schedule.verbose = is_verbose
    _note_values(schedules)


def _advance(schedules: list[_ParamScheduler], num_steps: int) -> None:
    """Take steps of several schedules in turn; a schedule outside its range only counts, which takes no time."""
    while num_steps > 0 and schedules:
        edges = [edge - s._global_step - 1 for s in schedules for edge in (s.begin, s.end)]
        count = min(num_steps, *(edge for edge in edges if edge > 0), num_steps)
        active = [s for s in schedules if s.begin <= s._global_step + 1 < s.end]
        for _ in range(count):
            for schedule in active:
                schedule.step()
        for schedule in schedules:
            if schedule not in active:
                schedule._global_step += count
        num_steps -= count


@HOOKS.register_module()
class RestoreSchedulesHook(Hook):
    """Gives a resumed run the rates, momenta and weight decays of an uninterrupted run with the current config.

    The state of a schedule that follows a metric is kept, and so are the reductions that it has made.

    Raises:
        UserError: If the checkpoint is of another optimizer or other parameter groups.
    """

    priority = 'HIGHEST'

    def __init__(self) -> None:
        self.pending: list[_Replay] = []

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        names = {name: type(wrapper.optimizer).__name__ for name, wrapper in named_wrappers(runner).items()}
        checkpoint['meta']['optimizers'] = names

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if not runner._resume:
            return
        history = checkpoint.get('message_hub')
        if not isinstance(history, dict) or not {'log_scalars', 'runtime_info', 'resumed_keys'} <= history.keys():
            runner.logger.warning('the checkpoint has no message_hub: the logged history and the best score are lost')
            checkpoint['message_hub'] = history = runner.message_hub.state_dict()
        _check_optimizers(runner, checkpoint)
        groups, states = _groups_of(checkpoint), _by_optimizer(checkpoint.get('param_schedulers'))
        schedules = _by_optimizer(runner.param_schedulers)
        parts = [
            _Replay(wrapper, schedules.get(name, []), groups[name], states.get(name, []))
            for name, wrapper in named_wrappers(runner).items()
        ]
        changes = [change for part in parts for change in part.changes(checkpoint['meta']['iter'])]
        if changes:
            self.pending = parts
            # mmengine would load states into schedules of another kind.
            checkpoint['param_schedulers'] = _states_of(runner.param_schedulers)
        lengths = [(key, history['runtime_info'].get(key), getattr(runner, key)) for key in ('max_epochs', 'max_iters')]
        changes = [f'{key} {was} -> {now}' for key, was, now in lengths if was not in (None, now)] + changes
        if changes:
            runner.logger.warning(
                f'resuming with changed settings: {shorten(dict.fromkeys(changes), MAX_LISTED)}; the rates are '
                'those of an uninterrupted run with the new settings'
            )

    def before_train(self, runner) -> None:
        progress = (runner.epoch, runner.iter, getattr(runner.train_loop, 'batch_in_epoch', 0))
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            progress = (0, runner.iter, 0)
        for part in self.pending:
            part.run(*progress)
        self.pending = []


class _Replay:
    """One optimizer with its schedules, at the first step of the current config, and their state in a checkpoint.

    Args:
        wrapper: Wrapper of the optimizer.
        schedules: Schedules of the optimizer.
        saved_groups: Parameter groups of the checkpoint.
        saved_states: States of the schedules of the checkpoint.
    """

    def __init__(self, wrapper, schedules: list[_ParamScheduler], saved_groups: list[dict], saved_states: list[dict]):
        self.wrapper, self.schedules, self.saved_states = wrapper, schedules, saved_states
        self.first_groups = [_settings(group) for group in wrapper.param_groups]
        self.first_states = [_state(schedule) for schedule in schedules]
        self.saved_groups = [_settings(group) for group in saved_groups]

    def changes(self, num_iters: int) -> list[str]:
        """List what differs between the checkpoint and the current config, as ``name old -> new``."""
        found = []
        for saved, first in zip(self.saved_groups, self.first_groups, strict=False):
            was, now = _base(saved), _base(first)
            found += [f'{key} {was[key]} -> {now[key]}' for key in now if key in was and was[key] != now[key]]
        for number, (old, new) in enumerate(zip_longest(self.saved_states, self.first_states)):
            name = f'param_scheduler.{number}'
            if old is None or new is None:
                found.append(f'{name} {"added" if old is None else "removed"}')
                continue
            was, now = _constants(old), _constants(new)
            found += [
                f'{name}.{key} {was.get(key)} -> {now.get(key)}'
                for key in sorted(was.keys() | now.keys())
                if was.get(key) != now.get(key)
            ]
            if not old.get('by_epoch') and old.get('_global_step') != num_iters:
                found.append(f'finished iterations {old.get("_global_step")} -> {num_iters}')
        return found

    def run(self, *progress: int) -> None:
        """Set groups and schedules to a step of the current config, see :func:`replay`; keep reductions by a metric."""
        factors = self._reductions(*progress)
        groups = self.wrapper.param_groups
        for group, settings in zip(groups, self.first_groups, strict=True):
            kept = {key: group[key] for key in NOT_SETTINGS if key in group}
            group.clear()
            group.update(copy.deepcopy(settings), **kept)
        for schedule, state in zip(self.schedules, self.first_states, strict=True):
            schedule.load_state_dict(copy.deepcopy(state))
        replay(self.schedules, *progress)
        for schedule, saved in zip(self.schedules, self.saved_states, strict=False):
            if _follows_metric(schedule) and 'monitor' in saved:
                schedule.load_state_dict({key: saved[key] for key in (*COUNTERS, *METRIC_STATE)})
        for key, by_group in factors.items():
            for group, factor in zip(groups, by_group, strict=False):
                group[key] *= factor
        _note_values(self.schedules)

    def _reductions(self, *progress: int) -> dict[str, list[float]]:
        """Factors by which schedules that follow a metric have changed the checkpoint's groups, by parameter.

        The saved values are compared with those that the other saved schedules give without them.
        """
        pairs = list(zip(self.schedules, self.saved_states, strict=False))
        names = {schedule.param_name for schedule, saved in pairs if _follows_metric(schedule) and 'monitor' in saved}
        if not names:
            return {}
        groups = [dict(group, **_base(group)) for group in self.saved_groups]
        alone = SimpleNamespace(param_groups=groups, step=self.wrapper.step)  # schedules look at both
        others = []
        for schedule, saved in pairs:
            if _follows_metric(schedule) or saved.keys() - {'optimizer'} != _state(schedule).keys():
                continue
            other = copy.copy(schedule)
            other.load_state_dict(dict(copy.deepcopy(saved), _global_step=-1, last_step=-1))
            other.optimizer = alone
            other.step()
            others.append(other)
        num_iters = [saved['_global_step'] for saved in self.saved_states if not saved['by_epoch']]
        replay(others, progress[0], max(num_iters, default=progress[1]), progress[2])
        return {
            name: [saved[name] / group[name] for saved, group in zip(self.saved_groups, groups, strict=True)]
            for name in names
        }


def _follows_metric(schedule: _ParamScheduler) -> bool:
    return getattr(schedule, 'need_val_args', False)


def _note_values(schedules: list[_ParamScheduler]) -> None:
    for schedule in schedules:
        schedule._last_value = [group[schedule.param_name] for group in schedule.optimizer.param_groups]


def _by_optimizer(schedules: list | dict | None) -> dict[str, list]:
    """Schedules, or their states, by the name of the optimizer; a single one is named ''."""
    return schedules if isinstance(schedules, dict) else {'': schedules or []}


def _groups_of(container: dict) -> dict[str, list[dict]]:
    """Parameter groups of a checkpoint by the name of the optimizer; empty if there are none."""
    optimizer = container.get('optimizer')
    if not isinstance(optimizer, dict):
        return {}
    states = {'': optimizer} if 'param_groups' in optimizer else optimizer
    groups = {}
    for name, state in states.items():
        if not isinstance(state, dict) or not isinstance(state.get('param_groups'), list):
            return {}
        # mmengine appends settings of its own, which log the rate without the factors of the groups.
        extra = state.get('base_param_settings')
        groups[name] = state['param_groups'] + ([extra] if extra is not None else [])
        if not all(isinstance(group, dict) and 'params' in group for group in groups[name]):
            return {}
    return groups


def _check_optimizers(runner, checkpoint: dict) -> None:
    saved, wrappers = _groups_of(checkpoint), named_wrappers(runner)
    names = checkpoint['meta'].get('optimizers', {})
    for name in sorted(saved.keys() | wrappers.keys()):
        if name not in saved or name not in wrappers:
            _refuse(runner, f'the optimizers {list(saved)}', str(list(wrappers)))
        optimizer = wrappers[name].optimizer
        groups, kind = optimizer.param_groups, type(optimizer).__name__
        saved_groups = [group for group in saved[name] if isinstance(group['params'], list)]
        if names.get(name, kind) != kind or not _same_kind(saved[name][0], groups[0]):
            _refuse(runner, f'the optimizer {names.get(name, "of another type")}', kind)
        for option in STATE_OPTIONS:
            was, now = (part[0].get(option, False) for part in (saved[name], groups))
            if was != now:
                _refuse(runner, f'{option}={was}', f'{option}={now}')
        sizes, new_sizes = ([len(group['params']) for group in part] for part in (saved_groups, groups))
        if len(sizes) != len(new_sizes) or (sizes != new_sizes and not _is_sharded(saved_groups)):
            _refuse(runner, f'parameter groups of {sizes} parameters', f'groups of {new_sizes}')


def _refuse(runner, was: str, now: str) -> NoReturn:
    path = runner._load_from
    raise UserError(
        f'{path} was saved with {was}, but this run has {now}: resume with the optimizer and paramwise_cfg of the '
        f'checkpoint, or start a new run from its weights with --cfg-options load_from={path}'
    )


def _same_kind(saved: dict, group: dict) -> bool:
    """Whether two parameter groups have the settings of one kind of optimizer, if the checkpoint does not name it."""
    was, now = _base(saved), _base(group)
    return all((key in was) == (key in now) for key in HALLMARKS)


def _is_sharded(groups: list[dict]) -> bool:
    """Whether the groups list parameters by name, as those of a sharded model do."""
    return any(isinstance(param, str) for group in groups for param in group['params'])


def _settings(group: dict) -> dict:
    return {key: copy.deepcopy(value) for key, value in group.items() if key not in NOT_SETTINGS}


def _base(group: dict) -> dict:
    """Settings of a parameter group that schedules start from: those of the config."""
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in _settings(group).items()}
    initial = {key.removeprefix('initial_'): settings.pop(key) for key in list(settings) if key.startswith('initial_')}
    if 'betas' in settings and 'momentum' in settings:  # the latter is a helper of mmengine's momentum schedules
        now = settings.pop('momentum')
        settings['betas'] = (initial.pop('momentum', now), *settings['betas'][1:])
    return settings | initial


def _state(schedule: _ParamScheduler) -> dict:
    return {key: copy.deepcopy(value) for key, value in schedule.state_dict().items() if not callable(value)}


def _states_of(schedules: list | dict | None) -> list | dict:
    if isinstance(schedules, dict):
        return {name: [_state(schedule) for schedule in part] for name, part in schedules.items()}
    return [_state(schedule) for schedule in schedules or []]


def _constants(state: dict) -> dict:
    """The part of a schedule's state that does not change, without the base values, which the groups have too."""
    dropped = (*COUNTERS, *METRIC_STATE, 'base_values', 'verbose', 'optimizer')
    return {key: value for key, value in state.items() if key not in dropped}
