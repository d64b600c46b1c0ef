"""Checks the types of what was read from a file, so that a malformed file ends with one line wherever it is used."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from torch import Tensor, nn

from mogacore.errors import UserError

PLAIN_KEYS = ('state_dict', 'model', 'module')  # of most writers, timm and DETR, DeepSpeed
EMA_KEYS = ('state_dict_ema', 'model_ema')
RAW_KEY = 'ema_state_dict'  # mmengine's EMAHook swaps the two: this one is raw
BUFFERS = ('running_mean', 'running_var', 'num_batches_tracked')
EXPANDED_LIMIT = 2**30  # bytes
NAME_LIMIT = 1000  # characters
ROOT = 'the checkpoint'

# What a rule accepts, in words and as a function.
Rule = tuple[str, Callable[[Any], bool]]


class MalformedError(UserError):
    """A file whose content has another type than every reader expects."""


def check_container(container: dict, name: object) -> None:
    """Check what every reader of a file uses: text keys, dense tensors, weights and the metainfo in dicts.

    Entries of a state dict that are not tensors are allowed here; strict loading reports them.

    Args:
        container: Content of a file.
        name: The file, for the message.

    Raises:
        MalformedError: Names the first entry of a wrong type.
    """
    _Check(name).container(container)


def check_resume_parts(container: dict, name: object) -> None:
    """Check the types of what a resumed run uses: progress, optimizer, schedulers, messages, gradients, average.

    Does not check that the parts exist, nor that they fit the run's model, optimizer and schedulers.

    Raises:
        MalformedError: Names the first entry of a wrong type.
    """
    _Check(name).resume_parts(container)


def is_state_dict(value: Any) -> bool:
    """Whether a value is a dict with tensors and without further levels."""
    if not isinstance(value, dict):
        return False
    levels = (item for item in value.values() if isinstance(item, dict))
    return _has_tensors(value) and not any(map(_has_tensors, levels))


def _has_tensors(value: dict) -> bool:
    return any(isinstance(item, Tensor) for item in value.values())


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return _flaw(value) is None and value.numel() == 1 and not value.is_complex()
    return isinstance(value, Real) and not isinstance(value, (bool, np.bool_))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= NAME_LIMIT


def _is_path(value: Any) -> bool:
    """Whether a value is text, in which bytes of a file name that are not UTF-8 may be escaped."""
    return isinstance(value, str) and _is_text(re.sub('[\udc80-\udcff]', '?', value))


def _is_list(value: Any, accepts: Callable[[Any], bool], length: int | None = None) -> bool:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return isinstance(value, (list, tuple)) and length in (None, len(value)) and all(map(accepts, value))


def _is_table(value: Any, keys: Callable[[Any], bool] = _is_text, values: Callable[[Any], bool] | None = None) -> bool:
    return isinstance(value, dict) and all(map(keys, value)) and (values is None or all(map(values, value.values())))


def _optional(rule: Rule) -> Rule:
    return f'{rule[0]} or None', lambda value: value is None or rule[1](value)


def _list_of(what: str, accepts: Callable[[Any], bool], length: int | None = None) -> Rule:
    return f'a list of {what}', lambda value: _is_list(value, accepts, length)


INTEGER: Rule = ('an integer', lambda value: _is_integer(value) and abs(value) < 2**62)
COUNT: Rule = ('an integer of 0 or more', lambda value: _is_integer(value) and 0 <= value < 2**62)
POSITIVE: Rule = ('a positive integer', lambda value: _is_integer(value) and 0 < value < 2**62)
SEED: Rule = ('an integer from 0 to 2**32 - 1', lambda value: _is_integer(value) and 0 <= value < 2**32)
NUMBER: Rule = ('a number', _is_number)
TEXT: Rule = ('text', _is_text)
PATH: Rule = ('a path', _is_path)
FLAG: Rule = ('True or False', lambda value: isinstance(value, (bool, np.bool_)))
TABLE: Rule = ('a dict with text keys', _is_table)
NUMBERS = _list_of('numbers', _is_number)
COLORS = _list_of('colors (R, G, B)', lambda value: _is_list(value, _is_number, 3))

DATASET_META = {
    'classes': _list_of('names', _is_text),
    'palette': ('a list of colors or text', lambda value: _is_text(value) or COLORS[1](value)),
    'keypoint_id2name': ('a dict of names', lambda value: _is_table(value, _is_integer, _is_text)),
    'keypoint_name2id': ('a dict of integers', lambda value: _is_table(value, _is_text, _is_integer)),
    'flip_indices': _list_of('integers', _is_integer),
    'keypoint_colors': COLORS,
    'skeleton_links': _list_of('pairs of integers', lambda value: _is_list(value, _is_integer, 2)),
    'skeleton_link_colors': COLORS,
    'dataset_keypoint_weights': NUMBERS,
    'sigmas': NUMBERS,
}
RESUME_META = {'epoch': COUNT, 'iter': COUNT, 'seed': _optional(SEED), 'position': TABLE}
POSITION = {
    'batch_in_epoch': COUNT,
    **dict.fromkeys(('batch_size', 'world_size', 'num_images', 'num_batches', 'accumulative_counts'), POSITIVE),
}
MESSAGE_HUB = {
    'log_scalars': TABLE,
    'runtime_info': TABLE,
    'resumed_keys': ('a dict of flags', lambda value: _is_table(value, values=FLAG[1])),
}
RUNTIME_INFO = {'keep_ckpt_ids': _list_of('integers', _is_integer), 'last_ckpt': _optional(PATH)}
SLOTS = {'exp_avg', 'exp_avg_sq', 'max_exp_avg_sq', 'momentum_buffer', 'square_avg', 'sum'}  # shaped like the parameter
PARAM_GROUP = {
    'params': _list_of('parameters', lambda value: _is_integer(value) or _is_text(value)),  # FSDP has names
    'betas': _list_of('two numbers', _is_number, 2),
    **dict.fromkeys(('lr', 'initial_lr', 'weight_decay', 'eps', 'momentum', 'dampening', 'alpha', 'rho'), NUMBER),
}
SCHEDULER = {
    **dict.fromkeys(('last_step', '_global_step', 'begin', 'end'), INTEGER),
    **dict.fromkeys(('base_values', '_last_value'), NUMBERS),
    **dict.fromkeys(
        ('T_max', 'gamma', 'factor', 'start_factor', 'end_factor', 'total_iters', 'power', 'step_size'), NUMBER
    ),
    **dict.fromkeys(('eta_min', 'eta_min_ratio'), _optional(NUMBER)),
    **dict.fromkeys(('by_epoch', 'verbose'), FLAG),
    'param_name': TEXT,
}  # fmt: skip


def _flaw(tensor: Tensor) -> str | None:
    """Why a tensor is not an ordinary dense one; None if it is."""
    if type(tensor) not in (Tensor, nn.Parameter):
        return f'a {type(tensor).__name__}'
    if tensor.is_nested or tensor.layout != torch.strided:
        return 'a nested tensor' if tensor.is_nested else 'a sparse tensor'
    if tensor.is_quantized:
        return 'a quantized tensor'
    if tensor.is_meta:
        return 'a meta tensor, which has no values'
    if any(hasattr(Tensor, name) for name in vars(tensor)):
        return 'a tensor with replaced attributes'
    num_bytes = tensor.numel() * tensor.element_size()
    if num_bytes > max(tensor.untyped_storage().nbytes(), EXPANDED_LIMIT):
        return f'a tensor of shape {tuple(tensor.shape)} without that many values'
    return None


def shown(value: Any) -> str:
    """A short description of a value for a message."""
    if isinstance(value, Tensor):
        return _flaw(value) or f'a tensor of shape {tuple(value.shape)}'
    if value is None or isinstance(value, (bool, int, float, np.number)):
        return repr(value)[:40]
    if isinstance(value, str):
        return f'the text {value[:40]!r}'
    article = 'an' if type(value).__name__[0] in 'aeiou' else 'a'
    return f'{article} {type(value).__name__}'


class _Check:
    """Checks of one file; each raises MalformedError with the path of the first wrong entry.

    Args:
        name: The file, for the message.
    """

    def __init__(self, name: object):
        self.name = name

    def refuse(self, where: str, found: str, wanted: str) -> None:
        raise MalformedError(f'{self.name} is malformed, {where} is {found}, not {wanted}: use another file')

    def rule(self, value: Any, where: str, rule: Rule) -> None:
        if not rule[1](value):
            found = shown(value)
            if isinstance(value, (dict, list, tuple)) and type(value).__name__ in rule[0]:
                found += ' with other content'
            self.refuse(where, found, rule[0])

    def entries(self, table: Any, where: str, rules: dict[str, Rule], required: Iterable[str] = ()) -> None:
        self.table(table, where)
        for key in required:
            if key not in table:
                raise MalformedError(f'{self.name} is malformed, {where} has no {key}: use another file')
        for key, rule in rules.items():
            if key in table:
                self.rule(table[key], key if where == ROOT else f'{where}.{key}', rule)

    def table(self, value: Any, where: str) -> None:
        if type(value) not in (dict, OrderedDict):
            self.refuse(where, shown(value), 'a dict')
        for key in value:
            if not _is_text(key):
                self.refuse(f'a key of {where}', shown(key), 'printable text')
        if not set(getattr(value, '__dict__', ())) <= {'_metadata'}:
            self.refuse(where, 'a dict with replaced attributes', 'an ordinary dict')

    def state_dict(self, value: Any, where: str) -> None:
        self.table(value, where)
        for key, item in value.items():
            if not key:
                self.refuse(f'a key of {where}', repr(key), 'the name of a weight')
            if isinstance(item, Tensor) and (flaw := _flaw(item)):
                self.refuse(f'{key} in {where}', flaw, 'a dense tensor')
        metadata = getattr(value, '_metadata', None)
        if metadata is None:
            return
        # torch's modules read their versions from it.
        self.table(metadata, f'_metadata of {where}')
        for key, item in metadata.items():
            self.entries(item, f'_metadata of {where} for {key!r}', {'version': _optional(INTEGER)})

    def container(self, container: dict) -> None:
        self.state_dict(container, ROOT)
        if all(isinstance(value, Tensor) for value in container.values()):
            return  # a bare state dict, whatever its names
        if 'state_dict' in container:
            self.table(container['state_dict'], 'state_dict')
        for key in PLAIN_KEYS:
            if isinstance(container.get(key), dict):
                self.state_dict(container[key], key)
        for key in (*EMA_KEYS, RAW_KEY):
            if container.get(key) is not None:
                self.state_dict(container[key], key)
        ema = container.get('ema')
        if isinstance(ema, dict):
            self.state_dict(ema, 'ema')
            for key in PLAIN_KEYS:
                if isinstance(ema.get(key), dict):
                    self.state_dict(ema[key], f'ema.{key}')
        if 'meta' in container:
            self.table(container['meta'], 'meta')
            if container['meta'].get('dataset_meta') is not None:
                rules = {key: _optional(rule) for key, rule in DATASET_META.items()}
                self.entries(container['meta']['dataset_meta'], 'meta.dataset_meta', rules)

    def resume_parts(self, container: dict) -> None:
        if 'meta' in container:
            self.entries(container['meta'], 'meta', RESUME_META)
        if 'position' in container.get('meta', {}):
            self.entries(container['meta']['position'], 'meta.position', POSITION, required=list(POSITION)[:3])
        if 'optimizer' in container:
            self.entries(container, ROOT, {}, required=('state_dict',))
            self.optimizers(container['optimizer'])
        if 'message_hub' in container:
            self.message_hub(container['message_hub'])
        if 'param_schedulers' in container:
            self.schedulers(container['param_schedulers'])
        weights = container.get('state_dict', {})
        self.like_weights(container.get('gradients', {}), 'gradients', weights)
        if RAW_KEY in container:
            self.table(container[RAW_KEY], RAW_KEY)
            if not _is_number(container[RAW_KEY].get('steps')):
                self.refuse(f'{RAW_KEY}.steps', shown(container[RAW_KEY].get('steps')), 'a number')
            raw = {key.removeprefix('module.'): value for key, value in container[RAW_KEY].items() if key != 'steps'}
            self.like_weights(raw, RAW_KEY, weights)

    def like_weights(self, value: Any, where: str, weights: dict) -> None:
        """Check tensors that belong to the weights of the same name."""
        self.state_dict(value, where)
        for key, item in value.items():
            weight = weights.get(key)
            if not isinstance(item, Tensor) or not isinstance(weight, Tensor):
                self.refuse(f'{key} in {where}', shown(item), 'a tensor for a weight of state_dict')
            elif (item.shape, item.dtype) != (weight.shape, weight.dtype):
                found = f'{item.dtype} of shape {tuple(item.shape)}'
                self.refuse(f'{key} in {where}', found, f'{weight.dtype} of {tuple(weight.shape)} as in state_dict')

    def message_hub(self, hub: dict) -> None:
        self.entries(hub, 'message_hub', MESSAGE_HUB, required=MESSAGE_HUB)
        info = hub['runtime_info']
        best = {key: NUMBER for key in info if key.startswith('best_score')}
        best |= {key: _optional(PATH) for key in info if key.startswith('best_ckpt')}
        self.entries(info, 'message_hub.runtime_info', RUNTIME_INFO | best)

    def optimizers(self, value: Any) -> None:
        self.table(value, 'optimizer')
        if not value or value.keys() & {'state', 'param_groups'}:
            self.optimizer(value, 'optimizer')
        else:
            for key, item in value.items():
                self.optimizer(item, f'optimizer.{key}')

    def optimizer(self, value: Any, where: str) -> None:
        self.entries(value, where, {'loss_scaler': TABLE}, required=('state', 'param_groups'))
        state, groups = value['state'], value['param_groups']
        self.rule(groups, f'{where}.param_groups', _list_of('dicts', lambda group: isinstance(group, dict)))
        for number, group in enumerate(groups):
            self.entries(group, f'{where}.param_groups[{number}]', PARAM_GROUP, required=('params',))
        if value.get('base_param_settings') is not None:
            self.entries(value['base_param_settings'], f'{where}.base_param_settings', {'lr': NUMBER})
        if value.get('loss_scaler'):
            self.entries(value['loss_scaler'], f'{where}.loss_scaler', dict.fromkeys(value['loss_scaler'], NUMBER))
        known = {number for group in groups for number in group['params']}
        if type(state) not in (dict, OrderedDict):
            self.refuse(f'{where}.state', shown(state), 'a dict')
        for number, item in state.items():
            if number not in known:
                self.refuse(f'a key of {where}.state', shown(number), 'the number of a parameter')
            self.state_dict(item, f'{where}.state[{number}]')
            if 'step' in item:
                self.rule(item['step'], f'{where}.state[{number}].step', NUMBER)
            for key, slot in item.items():
                if not isinstance(slot, (Tensor, Real, list, type(None))):
                    self.refuse(f'{where}.state[{number}].{key}', shown(slot), 'a tensor or number')

    def schedulers(self, value: Any) -> None:
        lists = value if isinstance(value, dict) else {None: value}
        for name, states in lists.items():
            where = 'param_schedulers' if name is None else f'param_schedulers.{name}'
            self.rule(states, where, _list_of('dicts', lambda state: isinstance(state, dict)))
            for number, state in enumerate(states):
                here = f'{where}[{number}]'
                self.entries(state, here, SCHEDULER)
                for key in state:  # the scheduler would take it as an attribute
                    if key == 'optimizer' or callable(getattr(_ParamScheduler, key, None)):
                        self.refuse(f'a key of {here}', repr(key), 'a setting of a scheduler')


def check_optimizer_state(optimizer: torch.optim.Optimizer, name: object) -> None:
    """Check what an optimizer got from a file: all its settings, and tensors with the shapes of its parameters.

    Raises:
        MalformedError: If a setting or a tensor is missing, or a tensor has another shape.
    """
    advice = 'resume with the config of that run, or start from its weights with load_from'
    is_adam = isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW))
    for group in optimizer.param_groups:
        if missing := _joined(set(optimizer.defaults) - set(group)):
            raise MalformedError(f'{name} does not fit this run, optimizer.param_groups lacks {missing}: {advice}')
        for param in group['params']:
            state = optimizer.state.get(param)
            if not state:
                continue  # the optimizer creates it
            if is_adam and (missing := _joined({'step', 'exp_avg', 'exp_avg_sq'} - set(state))):
                raise MalformedError(f'{name} does not fit this run, optimizer.state lacks {missing}: {advice}')
            for key in SLOTS & set(state):
                value = state[key]
                if getattr(value, 'shape', None) != param.shape and not (value is None and key == 'momentum_buffer'):
                    shape = tuple(param.shape)
                    raise MalformedError(
                        f'{name} does not fit this run, {key} of a parameter {shape} is {shown(value)}: {advice}'
                    )


def _joined(names: Iterable[str]) -> str:
    return ', '.join(sorted(names))
