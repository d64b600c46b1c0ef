"""Finds parts of a config that have a value of another kind than what reads them needs, such as a number for a dict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from mogacore.errors import UserError
from mogacore.kinds import describe, fits
from mogacore.text import show

from .check_settings import Problem, is_whole
from .launch import LAUNCHERS

# Parts of the Runner that are dicts.
DICTS = (
    'model', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'train_cfg', 'val_cfg', 'test_cfg',
    'optim_wrapper', 'default_hooks', 'env_cfg', 'auto_scale_lr', 'log_processor', 'visualizer', 'randomness',
    'data_preprocessor',
)  # fmt: skip
# Parts that are lists of dicts; those after the first may be a dict.
LISTS = ('custom_hooks', 'param_scheduler', 'val_evaluator', 'test_evaluator')
# Kinds of other settings at the top level.
KINDS: dict[str, Any] = {
    **dict.fromkeys(('data_help', 'experiment_name', 'runner_type', 'work_dir'), str),
    **dict.fromkeys(('fast_data', 'find_unused_parameters', 'load_allow_other_classes', 'load_ema', 'resume'), bool),
    **dict.fromkeys(('load_allow_missing', 'load_allow_unexpected'), str | list[str]),
    **dict.fromkeys(('custom_imports', 'model_wrapper_cfg', 'tta_model'), dict),
    'compile': bool | dict,
    'input_shape': list[int],
    'launcher': Literal[LAUNCHERS],
    'sync_bn': Literal['torch', 'mmcv'],
    'tta_views': list[list],
}
# Settings that are True or False, by the name of the part that contains them.
SWITCHES = {'auto_scale_lr': ('enable',), 'env_cfg': ('cudnn_benchmark',), 'train_cfg': ('by_epoch',)}
# Settings that are dicts, by the end of the name of the part that contains them.
INNER_DICTS = {
    'optim_wrapper': ('clip_grad', 'optimizer', 'paramwise_cfg'), '_dataloader': ('dataset', 'sampler'),
    'env_cfg': ('dist_cfg', 'mp_cfg'),
}  # fmt: skip
# The smallest value of settings that are whole numbers, by the end of the name of the part that contains them.
WHOLE = {
    'train_cfg': {'max_epochs': 1, 'max_iters': 1, 'val_interval': 1},
    '_dataloader': {'batch_size': 1, 'num_workers': 0},
    'randomness': {'seed': 0},
    'auto_scale_lr': {'base_batch_size': 1},
    'env_cfg': {'resource_limit': 1},
}
# Settings that are numbers, by the name of the part of optim_wrapper.
NUMBERS = {'optimizer': ('lr', 'weight_decay'), 'clip_grad': ('max_norm', 'clip_value')}
FLAGS = {'launcher': '--launcher', 'resume': '--resume'}  # of commands, by the setting
MAX_SEED = 2**32 - 1  # of numpy
# Parts that a run needs, and the start of the names of those of which all or none may be None.
NEEDED = {
    'train': ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'), 'test': ('model',),
    'infer': ('model', 'test_dataloader'), 'export': ('model',),
}  # fmt: skip
GROUPS = {'train': 'val', 'test': 'test'}
LEVELS = ('CRITICAL', 'ERROR', 'WARNING', 'INFO', 'DEBUG')
EDGES = ('begin', 'end')  # of a schedule


def check_kind(name: str, value: Any) -> Iterator[Problem]:
    """Problems of a part of the Runner, without those of the classes in it."""
    if value is None:
        return
    if name in DICTS and not isinstance(value, Mapping):
        yield name, f'is {show(value)}: it must be a dict'
    elif name in LISTS:
        yield from _check_list(name, value)
    elif name in KINDS and not fits(value, KINDS[name]):
        yield name, f'is {show(value)}: it must be {describe(KINDS[name])}'
    elif name == 'load_from' and not isinstance(value, str):
        yield name, f'is {show(value)}: it must be the path or name of a weight file'
    elif name == 'log_level' and value not in LEVELS:
        yield name, f'is {show(value)}: choose from {", ".join(LEVELS)}'
    elif isinstance(value, Mapping):
        for end, keys in INNER_DICTS.items():
            wrong = [key for key in keys if name.endswith(end) and not isinstance(value.get(key), Mapping | None)]
            yield from ((f'{name}.{key}', f'is {show(value[key])}: it must be a dict') for key in wrong)
        for end, least in WHOLE.items():
            for key in least.keys() & value.keys() if name.endswith(end) else ():
                if not is_whole(value[key], least[key]) and not (key == 'seed' and value[key] is None):
                    kind = 'a positive integer' if least[key] else '0 or a positive integer'
                    yield f'{name}.{key}', f'is {show(value[key])}: it must be {kind}'

        for key in SWITCHES.get(name, ()):
            if not fits(value.get(key, False), bool):
                yield f'{name}.{key}', f'is {show(value[key])}: it must be True or False'
        if name == 'randomness' and is_whole(value.get('seed'), MAX_SEED + 1):
            yield f'{name}.seed', f'is {show(value["seed"])}: it must be at most {MAX_SEED}'
        if name == 'default_hooks':
            lacking = [key for key, hook in value.items() if isinstance(hook, Mapping) and 'type' not in hook]
            yield from ((f'{name}.{key}', 'has no type: add it') for key in lacking)
        if name == 'optim_wrapper':
            yield from _check_numbers(name, value)
        best = value.get('checkpoint') if name == 'default_hooks' else None
        if isinstance(best, Mapping) and not isinstance(best.get('save_best'), str | list | tuple | None):
            yield (
                f'{name}.checkpoint.save_best',
                f'is {show(best["save_best"])}: it must be the name of a score, or auto',
            )


def _check_numbers(name: str, value: Mapping) -> Iterator[Problem]:
    for part, keys in NUMBERS.items():
        found = value.get(part)
        if not isinstance(found, Mapping):
            continue
        for key in keys:
            number = found.get(key, 0)
            if not fits(number, float):
                yield f'{name}.{part}.{key}', f'is {show(number)}: it must be a number'
            elif part == 'clip_grad' and key in found and number <= 0:
                yield f'{name}.{part}.{key}', f'is {show(number)}: it must be a positive number'
    clip = value.get('clip_grad')
    if isinstance(clip, Mapping):
        limit = 'clip_value' if clip.get('type') == 'value' else 'max_norm'
        if limit not in clip:
            yield f'{name}.clip_grad', f'has no {limit}: add it'
    paramwise = value.get('paramwise_cfg')
    if isinstance(paramwise, Mapping):
        yield from _check_multipliers(f'{name}.paramwise_cfg', paramwise)


def _check_multipliers(path: str, settings: Mapping) -> Iterator[Problem]:
    for key, value in settings.items():
        if str(key).endswith('_mult') and not (fits(value, float) and value >= 0):
            yield f'{path}.{key}', f'is {show(value)}: it must be 0 or a positive number'
        elif key == 'bypass_duplicate' and not fits(value, bool):
            yield f'{path}.{key}', f'is {show(value)}: it must be True or False'
        elif key == 'custom_keys' and isinstance(value, Mapping):
            for name, part in value.items():
                if isinstance(part, Mapping):
                    yield from _check_multipliers(f'{path}.{key}.{name}', part)
                else:
                    yield f'{path}.{key}.{name}', f'is {show(part)}: it must be a dict, such as dict(lr_mult=0.1)'
        elif key == 'custom_keys':
            yield f'{path}.{key}', f'is {show(value)}: it must be a dict'


def _check_list(name: str, value: Any) -> Iterator[Problem]:
    if isinstance(value, Mapping) and name != LISTS[0]:
        parts = {name: value}
        if name == 'param_scheduler' and 'type' not in value:  # by the name of the optimizer
            parts = {f'{name}.{key}': item for key, item in value.items()}
    elif isinstance(value, list | tuple):
        parts = {f'{name}.{index}': item for index, item in enumerate(value)}
    else:
        yield name, _no_dict(value) if _is_built(value) else f'is {show(value)}: it must be a list of dicts'
        return
    for path, part in parts.items():
        if isinstance(part, list | tuple) and path != name and name == 'param_scheduler':
            yield from _check_list(name, part)
        elif not isinstance(part, Mapping):
            yield path, _no_dict(part)
        elif 'type' not in part and name != 'param_scheduler':
            yield path, 'has no type: add it'
        elif name == 'param_scheduler':
            wrong = [key for key in EDGES if isinstance(part.get(key), str | list | tuple | Mapping)]
            yield from ((f'{path}.{key}', f'is {show(part[key])}: it must be a number') for key in wrong)


def _is_built(value: Any) -> bool:
    return not isinstance(value, str | int | float | list | tuple | Mapping | None)


def _no_dict(value: Any, advice: str = '') -> str:
    """What is wrong with a value in the place of a dict; mmengine cannot write objects into the config of a run."""
    if _is_built(value):
        name = getattr(value, '__name__', type(value).__name__)
        return f'is {show(value)}: use a dict with the class as its type, as in dict(type={name})'
    return f'is {show(value)}: it must be a dict{advice}'


def replaced_dicts(value: Any, before: Any, path: str = '') -> Iterator[Problem]:
    """Options that put something else in the place of a dict with a type, or of a list of dicts; None removes a part.

    Args:
        value: Value of a part with the options.
        before: Its value in the files.
        path: Path of the part.
    """
    items: Iterator[tuple[Any, Any, Any]] = iter(())
    if isinstance(before, Mapping):
        if isinstance(value, Mapping):
            items = ((key, item, before.get(key)) for key, item in value.items())
        elif value is not None and 'type' in before:  # others, such as arch, may also be a name
            yield path, _no_dict(value, f'; set single entries, as in {path}.KEY=VALUE')
    elif isinstance(before, list | tuple) and any(isinstance(item, Mapping) for item in before):
        if isinstance(value, list | tuple):
            items = ((index, *pair) for index, pair in enumerate(zip(value, before, strict=False)))
        elif not isinstance(value, Mapping | None):
            wrong = f'is {show(value)}: it must be a list; set single entries, as in {path}.0.KEY=VALUE'
            yield path, _no_dict(value) if _is_built(value) else wrong
    for key, item, old in items:
        yield from replaced_dicts(item, old, f'{path}.{key}' if path else str(key))


def check_parts(cfg: Mapping, stage: str, options: Mapping | None = None) -> None:
    """Check that a run has its parts, and that no option sets what a command has a flag for.

    Args:
        cfg: The config.
        stage: 'train', 'test', 'infer' or 'export'.
        options: Options of the command line.

    Raises:
        UserError: If a part is missing, or an option would have no effect.
    """
    for name, flag in FLAGS.items():
        if (value := (options or {}).get(name)) not in (None, False, 'none'):
            raise UserError(f'--cfg-options {name}={value} has no effect: use {flag}')
    parts = [f'{GROUPS[stage]}_{kind}' for kind in ('dataloader', 'cfg', 'evaluator') if stage in GROUPS]
    found = [name for name in parts if cfg.get(name) is not None]
    needed = (*NEEDED[stage], *(parts if found or stage == 'test' else ()))
    if lacking := [name for name in needed if cfg.get(name) is None]:
        without = f', or set {" and ".join(found)} to None to train without validation' if lacking[0] in parts else ''
        raise UserError(f'the config has no {lacking[0]}: add it{without if stage == "train" else ""}')
