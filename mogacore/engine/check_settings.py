"""Finds settings of a part with a type whose values its class does not take, by annotations, or by name in a table.

Many classes of the task libraries read their settings late, such as a metric after the first epoch, or accept values
that turn them off, such as an interval of 0.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from mmengine.runner import Priority
from torch import Tensor

from mogacore.kinds import describe, fits, hints_of, leaf_kinds
from mogacore.libraries import TASK_LIBRARIES
from mogacore.text import show

Problem = tuple[str, str]  # path, and what is wrong with it
# Packages whose classes are checked; the user's own may take other values.
LIBRARIES = ('mogacore', 'mmengine', 'mmcv', 'torch', *TASK_LIBRARIES)
# Registries whose classes have annotations that are right also for other values than texts.
STRICT = ('dataloader', 'evaluator', 'hook', 'log_processor', 'loop', 'metric', 'mp_cfg', 'randomness')
# Settings that a builder reads, which are no parameters of the class.
OF_BUILDERS = ('convert_to_iter_based', 'priority')
NUMBERS = {int, float, bool, None, type(None), Tensor}


class Rule(NamedTuple):
    """What a setting may be.

    Args:
        accepts: Function of a value.
        text: The accepted values, as in 'it must be ...'.
        unless: Setting of the same part that allows any value.
    """

    accepts: Callable[[Any], bool]
    text: str
    unless: str = ''


def is_whole(value: Any, least: int) -> bool:
    """Whether a value is an integer of at least ``least``."""
    return fits(value, int) and value >= least


def _some(rule: Rule) -> Rule:
    """A value that fits a rule, or a list of such values."""

    def accepts(value: Any) -> bool:
        return _is_list(value, rule, 1) if isinstance(value, list | tuple) else rule.accepts(value)

    return Rule(accepts, f'{rule.text}, or a list of these that is not empty')


def _is_list(value: Any, rule: Rule, least: int) -> bool:
    return isinstance(value, list | tuple) and len(value) >= least and all(map(rule.accepts, value))


def _is_pipeline(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(step, Mapping) or callable(step) for step in value)


def _is_pattern(value: Any) -> bool:
    try:
        re.compile(value)
    except (re.error, TypeError):
        return False
    return True


def _one_of(*choices: Any) -> Rule:
    return Rule(lambda value: value in choices, f'one of {", ".join(map(str, choices))}')


COUNT = Rule(lambda value: is_whole(value, 1), 'a positive integer')
NUMBER = Rule(lambda value: fits(value, float), 'a number')
NUMBER_OR_NONE = Rule(lambda value: value is None or fits(value, float), 'a number or None')
COUNT_FROM_0 = Rule(lambda value: is_whole(value, 0), '0 or a positive integer')
SWITCH = Rule(lambda value: fits(value, bool), 'True or False')
PRIORITY = Rule(
    lambda value: (isinstance(value, str) and value.upper() in Priority.__members__) or value in range(101),
    f'0 to 100 or one of {", ".join(Priority.__members__)}',
)
PATTERN = Rule(_is_pattern, 'a regular expression')
# Runs are resumed from the files *.pth of the work dir.
CHECKPOINT_NAME = Rule(
    lambda value: isinstance(value, str) and value.endswith('.pth') and value.count('{}') == 1 and '/' not in value,
    'a name such as epoch_{}.pth',
)
INTERVALS = Rule(
    lambda value: isinstance(value, list | tuple)
    and all(_is_list(pair, COUNT_FROM_0, 2) and len(pair) == 2 and pair[1] > 0 for pair in value),
    'a list of pairs (begin, interval) of integers',
)
COLOR_TYPES = ('color', 'grayscale', 'unchanged', 'color_ignore_orientation', 'grayscale_ignore_orientation')  # of mmcv
COCO_ITEMS = (
    'mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000',
    'AR_l@1000',
)  # fmt: skip
# Settings by the name of the registry, or of the part without one, and by their own. CLASS.SETTING comes before
# SETTING. The default of a class fits always.
RULES: dict[str, dict[str, Rule]] = {
    'metric': {
        'topk': _some(COUNT),
        'thr': NUMBER,
        'thrs': _some(NUMBER_OR_NONE),
        'average': _one_of('micro', 'macro', None),
        'AveragePrecision.average': _one_of('macro', None),
        'items': _some(_one_of('precision', 'recall', 'f1-score', 'support')),
        'num_classes': COUNT,
        'iou_metrics': _some(_one_of('mIoU', 'mDice', 'mFscore')),
        'metric_items': _some(_one_of(*COCO_ITEMS)),
        'CocoMetric.proposal_nums': Rule(
            lambda value: _is_list(value, COUNT, 3), 'a list of at least three positive integers', 'use_mp_eval'
        ),
        'iou_thrs': _some(NUMBER),
        'iou_type': _one_of('keypoints', 'keypoints_crowd'),
        'num_thrs': COUNT,
    },
    'transform': {'color_type': _one_of(*COLOR_TYPES)},
    # The checks of data, see mogacore.datasets.checks, describe other settings better.
    'dataset': {
        'pipeline': Rule(_is_pipeline, 'a list of dicts'),
        'data_root': Rule(lambda value: fits(value, str | None), 'a text or None'),
    },
    'dataloader': {
        'prefetch_factor': COUNT,
        'generator': Rule(lambda value: False, 'None, since randomness.seed sets the seed'),
        'multiprocessing_context': _one_of('fork', 'forkserver', 'spawn'),
        'worker_init_fn': Rule(lambda value: isinstance(value, Mapping), 'a dict with the function as its type'),
        'timeout': Rule(lambda value: fits(value, float) and value >= 0, '0 or a positive number of seconds'),
    },
    'loop': {'dynamic_intervals': INTERVALS, 'val_begin': COUNT_FROM_0},
    'hook': {
        **dict.fromkeys(('interval', 'interval_exp_name', 'max_keep_ckpts', 'num_samples'), COUNT),
        'filename_tmpl': CHECKPOINT_NAME,
        'priority': PRIORITY,
        'rule': _some(_one_of('greater', 'less', None)),
    },
    'log_processor': {'mean_pattern': PATTERN, 'num_digits': COUNT_FROM_0, 'window_size': COUNT},
    'mp_cfg': {'mp_start_method': _one_of('fork', 'forkserver', 'spawn'), 'opencv_num_threads': COUNT_FROM_0},
    'optim_wrapper': {'accumulative_counts': COUNT},
    'parameter scheduler': {
        'T_max': COUNT,
        'begin': COUNT_FROM_0,
        'convert_to_iter_based': SWITCH,
        'end': COUNT,
        'start_factor': Rule(lambda value: fits(value, float) and 0 < value <= 1, 'more than 0 and at most 1'),
    },
}


def check_settings(cls: Callable, registry: str, settings: Mapping, path: str) -> Iterator[Problem]:
    """Problems of the settings of a part with a type.

    Args:
        cls: Its class.
        registry: Name of the registry of the class; '' if it has none.
        settings: The part.
        path: Its path in the config.
    """
    hints = _hints(cls)
    is_known = getattr(cls, '__module__', '').partition('.')[0] in LIBRARIES
    rules = RULES.get(registry, {})
    for key, value in settings.items():
        default, hint = hints.get(key, (inspect.Parameter.empty, Any))
        rule = rules.get(f'{getattr(cls, "__name__", "")}.{key}', rules.get(key))
        if _is_equal(value, default) or (rule and settings.get(rule.unless)):
            continue
        if rule is not None and (key in OF_BUILDERS or (is_known and key in hints)):
            if not rule.accepts(value):
                is_named = default in (None, -1) and 'None' not in rule.text
                other = f', or {default}, which is the default' if is_named else ''
                yield f'{path}.{key}', f'is {show(value)}: it must be {rule.text}{other}'
        elif _is_text_for_numbers(value, hint):
            yield f'{path}.{key}', f'is the text {show(_first_text(value))}: it must be {describe(hint)}'
        elif is_known and registry in STRICT and not fits(value, hint, in_config=True):
            yield f'{path}.{key}', f'is {show(value)}: it must be {describe(hint)}'


def _is_equal(value: Any, default: Any) -> bool:
    """Whether a value is the default; True is not 1."""
    return type(value) is type(default) and bool(value == default)


def _is_text_for_numbers(value: Any, hint: Any) -> bool:
    kinds = set(leaf_kinds(hint)) if _first_text(value) is not None else set()
    return kinds <= NUMBERS and not kinds.isdisjoint({int, float, bool})


def _first_text(value: Any) -> str | None:
    if isinstance(value, list | tuple):
        return next((text for text in map(_first_text, value) if text is not None), None)
    return value if isinstance(value, str) else None


@cache
def _hints(cls: Callable) -> dict[str, tuple[Any, Any]]:
    """Default and annotation of each parameter of a class, of its parents while ``__init__`` takes further keywords."""
    found: dict[str, tuple[Any, Any]] = {}
    inits = [vars(base)['__init__'] for base in getattr(cls, '__mro__', ())[:-1] if '__init__' in vars(base)]
    for function in inits if inspect.isclass(cls) else [cls]:
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            break
        hints = hints_of(function)
        for parameter in parameters:
            default = parameter.default
            implied = type(default) if isinstance(default, bool | float) else Any
            found.setdefault(parameter.name, (default, hints.get(parameter.name, implied)))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found
