"""Finds misspelt keys of a config before any data is read.

mmengine ignores a key that nothing reads, such as ``optim_wraper`` or ``paramwise_cfg.norm_decay_mul``, and fails late
on others. Three rules find them:

- a dict with a ``type`` may have the parameters of that class, and the keys that its builder reads;
- parts of the Runner without a ``type``, such as dataloaders and loops, may have the parameters of what they configure;
- any other dict is passed to code that reads single keys from it. A key is refused there if it occurs nowhere in the
  sources of the libraries, but resembles a name that does.

A top-level name of the user's own is legal. It is refused only if nothing uses it, and it resembles a known name, is
the name of a setting at a deeper level, or replaces a value that its bases have used already.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import LOOPS
from mmengine.runner import FlexibleRunner, set_random_seed
from mmengine.runner import Runner as MMEngineRunner
from mmengine.utils.dl_utils import set_multi_processing
from torch.distributed import init_process_group
from torch.utils.data import DataLoader

from mogacore.errors import UserError
from mogacore.libraries import TASK_LIBRARIES, find_class, import_quietly, registered_names, source_words
from mogacore.text import show

from .check_kinds import check_kind, replaced_dicts
from .check_settings import Problem, check_settings
from .optim import sub_wrappers

# Top-level names that mogacore reads, in addition to the Runner's.
OWN_SETTINGS = (
    'allow_unknown_keys', 'custom_imports', 'data_help', 'fast_data', 'find_unused_parameters', 'input_shape',
    'load_allow_missing', 'load_allow_other_classes', 'load_allow_unexpected', 'load_ema', 'model_wrapper_cfg',
    'runner_type', 'sync_bn', 'tta_model', 'tta_views',
)  # fmt: skip
# Keys that a builder reads and does not pass to the class, by the registry of the class.
BUILDER_KEYS = {
    'optim_wrapper': ('optimizer', 'paramwise_cfg', 'constructor'),
    'hook': ('priority',),
    'parameter scheduler': ('convert_to_iter_based',),
    'model': ('requires_grad',),  # of norm_cfg
    'loop': ('by_epoch', 'max_epochs', 'max_iters'),  # choose_loop decides between the lengths
}
TYPE_KEYS = {'type', '_scope_'}
DATALOADER_KEYS = ('dataset', 'sampler', 'batch_sampler', 'num_batch_per_epoch')
DEFAULT_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint', 'visualization')
# Dicts whose keys are data: names of classes, folders, parameters, storage options.
DATA = {
    'backend_args', 'caption_prompt', 'custom_keys', 'data_prefix', 'file_client_args', 'groups', 'mapping', 'metainfo'
}  # fmt: skip
# Where a name is registered several times, the key decides.
REGISTRY_OF_KEY = {
    'dataset': 'dataset', 'datasets': 'dataset', 'pipeline': 'transform', 'transforms': 'transform',
    'optimizer': 'optimizer',
}  # fmt: skip
MAX_REPORTED = 10
MAX_PATHS = 3
SIMILAR = 0.8


def check_keys(cfg: Config) -> None:
    """Check every key of a config.

    Args:
        cfg: A config, with the command line's options applied.

    Raises:
        UserError: If keys are unknown; the message names up to ten of them, each with the nearest valid name. Paths
            that match a pattern of the config's ``allow_unknown_keys`` are accepted.
    """
    scope = cfg.get('default_scope', 'mmengine')
    import_quietly(scope)
    allowed = cfg.get('allow_unknown_keys') or ()
    if not isinstance(allowed, (list, tuple)) or not all(isinstance(pattern, str) for pattern in allowed):
        raise UserError(f'config {cfg.filename}: allow_unknown_keys is {show(allowed)}: use a list of paths')
    found = dict(problem for problem in _Checker(scope).run(cfg) if not any(fnmatch(problem[0], p) for p in allowed))
    if found:
        problems = [f'{path} {what}' for path, what in found.items()]
        more = f'; and {len(problems) - MAX_REPORTED} more' if len(problems) > MAX_REPORTED else ''
        raise UserError(
            f'config {cfg.filename}: {"; ".join(problems[:MAX_REPORTED])}{more} '
            '(a key that is right can be listed in allow_unknown_keys)'
        )


class _Checker:
    def __init__(self, scope: str):
        self.scope = scope
        # The library of the scope first, since reading the sources of all takes seconds.
        self.packages = list(dict.fromkeys([scope, 'mogacore', 'mmengine', 'mmcv', *TASK_LIBRARIES]))
        # Parts of the Runner that have no type: path -> valid keys.
        self.untyped = {
            'randomness': _parameters(set_random_seed)[0] | {'seed', 'diff_rank_seed', 'deterministic'},
            'auto_scale_lr': {'enable', 'base_batch_size'},
            'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
            'env_cfg.mp_cfg': _parameters(set_multi_processing)[0],
            'env_cfg.dist_cfg': _parameters(init_process_group)[0] | {'init_backend'},
            **dict.fromkeys(
                ('train_dataloader', 'val_dataloader', 'test_dataloader'),
                _parameters(DataLoader)[0] | set(DATALOADER_KEYS),
            ),
            'train_cfg': {'by_epoch'} | _loop('EpochBasedTrainLoop') | _loop('IterBasedTrainLoop'),
            'val_cfg': _loop('ValLoop'),
            'test_cfg': _loop('TestLoop'),
        }
        # What the settings of these parts are passed to, and what check_settings calls it.
        self.readers = {
            'randomness': (set_random_seed, 'randomness'),
            'env_cfg.mp_cfg': (set_multi_processing, 'mp_cfg'),
            **dict.fromkeys(('train_dataloader', 'val_dataloader', 'test_dataloader'), (DataLoader, 'dataloader')),
            'val_cfg': (LOOPS.get('ValLoop'), 'loop'),
            'test_cfg': (LOOPS.get('TestLoop'), 'loop'),
        }
        # Parts whose type mmengine adds.
        self.default_types = {
            'optim_wrapper': 'OptimWrapper',
            'log_processor': 'LogProcessor',
            'visualizer': 'Visualizer',
        }
        if scope == 'mmpretrain':
            self.default_types['data_preprocessor'] = 'ClsDataPreprocessor'

    def run(self, cfg: Config) -> Iterator[Problem]:
        settings = _settings()
        assigned = set(re.findall(r'^(\w+)\s*=', cfg.text or '', re.MULTILINE))
        for name, value in cfg.to_dict().items():
            if name in settings:
                yield from check_kind(name, value)
                yield from self.check(value, name)
                continue
            # A name of the command line may also resemble one that the config's files define.
            known = settings if name in assigned else settings | assigned
            similar = get_close_matches(name, known, 1, SIMILAR)
            if similar and not _is_used(name, cfg.text):
                yield name, f'is not a setting: did you mean {similar[0]}?'
        in_files = Config.fromfile(cfg.filename).to_dict() if cfg.filename else {}
        yield from replaced_dicts(cfg.to_dict(), in_files)
        yield from _without_effect(cfg, settings, in_files)

    def check(self, value: Any, path: str, owners: tuple[Callable, ...] = ()) -> Iterator[Problem]:
        """Problems of a part of the config; ``owners`` are the classes of the parts that contain it."""
        if isinstance(value, (list, tuple)):
            if path.startswith('model.') and _name_of(path).endswith('head'):
                yield from self.check_heads(value, path)
            for index, item in enumerate(value):
                yield from self.check(item, f'{path}.{index}', owners)
        elif isinstance(value, dict):
            kind = value.get('type') or self.default_types.get(path)
            if kind is not None and not isinstance(kind, str) and not callable(kind):
                yield f'{path}.type', f'is {show(kind)}: it must be the name of a class'
                return
            if path == 'optim_wrapper' and sub_wrappers(value):
                kind = None
            elif kind is not None:
                classes = self.classes(kind, path)
                owners = (*owners, *(cls for cls, _ in classes))
                yield from self.check_typed(value, path, kind, classes, owners)
                if not classes:
                    return  # a class of a library that is absent or unknown may read any key below it
            else:
                yield from self.check_untyped(value, path)
            for key, item in value.items():
                yield from self.check(item, f'{path}.{key}', owners)

    def classes(self, kind: str | Callable, path: str) -> list[tuple[Callable, str]]:
        if not isinstance(kind, str):
            # The same as its name, if it is registered, so that a builder's keys are known.
            named = find_class(kind.__name__, self.scope) if isinstance(kind, type) else []
            return [item for item in named if item[0] is kind] or [(kind, '')]
        wanted = REGISTRY_OF_KEY.get(_name_of(path))
        return [item for item in find_class(kind, self.scope) if wanted in (None, item[1])]

    def check_typed(self, value: dict, path: str, kind, classes, owners: tuple[Callable, ...]) -> Iterator[Problem]:
        name = kind if isinstance(kind, str) else getattr(kind, '__name__', str(kind))
        if not classes:
            similar = get_close_matches(name, registered_names(self.scope), 1, SIMILAR)
            if similar and not self.is_word(name):
                yield f'{path}.type', f'{name} is not registered: did you mean {similar[0]}?'
            return
        found = [(_parameters(cls), BUILDER_KEYS.get(registry, ())) for cls, registry in classes]
        names = set().union(*(parameters | set(extra) for (parameters, _), extra in found))
        for cls, registry in classes:
            # Every registry finds a class by its full path.
            yield from check_settings(cls, registry if len(classes) == 1 else '', value, path)
        # A class may take a key out of the config of one of its parts before it builds the part.
        quoted = frozenset().union(*(_quoted_words(owner) for owner in owners))
        unknown = [key for key in value if key not in names | TYPE_KEYS | quoted]
        if any(is_open for (_, is_open), _ in found):
            similar = [key for key in unknown if get_close_matches(str(key), names, 1, SIMILAR)]
            yield from self.check_words({key: None for key in unknown if key not in similar}, path)
            unknown = similar
        yield from _unknown(unknown, path, names, f'a parameter of {name}')

    def check_untyped(self, value: dict, path: str) -> Iterator[Problem]:
        if path == 'default_hooks':
            similar = [key for key in value if get_close_matches(str(key), DEFAULT_HOOKS, 1, SIMILAR)]
            yield from _unknown(similar, path, DEFAULT_HOOKS, 'a hook of mmengine')
        elif path in self.untyped:
            yield from _unknown(value, path, self.untyped[path], f'a setting of {path}')
            if path == 'train_cfg':
                loop = LOOPS.get('IterBasedTrainLoop' if 'max_iters' in value else 'EpochBasedTrainLoop')
                yield from check_settings(loop, 'loop', value, path)
            elif path in self.readers:
                yield from check_settings(*self.readers[path], value, path)
        elif _name_of(path) not in DATA:
            yield from self.check_words(value, path)

    @staticmethod
    def check_heads(heads: list | tuple, path: str) -> Iterator[Problem]:
        if lacking := [i for i, head in enumerate(heads) if isinstance(head, dict) and 'type' not in head]:
            yield (
                f'{path}.{lacking[0]}',
                'has no type: a list replaces that of the base config completely, so write all settings of each entry, '
                f'or set single ones with --cfg-options {path}.{lacking[0]}.KEY=VALUE',
            )

    def check_words(self, value: dict, path: str) -> Iterator[Problem]:
        """Refuse a key that no source contains, but that resembles a word that one does."""
        for key in value:
            if isinstance(key, str) and key.isidentifier() and len(key) > 2 and not self.is_word(key):
                near = _nearest(key, self.words(1)) or _nearest(key, self.words(0))
                if near:
                    yield f'{path}.{key}', f'is read by nothing: did you mean {near[0]}?'

    def words(self, quoted: int) -> frozenset[str]:
        return frozenset().union(*(source_words(package)[quoted] for package in self.packages))

    def is_word(self, key: str) -> bool:
        return any(key in source_words(package)[0] for package in self.packages)


def _name_of(path: str) -> str:
    """Last key of a path that is not an index."""
    return next((key for key in reversed(path.split('.')) if not key.isdigit()), '')


def _unknown(keys: Iterable[str], path: str, valid: Iterable[str], what: str) -> Iterator[Problem]:
    for key in keys:
        if key not in valid:
            near = get_close_matches(str(key), valid, 1, 0.6)
            hint = f'did you mean {near[0]}?' if near else f'choose from {", ".join(sorted(valid))}'
            yield f'{path}.{key}', f'is not {what}: {hint}'


def _nearest(key: str, words: Iterable[str]) -> list[str]:
    candidates = [word for word in words if word[0] == key[0] and abs(len(word) - len(key)) < 3]
    return get_close_matches(key, candidates, 1, 0.85)


@cache
def _settings() -> frozenset[str]:
    names = _parameters(MMEngineRunner)[0] | _parameters(FlexibleRunner)[0] | set(OWN_SETTINGS)
    return frozenset(names - {'cfg'})


def _is_used(name: str, text: str) -> bool:
    """Whether a config's text uses a top-level name other than by assigning it."""
    code = re.sub(r'#[^\n]*', '', text)
    return re.search(rf'(?<![\w\'"]){re.escape(name)}\b(?!\s*=[^=])', code) is not None


