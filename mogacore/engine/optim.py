"""Parameter groups of the published recipes for every task: weight decay, rates of parts, layer-wise learning rates."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches

from mmengine.config import ConfigDict
from mmengine.logging import MMLogger, print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS
from mmengine.runner import Runner
from torch import nn

from mogacore.errors import UserError
from mogacore.text import shorten

LIBRARY_SETTINGS = (
    'custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult', 'dwconv_decay_mult',
    'dcn_offset_lr_mult', 'bypass_duplicate',
)  # fmt: skip
OWN_SETTINGS = ('layer_decay_rate', 'no_decay_names', 'no_decay_vectors')
NUM_SHOWN = 3  # names of parameters in a line of the log
MULTIPLIERS = ('lr_mult', 'decay_mult')
# Parts of the names of MogaNet's parameters that the recipes exempt, also where a model has none of them: another
# backbone, or an ablation without layer scales.
RECIPE_NAMES = ('norm', 'bias', 'layer_scale', 'scale')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(name='DefaultOptimWrapperConstructor', force=True)
class FoldedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, but it logs one line per setting instead of one per parameter."""

    def __call__(self, model: nn.Module) -> OptimWrapper:
        with _without_lines_per_parameter():
            wrapper = super().__call__(model)
        for line in describe_groups(wrapper.optimizer.param_groups, model):
            print_log(line, 'current')
        return wrapper


