"""Length of a training: the loop that counts it in epochs or iterations, and the schedules that must fit into it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim.scheduler.param_scheduler import INF
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop

from mogacore.errors import UserError
from mogacore.text import type_name

# Settings of train_cfg: loop -> the setting that gives its length.
LENGTHS = {'EpochBasedTrainLoop': 'max_epochs', 'IterBasedTrainLoop': 'max_iters'}


def choose_loop(train_cfg: dict, options: Collection[str] = ()) -> None:
    """Set ``type`` of the settings of a training loop; changes them in place.

    ``by_epoch`` decides where it is given; the length in the other unit, which a base config may contain, is then
    removed, unless it is an option of the command line. Custom loops are left unchanged.

    Args:
        train_cfg: The settings.
        options: Names of the options of the command line, such as ``'train_cfg.max_iters'``.

    Raises:
        UserError: If the length is missing, or given in a unit that the loop does not count in.
    """
    by_epoch = train_cfg.pop('by_epoch', None)
    loop = type_name(train_cfg['type']) if train_cfg.get('type') else None
    if loop is not None and loop not in LENGTHS:
        return
    if by_epoch is not None:
        loop = 'EpochBasedTrainLoop' if by_epoch else 'IterBasedTrainLoop'
    elif loop is None:
        only_iters = 'max_iters' in train_cfg and 'max_epochs' not in train_cfg
        loop = 'IterBasedTrainLoop' if only_iters else 'EpochBasedTrainLoop'
    length = LENGTHS[loop]
    other = next(name for name in LENGTHS.values() if name != length)
    is_option = f'train_cfg.{other}' in options and 'train_cfg.by_epoch' not in options
    if other in train_cfg and (by_epoch is None or is_option):
        switch = loop == 'IterBasedTrainLoop'
        raise UserError(
            f'train_cfg.{other}={train_cfg[other]} has no effect, since {loop} counts {length}: set '
            f'train_cfg.{length}, or train_cfg.by_epoch={switch} to train for {other}'
        )
    train_cfg.pop(other, None)
    if length not in train_cfg:
        raise UserError(f'train_cfg has no {length}, the length of {loop}: set train_cfg.{length}')
    train_cfg['type'] = loop


def check_schedules(cfg: Config) -> list[str]:
    """Compare the schedules of a config with its training length where both have the same unit.

    Returns:
        One line for each schedule that the training cuts off or never reaches, and for rates that stop changing early.

    Raises:
        UserError: If a warm-up ends after the training, or a schedule never takes a step.
    """
    loop = cfg.train_cfg.get('type')
    if loop not in LENGTHS:
        return []
    length = LENGTHS[loop]
    total = cfg.train_cfg[length]
    by_epoch = length == 'max_epochs'
    schedules = list(list_schedules(cfg.get('param_scheduler')))
    found, ends = [], []
    for option, schedule in schedules:
        is_epochs = schedule.get('by_epoch', True)
        if is_epochs and not by_epoch and not schedule.get('convert_to_iter_based'):
            raise UserError(
                f'{option} ({schedule["type"]}) takes a step per epoch, but the training counts {length}: set '
                f'{option}.by_epoch=False and its lengths in iterations'
            )
        if is_epochs == by_epoch:
            reason, is_error = _conflict(option, schedule, total, f'train_cfg.{length}={total}')
            if is_error:
                raise UserError(reason)
            found.append(reason)
            ends.append((schedule.get('end', INF), option))
        elif not warm_up(schedule):
            ends.append((INF, option))
    if ends and max(ends)[0] < total:
        end, option = max(ends)
        found.append(
            f'the last schedule, {option}, ends at {end}, but training at train_cfg.{length}={total}: the rates stay '
            f'constant from there; set {_end_of(option, dict(schedules)[option])} if this is not intended'
        )
    return list(filter(None, found))


def list_schedules(settings) -> Iterator[tuple[str, dict]]:
    """Yield each schedule of ``param_scheduler`` with the name of its option, such as ``param_scheduler.0``."""
    pending = [('param_scheduler', settings)]
    while pending:
        option, value = pending.pop(0)
        if isinstance(value, dict) and 'type' in value:
            yield option, value
        elif isinstance(value, dict):
            pending.extend((f'{option}.{name}', item) for name, item in value.items())
        elif isinstance(value, (list, tuple)):
            pending.extend((f'{option}.{number}', item) for number, item in enumerate(value))


def _conflict(option: str, schedule: dict, total: float, length: str, scale: int = 1) -> tuple[str, bool]:
    """How a schedule does not fit into a training, and whether it is an error; '' if it fits.

    Args:
        option: Name of the schedule's option.
        schedule: Settings of the schedule.
        total: Length of the training.
        length: That length with its option, for the message.
        scale: Steps of the training in one step of the schedule.
    """
    begin, end = schedule.get('begin', 0), schedule.get('end', INF)
    end = total / scale if end >= INF else end
    name = f'{option} ({schedule["type"]})'
    if phase := warm_up(schedule):
        key, start, steps = phase
        if (last := start + (end - start if steps is None else steps)) * scale > total:
            return (
                f'the warm-up of {name} ends at {last * scale:g}, but training at {length}: train longer, or set '
                f'{option}.{key} to a smaller value'
            ), True
    if begin * scale >= total:
        return f'{name} begins at {begin * scale:g}, but training ends at {length}: it has no effect', False
    if end * scale > total + 1:  # a schedule that would reach its final value in the step after the last one fits
        return (
            f'{name} ends at {end * scale:g}, but training at {length}: the schedule is cut off; set '
            f'{_end_of(option, schedule)} if this is not intended'
        ), False
    return '', False


def _end_of(option: str, schedule: dict) -> str:
    """Names of the options that give the end of a schedule."""
    others = [key for key in ('T_max', 'cosine_end', 'total_steps') if schedule.get(key)]
    return ' and '.join(f'{option}.{key}' for key in ('end', *others))


def warm_up(schedule: dict) -> tuple[str, float, float | None] | None:
    """The phase in which the rate rises, if any: the setting that ends it, its first step, its length or None."""
    kind = type_name(schedule['type'])
    begin, end = schedule.get('begin', 0), schedule.get('end', INF)
    rises = dict(
        Linear=schedule.get('start_factor', 1 / 3) < schedule.get('end_factor', 1),
        Constant=schedule.get('factor', 1 / 3) < 1,
    )
    if any(kind.startswith(name) and is_rising for name, is_rising in rises.items()):
        return 'end', begin, None
    if kind == 'WarmupCosineLR':
        return 'warmup', begin, schedule['warmup']
    steps = schedule.get('total_steps') or end - begin
    if kind == 'OneCycleLR' and steps < INF:
        key = 'total_steps' if schedule.get('total_steps') else 'end'
        return key, begin, schedule.get('pct_start', 0.3) * steps
    return None


@HOOKS.register_module()
class CheckSchedulesHook(Hook):
    """Warns of schedules that do not fit into the training, also where this depends on the amount of data.

    A warm-up in iterations may be longer than a training of some epochs. That is a warning, not an error as in
    :func:`check_schedules`, since a recipe is often tried on a few images.

    Args:
        warnings: What :func:`check_schedules` returned.
        changes: What :func:`mogacore.engine.rescale.follow_length` returned, for the log.
    """

    priority = 'VERY_HIGH'

    def __init__(self, warnings: list[str], changes: Iterable[str] = ()):
        self.warnings, self.changes = warnings, changes

    def before_train(self, runner) -> None:
        for line in self.changes:
            runner.logger.warning(line)
        for line in self.warnings:
            runner.logger.warning(line)
        by_iter = isinstance(runner.train_loop, IterBasedTrainLoop)
        epoch_length = len(runner.train_dataloader)
        length = f'iteration {runner.max_iters}'
        if not by_iter:
            length += f' ({runner.max_epochs} epochs of {epoch_length})'
        for option, schedule in list_schedules(runner.cfg.get('param_scheduler')):
            if schedule.get('by_epoch', True) == by_iter:
                reason, _ = _conflict(option, schedule, runner.max_iters, length, epoch_length if by_iter else 1)
                if reason:
                    runner.logger.warning(reason)