def _without_effect(cfg: Config, settings: frozenset[str], in_files: dict) -> Iterator[Problem]:
    """Top-level names that the config's file or an option sets, where nothing reads them any more."""
    if not cfg.filename:
        return
    text = Path(cfg.filename).read_text(encoding='utf-8')
    names = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)]
    assigned = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    used = {node.id for node in names if isinstance(node.ctx, ast.Load)}
    in_bases = (cfg.text or '').rpartition(f'{cfg.filename}\n')[0]
    settled = cfg.to_dict()
    for name, value in settled.items():
        by_option = name not in in_files or in_files[name] != value
        if name in settings or not (by_option or (name in assigned and name not in used)):
            continue
        found = [(path, other) for path, other in _paths(settled, name) if path.partition('.')[0] in settings]
        if any(other == value for _, other in found):  # as in a config that a run wrote, with all values in place
            continue
        paths = [path for path, _ in found]
        if paths:
            more = ', ...' if len(paths) > MAX_PATHS else ''
            yield name, f'has no effect at the top level: did you mean {", ".join(paths[:MAX_PATHS])}{more}?'
        elif (by_option and name in in_files) or re.search(rf'^{re.escape(name)}\s*=', in_bases, re.MULTILINE):
            yield name, 'has no effect, since the files of the config have used its value already: set what uses it'