@contextmanager
def _without_lines_per_parameter() -> Iterator[None]:
    logger = MMLogger.get_current_instance()
    pattern = re.compile(r'paramwise_options -- |.* is skipped since its requires_grad=False')

    def keep(record: logging.LogRecord) -> bool:
        return pattern.match(str(record.msg)) is None

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def describe_groups(groups: Iterable[dict], model: nn.Module) -> list[str]:
    """One line for each learning rate and weight decay: number and names of the parameters.

    Args:
        groups: Parameter groups of an optimizer.
        model: The model; its parameters in no group are described as frozen.
    """
    names = {id(param): name for name, param in model.named_parameters()}
    members: dict[tuple, list[str]] = {}
    for group in groups:
        setting = tuple((key, group[key]) for key in ('lr', 'weight_decay') if key in group)
        members.setdefault(setting, []).extend(names.pop(id(param), '?') for param in group['params'])
    lines = {
        'with ' + ', '.join(f'{key.replace("_", " ")} {value:g}' for key, value in setting): own
        for setting, own in members.items()
    }
    if names:
        lines['frozen'] = list(names.values())
    return [
        f'{len(own)} parameter{"s" * (len(own) > 1)} {text}: {shorten(own, NUM_SHOWN)}' for text, own in lines.items()
    ]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MogaNetOptimWrapperConstructor(FoldedOptimWrapperConstructor):
    """Builds an optimizer with the parameter groups of the published recipes.

    ``paramwise_cfg`` of the config accepts:

    - ``no_decay_names``: sequence of strings; a parameter whose name contains any of them has no weight decay.
    - ``no_decay_vectors``: True exempts biases from weight decay, and every parameter with at most one dimension
      longer than 1: norms, layer scales, sigmas and the 1-wide ``decompose`` weights.
    - ``layer_decay_rate``: in (0, 1]; the learning rate of a backbone parameter is multiplied by this rate to the power
      of its depth counted from the heads, see :meth:`mogacore.models.MogaNet.get_layer_depth`. 1 means no layer decay.
    - ``custom_keys``: part of a parameter's name -> ``lr_mult`` and ``decay_mult``, one or both. They multiply what the
      other settings give, and change nothing else: under ``backbone=dict(lr_mult=0.1)``, norms that do not decay still
      do not. Where several names match, the longest that gives a multiplier decides about it.
    - The other settings of mmengine's constructor, such as ``norm_decay_mult``, with mmengine's meaning.

    Raises:
        UserError: If ``paramwise_cfg`` has an unknown key or a value out of range, if a name is part of no parameter's
            name, or if layer decay finds no backbone with ``get_layer_depth``.

    Source: the detection and segmentation configs of Westlake-AI/MogaNet, and their layer-decay constructor.
    """

    def _validate_cfg(self) -> None:
        _check_settings(self.paramwise_cfg, OWN_SETTINGS + LIBRARY_SETTINGS, MULTIPLIERS)
        rate = self.paramwise_cfg.get('layer_decay_rate', 1.0)
        if not 0 < rate <= 1:
            raise UserError(f'layer_decay_rate {rate} is out of range: choose a value above 0 and at most 1')

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Add one group per pair of learning rate and weight decay; ``param_names`` lists the names of its members."""
        _check_names(self.paramwise_cfg, module)
        base_lr, base_wd = self.base_lr, self.base_wd or 0.0
        groups: dict[tuple[float, float], dict] = {}
        multipliers, library = self._rate_multipliers(module), self._library_values(module, base_wd)
        for name, param in module.named_parameters():
            if not param.requires_grad:
                continue
            rate, weight_decay = library.get(id(param), (base_lr, base_wd))
            if self._is_free_of_decay(name, param):
                weight_decay = 0.0
            rate = rate * multipliers.get(name, 1.0) * self._custom_multiplier(name, 'lr_mult')
            weight_decay *= self._custom_multiplier(name, 'decay_mult')
            group = groups.setdefault(
                (rate, weight_decay), dict(params=[], param_names=[], lr=rate, weight_decay=weight_decay)
            )
            group['params'].append(param)
            group['param_names'].append(name)
        params.extend(group for _, group in sorted(groups.items()))

    def _library_values(self, module: nn.Module, base_wd: float) -> dict[int, tuple]:
        """Learning rate and weight decay by mmengine's settings other than ``custom_keys``, by id of the parameter."""
        used = set(LIBRARY_SETTINGS) - {'custom_keys'}
        settings = {name: value for name, value in self.paramwise_cfg.items() if name in used}
        if not settings:
            return {}
        optimizer = dict(self.optimizer_cfg, weight_decay=base_wd)
        groups: list[dict] = []
        DefaultOptimWrapperConstructor(dict(optimizer=optimizer), settings).add_params(groups, module)
        return {
            id(group['params'][0]): (group.get('lr', self.base_lr), group.get('weight_decay', base_wd))
            for group in groups
        }

    def _custom_multiplier(self, name: str, kind: str) -> float:
        found = {
            key: rule[kind]
            for key, rule in self.paramwise_cfg.get('custom_keys', {}).items()
            if kind in rule and key in name
        }
        return found[min(found, key=lambda key: (-len(key), key))] if found else 1.0

    def _is_free_of_decay(self, name: str, param: nn.Parameter) -> bool:
        if any(part in name for part in _names_of(self.paramwise_cfg, 'no_decay_names')):
            return True
        is_vector = name.endswith('.bias') or sum(size > 1 for size in param.shape) <= 1
        return self.paramwise_cfg.get('no_decay_vectors', False) and is_vector

    def _rate_multipliers(self, model: nn.Module) -> dict[str, float]:
        """Learning-rate multiplier of each backbone parameter in ``model``, by its name in ``model``."""
        rate = self.paramwise_cfg.get('layer_decay_rate', 1.0)
        if rate == 1:
            return {}
        multipliers = {}
        for prefix, module in model.named_modules():
            if not hasattr(module, 'get_layer_depth'):
                continue
            for name, _ in module.named_parameters():
                depth, num_layers = module.get_layer_depth(name)
                multipliers[f'{prefix}.{name}' if prefix else name] = rate ** (num_layers - 1 - depth)
        if not multipliers:
            raise UserError('layer_decay_rate needs a backbone with get_layer_depth: use MogaNet or remove the setting')
        return multipliers