def _paths(value: Any, name: str, path: str = '') -> Iterator[tuple[str, Any]]:
    """Path and value of every key ``name`` below the top level."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, item in items:
        if key == name and path:
            yield f'{path}.{key}', item
        yield from _paths(item, name, f'{path}.{key}' if path else str(key))


def _loop(name: str) -> set[str]:
    return _parameters(LOOPS.get(name))[0] - {'runner', 'dataloader', 'evaluator'}


@cache
def _parameters(function: Callable) -> tuple[set[str], bool]:
    """Names of the parameters of a function or class, and whether it takes further ones.

    A class whose ``__init__`` passes ``**kwargs`` to its parents also takes their parameters.
    """
    if not inspect.isclass(function):
        return _signature(function)
    inits = [vars(cls)['__init__'] for cls in function.__mro__[:-1] if '__init__' in vars(cls)]
    signatures = [_signature(init) for init in inits]
    if not inits or not signatures[0][1]:
        return signatures[0] if inits else (set(), False)
    names = set().union(*(own for own, _ in signatures))
    for init, (_, is_open) in zip(inits, signatures, strict=True):
        if not is_open:
            return names, False
        if not _passes_keywords_on(init):
            break
    return names, True


def _passes_keywords_on(init: Callable) -> bool:
    """Whether an ``__init__`` passes its ``**kwargs`` to the ``__init__`` of a parent."""
    try:
        source = inspect.getsource(init)
    except (OSError, TypeError):
        return False
    return re.search(r'\.__init__\((?:[^()]|\([^()]*\))*\*\*\w+', source) is not None


@cache
def _quoted_words(cls: Callable) -> frozenset[str]:
    """Words in quotes in the source files of a class and its parents, such as ``cfg.pop('bg_cls_weight')``."""
    modules = {inspect.getmodule(base) for base in getattr(cls, '__mro__', (cls,))}
    files = {getattr(module, '__file__', None) for module in modules if module is not None}
    texts = [Path(file).read_text(errors='ignore') for file in files if file and file.endswith('.py')]
    return frozenset(word for text in texts for word in re.findall(r'[\'"]([A-Za-z_]\w+)[\'"]', text))


def _signature(function: Callable) -> tuple[set[str], bool]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return set(), True
    keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = {p.name for p in parameters if p.kind in keyword} - {'self'}
    return names, any(p.kind is p.VAR_KEYWORD for p in parameters)