def named_wrappers(runner: Runner) -> dict[str, OptimWrapper]:
    """Optimizer wrappers of a runner by name; a single one is named ''."""
    wrapper = runner.optim_wrapper
    return dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {'': wrapper}


def sub_wrappers(optim_wrapper: Mapping) -> list[ConfigDict]:
    """Configs of the wrappers in ``optim_wrapper``, if it holds one per sub-model; empty if it is a single one."""
    return [item for item in optim_wrapper.values() if isinstance(item, dict) and 'optimizer' in item]


def check_paramwise(optim_wrapper: object, model: nn.Module) -> None:
    """Check ``paramwise_cfg`` of an optimizer that mmengine's constructor or ours builds; others have own settings.

    Args:
        optim_wrapper: Config of ``optim_wrapper``; anything else passes.
        model: The model, with or without values.

    Raises:
        UserError: If a setting is unknown, or a name is part of no parameter's name.
    """
    if not isinstance(optim_wrapper, dict) or not optim_wrapper.get('paramwise_cfg'):
        return
    settings = optim_wrapper['paramwise_cfg']
    constructor = optim_wrapper.get('constructor') or DefaultOptimWrapperConstructor
    kind = OPTIM_WRAPPER_CONSTRUCTORS.get(constructor) if isinstance(constructor, str) else constructor
    if kind is MogaNetOptimWrapperConstructor:
        kind(optim_wrapper, settings)
    elif kind in (DefaultOptimWrapperConstructor, FoldedOptimWrapperConstructor):
        optimizer = optim_wrapper['optimizer']['type']
        optimizer = OPTIMIZERS.get(optimizer) if isinstance(optimizer, str) else optimizer
        # mmengine gives further entries of a rule to the optimizer, as settings of the group.
        group_settings = inspect.signature(optimizer).parameters if optimizer is not None else ()
        _check_settings(settings, LIBRARY_SETTINGS, (*MULTIPLIERS, *group_settings))
    else:
        return
    _check_names(settings, model)


def _check_settings(settings: dict, known: Iterable[str], known_rules: Iterable[str]) -> None:
    custom_keys = settings.get('custom_keys', {})
    if not isinstance(custom_keys, dict) or not all(isinstance(rule, dict) for rule in custom_keys.values()):
        raise UserError(
            f'paramwise_cfg.custom_keys is {custom_keys!r}: give a dict such as dict(backbone=dict(lr_mult=0.1))'
        )
    parts = [('', settings, known), *((f'.custom_keys.{key}', rule, known_rules) for key, rule in custom_keys.items())]
    for path, part, names in parts:
        for name in part:
            if name not in names:
                near = get_close_matches(str(name), names, 1)
                hint = f'did you mean {near[0]}?' if near else f'choose from {", ".join(names)}'
                raise UserError(f'paramwise_cfg{path} has no setting {name!r}: {hint}')


def _check_names(settings: dict, model: nn.Module) -> None:
    """Refuse names in ``no_decay_names`` and ``custom_keys`` that are part of no parameter's name."""
    own = [name for name, _ in model.named_parameters()]
    for setting in ('no_decay_names', 'custom_keys'):
        for part in _names_of(settings, setting):
            if part in RECIPE_NAMES or any(part in name for name in own):
                continue
            words = {word for name in own for word in _words(name)}
            near = get_close_matches(part, sorted(words), 1)
            hint = f'did you mean {near[0]!r}?' if near else f'the first is {own[0]!r}' if own else 'there is none'
            raise UserError(f"paramwise_cfg.{setting} has {part!r}, which is part of no parameter's name: {hint}")


def _names_of(settings: dict, setting: str) -> Iterable[str]:
    value = settings.get(setting, ())
    return [value] if isinstance(value, str) else value


def _words(name: str) -> Iterable[str]:
    """Parts of a parameter's name to compare a misspelt one with: the modules and their paths."""
    parts = name.split('.')
    yield from parts
    for end in range(2, len(parts)):
        yield '.'.join(parts[:end])
