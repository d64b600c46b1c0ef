"""Weight files: read without running code, keys mapped to the model at hand, every misfit told.

Names and containers of the published files: paper release, OpenMixup, timm, mmcv 1.x, mmengine, OpenSTL.
"""

from __future__ import annotations

import argparse
import io
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import Tensor, nn

from .download import fetch
from .errors import UserError
from .files import write_whole


class _Record:
    """What a file says of an object, with nothing of it run: built in place of the object named in the pickle.

    torch's safe unpickler builds listed classes from unchecked values, and numpy's are not fit for that: a forged
    dtype makes numpy take bytes for pointers. So it is given records, and :meth:`revive` makes the object after,
    when ``args`` and ``state`` hold no records any more.
    """

    def __new__(cls, *args):
        self = super().__new__(cls)
        self.args, self.state = args, None
        return self

    def __setstate__(self, state):
        self.state = state

    def revive(self):
        raise UnpicklingError(f'GLOBAL {type(self).__module__}.{type(self).__qualname__}')


class _Dtype(_Record):
    def revive(self) -> np.dtype:
        code = self.args[0]
        if not re.fullmatch(r'[biufcSU]\d+', code):
            raise ValueError(f'a numpy array of type {code}')
        byte_order = self.state[1] if self.state else '='
        return np.dtype(code).newbyteorder(byte_order)


class _Array(_Record):
    def revive(self) -> np.ndarray:
        _, shape, dtype, is_fortran, data = self.state
        return _array(shape, dtype, data, order='F' if is_fortran else 'C')


class _Scalar(_Record):
    def revive(self) -> np.generic:
        return _array((), *self.args)[()]


def _array(shape: tuple, dtype: np.dtype, data: bytes, order: str = 'C') -> np.ndarray:
    if not isinstance(dtype, np.dtype) or not isinstance(data, bytes):
        raise ValueError('a numpy array in an unknown form')
    return np.ndarray(shape, dtype, data, order=order).copy()


class _EmptyBytes(_Record):
    def revive(self) -> bytes:
        return b''


class _HistoryBuffer(_Record):
    def __setstate__(self, state):
        state.pop('statistics_methods', None)  # functions, for which mmengine pickles getattr
        self.state = state

    def revive(self) -> HistoryBuffer:
        return HistoryBuffer(self.state['_log_history'], self.state['_count_history'], self.state['max_length'])


class _Namespace(_Record):
    def revive(self) -> argparse.Namespace:
        namespace = argparse.Namespace()
        vars(namespace).update(self.state or {})
        return namespace


# Beyond torch's own list, all that a training file of mmengine, mmcv or timm holds. numpy 2 moved core to _core.
_RECORDS = {
    'numpy.dtype': _Dtype,
    'numpy.ndarray': _Record,
    'numpy.core.multiarray._reconstruct': _Array,
    'numpy._core.multiarray._reconstruct': _Array,
    'numpy.core.multiarray.scalar': _Scalar,
    'numpy._core.multiarray.scalar': _Scalar,
    'mmengine.logging.history_buffer.HistoryBuffer': _HistoryBuffer,
    'builtins.getattr': _Record,
    '__builtin__.getattr': _Record,
    'argparse.Namespace': _Namespace,
    'builtins.bytes': _EmptyBytes,
    '__builtin__.bytes': _EmptyBytes,
}


def _renamed(name: str, record: type[_Record]) -> type[_Record]:
    # torch < 2.6 knows a listed class by the module and name that the class itself bears.
    module, _, name = name.rpartition('.')
    return type(name, (record,), {'__module__': module, '__qualname__': name})


_SAFE_GLOBALS = [_renamed(name, record) for name, record in _RECORDS.items()]


@contextmanager
def _only_our_globals() -> Iterator[None]:
    """Let torch's unpickler know our records alone, whatever other libraries have listed."""
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(_SAFE_GLOBALS)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)


def _revive(value, seen: set[int]):
    """``value`` with every record turned into its object; in place, so that shared parts stay shared."""
    if isinstance(value, _Record):
        value.args, value.state = _revive(value.args, seen), _revive(value.state, seen)
        return value.revive()
    if type(value) is tuple:
        return tuple(_revive(item, seen) for item in value)
    if isinstance(value, (dict, list)) and id(value) not in seen:
        seen.add(id(value))
        for key, item in list(enumerate(value) if isinstance(value, list) else value.items()):
            value[key] = _revive(item, seen)
    return value


def read(path: str | Path, map_location='cpu', mmap: bool = False) -> dict:
    """The whole container in a weight file; never runs code from it.

    Args:
        path: A file of torch.save, old format or new, or a ``.safetensors`` file; a name such as
            ``mogacore://moganet_tiny`` or an address is fetched first.
        map_location: As of :func:`torch.load`.
        mmap: Leave the tensors on the disk until they are used; without effect on torch.save's old format.

    Returns:
        What was saved; of a ``.safetensors`` file a dict with ``state_dict`` and ``meta``.

    Raises:
        UserError: If the file is not there, is cut off or damaged, is no weight file, or holds pickled code.
    """
    path = local_file(path)
    try:
        with path.open('rb') as file:
            head = file.read(16)
    except OSError as error:
        raise UserError(f'checkpoint {path} cannot be read ({error.strerror}): give the path of a file') from None
    if path.suffix == '.safetensors':
        return _read_safetensors(path, map_location)
    if not head.startswith((b'PK\x03\x04', b'\x80')):
        found = f'it begins with {head!r}' if head else 'it is empty'
        raise UserError(f'{path} is not a checkpoint, {found}: give a file of torch.save, or fetch it again')
    try:
        with _only_our_globals():
            container = torch.load(path, map_location=map_location, weights_only=True, mmap=mmap and head[:2] == b'PK')
        container = _revive(container, set())
    # Of a damaged file any error may come, from torch's parser as from ours.
    except Exception as error:
        refused = re.search(r'GLOBAL (\S+)', str(error))
        if refused:
            raise UserError(
                f'{path} holds pickled code ({refused[1]}), which was refused: nothing of it was run. Where it comes '
                'from, save its tensors alone: torch.save(model.state_dict(), ...), or as .safetensors'
            ) from None
        reason = str(error).partition('\n')[0][:120] or type(error).__name__
        raise UserError(f'{path} is truncated, damaged or no checkpoint ({reason}): fetch it again') from error
    if not isinstance(container, dict):
        raise UserError(f'{path} holds a {type(container).__name__}, not a dict: give a file with a state dict')
    return container


def _read_safetensors(path: Path, map_location) -> dict:
    safetensors = _import_safetensors(path)
    try:
        with safetensors.safe_open(path, 'pt', device=str(map_location or 'cpu')) as file:
            state_dict = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, the file is no dict
            return {'state_dict': state_dict, 'meta': file.metadata() or {}}
    except safetensors.SafetensorError as error:
        raise UserError(f'{path} is truncated, damaged or no safetensors file ({error}): fetch it again') from None


def _import_safetensors(path: Path):
    try:
        import safetensors.torch
    except ImportError:
        raise UserError(f'{path} needs the package safetensors: run "pip install safetensors"') from None
    return safetensors


@dataclass(frozen=True)
class WeightSets:
    """The one or two sets of weights in a container.

    Args:
        kind: Name of the container, for people.
        state_dict: The set under the plain names.
        is_ema: Whether that set is an exponential moving average; None where there is one set and no telling.
        other: The other set, complete, or None.
    """

    kind: str
    state_dict: dict[str, Tensor]
    is_ema: bool | None = None
    other: dict[str, Tensor] | None = None

    def choose(self, ema: bool | None = None) -> WeightSets:
        """The sets with the one asked for first: None is the plain one, True the EMA, False the raw or only one.

        See :meth:`choose_published` for files whose content is not known beforehand.

        Raises:
            UserError: If the EMA is asked for and there is none.
        """
        if self.other is None and ema:
            raise UserError('the checkpoint has no EMA weights: leave out ema (--ema) to take its only ones')
        if self.other is None or ema in (None, self.is_ema):
            return self
        return WeightSets(self.kind, self.other, not self.is_ema, self.state_dict)

    def choose_published(self, weight_set: str) -> WeightSets:
        """The set that a published figure belongs to: of two 'ema' or 'raw', '' for the plain one; else the only one.

        A release may hold the average under the plain names alone, and does not say so.
        """
        return self if self.other is None or not weight_set else self.choose(weight_set == 'ema')


def weight_sets(container: dict) -> WeightSets:
    """Find the weights in a container as :func:`read` gives it.

    Raises:
        UserError: If there are none.

    Source: reference of the releases; the EMA hooks of mmengine (``mmengine/hooks/ema_hook.py``) and mmcv 1.x, both
    of which save with the EMA swapped into the plain names.
    """
    key = next((key for key in ('state_dict', 'model') if isinstance(container.get(key), dict)), None)
    plain = container if key is None else container[key]
    if not plain or not all(isinstance(value, Tensor) for value in plain.values()):
        raise UserError(
            f'the checkpoint has no state dict of tensors: it holds {_listed(map(str, plain)) or "nothing"}'
        )
    kind = 'bare state dict' if key is None else f'{key}{_writer(container)}'
    plain = _without_wrapper(plain)

    ema_key = next((key for key in ('state_dict_ema', 'model_ema') if container.get(key)), None)
    if ema_key is not None:
        return WeightSets(kind, plain, False, plain | _without_wrapper(container[ema_key]))
    if 'ema_state_dict' in container:
        raw = {name.removeprefix('module.'): value for name, value in container['ema_state_dict'].items()}
        raw.pop('steps', None)
        return WeightSets(kind, plain, True, plain | raw)
    raw_buffers = {name: 'ema_' + name.replace('.', '_') for name in plain}
    raw = {name: plain[buffer] for name, buffer in raw_buffers.items() if buffer in plain}
    if raw:
        buffers = set(raw_buffers.values())
        averaged = _map_names(plain, lambda name: None if name in buffers else name)
        return WeightSets(kind, averaged, True, averaged | raw)
    return WeightSets(kind, plain)


def _writer(container: dict) -> str:
    meta = container.get('meta')
    writers = [name for name in ('mmengine', 'mmcv') if isinstance(meta, dict) and f'{name}_version' in meta]
    return f' of {writers[0]}' if writers else ''


def _map_names(state_dict: dict[str, Tensor], rename: Callable[[str], str | None]) -> OrderedDict[str, Tensor]:
    """A state dict under other names, without those renamed to None; keeps the versions torch notes in it."""
    renamed = OrderedDict((new, value) for old, value in state_dict.items() if (new := rename(old)) is not None)
    if hasattr(state_dict, '_metadata'):
        renamed._metadata = state_dict._metadata
    return renamed


def _without_wrapper(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefix that DistributedDataParallel (module) or Lightning (model) put before all of them."""
    for prefix in ('module.', 'model.'):
        if all(name.startswith(prefix) for name in state_dict):
            state_dict = _map_names(state_dict, lambda name, prefix=prefix: name.removeprefix(prefix))
    return state_dict


def load(source: str | Path | dict, ema: bool | None = None) -> dict[str, Tensor]:
    """The state dict of a weight file, under the file's own names less a ``module.`` or ``model.`` before them all.

    Args:
        source: Path, or a container that :func:`read` gave.
        ema: None takes what the file calls its ``state_dict``; True the EMA weights, False the raw ones.

    Raises:
        UserError: As :func:`read`; if there is no state dict; if ``ema`` is True and there are no EMA weights.
    """
    sets = weight_sets(source if isinstance(source, dict) else read(source)).choose(ema)
    # Of a container in memory a hook may have swapped the two.
    if sets.other is not None and not isinstance(source, dict):
        print_log(f'{source} holds raw and EMA weights: took the {"EMA" if sets.is_ema else "raw"} ones', 'current')
    return sets.state_dict


# Patterns and what they become. Early: MogaNet's first days, before any release. Wrapped: sigma as a scale module.
_MODERN_RULES = (
    (r'(patch_embed[234]\.projection)\.0\.', r'\1.'),
    (r'(patch_embed[234])\.projection\.1\.', r'\1.norm.'),
    (r'((?:attn|mlp)\.sigma)$', r'\1.scale'),
)
LAYOUTS = {
    'published': (*_MODERN_RULES, (r'^backbone\.', ''), (r'^head\.fc\.', 'head.')),
    'backbone-prefixed': (
        *_MODERN_RULES,
        (r'^(?=patch_embed\d|blocks\d|norm\d)', 'backbone.'),
        (r'^head\.(?=(weight|bias)$)', 'head.fc.'),
    ),
}
# OpenSTL keeps sigma bare; mmpose 0.x says keypoint_head.
_OTHER_RULES = ((r'((?:attn|mlp)\.sigma)\.scale$', r'\1'), (r'^keypoint_head\.', 'head.'))
_TRUNK = re.compile(r'(patch_embed|blocks|norm)\d\.')
_CLASSIFIER = re.compile(r'head\.(fc\.)?(weight|bias)')


def to_layout(state_dict: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    """A classification state dict under the names of the MogaNet release (published) or of OpenMMLab.

    Args:
        state_dict: As :func:`load` gives it.
        layout: A key of ``LAYOUTS``.

    Raises:
        UserError: If there is more in it than trunk and classifier.
    """
    others = [
        name for name in state_dict if not (_TRUNK.match(name.removeprefix('backbone.')) or _CLASSIFIER.fullmatch(name))
    ]
    if others:
        raise UserError(
            f'the layout {layout} is for classification weights, and there is more here ({_listed(others)}): '
            'leave the layout (--to) out'
        )

    def rename(name: str) -> str:
        for pattern, replacement in LAYOUTS[layout]:
            name = re.sub(pattern, replacement, name)
        return name

    return _map_names(state_dict, rename)


def map_keys(state_dict: dict[str, Tensor], model_keys: Iterable[str]) -> dict[str, Tensor]:
    """Rename what a model knows under another of the published names; the rest keeps its name.

    Args:
        state_dict: As :func:`load` gives it.
        model_keys: Names in the state dict of the model.
    """
    model_keys = set(model_keys)
    taken = model_keys & set(state_dict)

    def rename(name: str) -> str:
        if name in model_keys:
            return name
        candidates = [name]
        for pattern, replacement in (*LAYOUTS['published'], *LAYOUTS['backbone-prefixed'], *_OTHER_RULES):
            renamed = [re.sub(pattern, replacement, known) for known in candidates]
            candidates += [known for known in renamed if known not in candidates]
        # Two names of the file for one of the model: the second keeps its own, and is told as unexpected.
        fitting = next((known for known in candidates if known in model_keys and known not in taken), name)
        taken.add(fitting)
        return fitting

    return _map_names(state_dict, rename)


class CheckpointError(UserError):
    """Weights that do not fit the model."""


@dataclass(frozen=True)
class LoadReport:
    """What :func:`load_into` did, by the names of the model where they exist.

    Args:
        loaded: Names that were loaded.
        missing: Names of the model that the file lacks; BatchNorm's batch counters, absent in old files, apart.
        unexpected: Names of the file that the model lacks.
        misshapen: Name, shape in the file, shape in the model.
        dropped: Classifier names of the file, where the model is a bare trunk.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    dropped: tuple[str, ...]


def load_into(
    model: nn.Module,
    source: str | Path | dict,
    allow_missing: Iterable[str] = (),
    allow_unexpected: Iterable[str] = (),
    ema: bool | None = None,
) -> LoadReport:
    """Load weights into a model, whole or, but for what the caller names, not at all.

    A bare trunk takes a classification file: that its classifier has no place is logged, not an error.

    Args:
        model: Loaded in place; not touched if this raises.
        source: Path, container or state dict.
        allow_missing: Patterns (``head.*``, see :mod:`fnmatch`) of the model's names that may keep the values they
            have, because the file lacks them or has them in another shape.
        allow_unexpected: Patterns of the file's names, after mapping, that may be left out.
        ema: See :func:`load`.

    Raises:
        CheckpointError: If a name is missing, unexpected or of another shape and no pattern allows it.
        UserError: As :func:`load`.
    """
    own = model.state_dict()
    state_dict = map_keys(load(source, ema), own)
    is_trunk = all(_TRUNK.match(name) for name in own)
    dropped = tuple(name for name in state_dict if is_trunk and _CLASSIFIER.fullmatch(name))
    missing = tuple(name for name in own if name not in state_dict and not name.endswith('num_batches_tracked'))
    unexpected = tuple(name for name in state_dict if name not in own and name not in dropped)
    misshapen = tuple(
        (name, tuple(value.shape), tuple(own[name].shape))
        for name, value in state_dict.items()
        if name in own and value.shape != own[name].shape
    )
    bad_missing = _not_allowed(missing, allow_missing)
    bad_unexpected = _not_allowed(unexpected, allow_unexpected)
    bad_shapes = _not_allowed([name for name, *_ in misshapen], allow_missing)
    if bad_missing or bad_unexpected or bad_shapes:
        shapes = [f'{name} {ours} against {theirs}' for name, ours, theirs in misshapen if name in bad_shapes]
        found = {
            'missing': [f'{name} {tuple(own[name].shape)}' for name in bad_missing],
            'unexpected': [f'{name} {tuple(state_dict[name].shape)}' for name in bad_unexpected],
            'of another shape (file against model)': shapes,
        }
        raise CheckpointError(
            f'{"the weights" if isinstance(source, dict) else source} do not fit {type(model).__name__}: '
            + '; '.join(f'{len(names)} {what}: {_listed(names)}' for what, names in found.items() if names)
            + _size_hint(state_dict, own)
            + '. Give the matching model or file, or name what may be left out in allow_missing, allow_unexpected'
        )

    left_out = {name for name, *_ in misshapen}
    fitting = _map_names(state_dict, lambda name: name if name in own and name not in left_out else None)
    model.load_state_dict(fitting, strict=False)
    for what, names in (
        ('no place for the classifier', dropped),
        ('allowed to be missing', missing),
        ('allowed to be left over', unexpected),
        ('allowed to differ in shape', [name for name, *_ in misshapen]),
    ):
        if names:
            print_log(f'load_into {type(model).__name__}: {what}: {_listed(names)}', 'current')
    return LoadReport(tuple(fitting), missing, unexpected, misshapen, dropped)


def _not_allowed(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in patterns)]


def _listed(names: Iterable[str], num_shown: int = 5) -> str:
    names = list(names)
    more = len(names) - num_shown
    return ', '.join(names[:num_shown]) + (f' and {more} more' if more > 0 else '')


def _published_size(state_dict: dict[str, Tensor]) -> str | None:
    # At the top the import would be circular: the models load their weights by this file.
    from .published.archs import ARCHS

    shape = {name.removeprefix('backbone.'): tuple(value.shape) for name, value in state_dict.items()}
    widths = tuple(shape.get(f'norm{i}.weight', (None,))[0] for i in range(1, 5))
    depths = tuple(len({name.split('.')[1] for name in shape if name.startswith(f'blocks{i}.')}) for i in range(1, 5))
    return next((arch for arch, s in ARCHS.items() if (s['embed_dims'], s['depths']) == (widths, depths)), None)


def _size_hint(file: dict[str, Tensor], model: dict[str, Tensor]) -> str:
    size, expected = _published_size(file), _published_size(model)
    if size is None or size == expected:
        return ''
    return f'. The file looks like moganet_{size}' + (f', the model is moganet_{expected}' if expected else '')


def write(
    state_dict: dict[str, Tensor], path: str | Path, metadata: dict | None = None, extra: dict | None = None
) -> None:
    """Write a weight file so that at ``path`` there is never half of one.

    Args:
        state_dict: Weights; copied to the CPU.
        path: ``.safetensors``, or ``.pth`` / ``.pt`` for a dict with ``meta`` and ``state_dict``.
        metadata: Facts about the weights; as text in ``.safetensors``.
        extra: Further entries for the dict of a ``.pth`` file.

    Raises:
        UserError: If the suffix is another, the folder cannot be written, or ``extra`` meets ``.safetensors``.
    """
    path = Path(path)
    if path.suffix not in ('.safetensors', '.pth', '.pt'):
        raise UserError(f'{path} cannot be written: choose the suffix .safetensors, .pth or .pt')
    if path.suffix == '.safetensors':
        if extra:
            raise UserError(f'{path} holds one set of weights: choose .pth to keep more')
        texts = {key: str(value) for key, value in (metadata or {}).items()}
        data = _import_safetensors(path).torch.save(_copied(state_dict), texts)
    else:
        buffer = io.BytesIO()
        extra = {key: _copied(weights) for key, weights in (extra or {}).items()}
        torch.save({'meta': metadata or {}, 'state_dict': _copied(state_dict), **extra}, buffer)
        data = buffer.getbuffer()
    try:
        write_whole(path, data)
    except OSError as error:
        raise UserError(f'{path} cannot be written ({error.strerror}): choose another place') from None


def _copied(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    # A copy of its own each: safetensors refuses tensors that share memory or are not contiguous.
    return {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in state_dict.items()}


def convert(
    source: str | Path, target: str | Path, ema: bool | None = None, layout: str | None = None, overwrite: bool = False
) -> dict[str, str]:
    """Write a weight file anew: tensors alone, of any container, under the names wanted.

    Where the source holds raw and EMA weights, the set chosen becomes ``state_dict``. A ``.pth`` file keeps the other
    beside it, in timm's ``state_dict_ema`` if it is the EMA, in mmengine's ``ema_state_dict`` if it is the raw one,
    so that :func:`load` finds both again; ``.safetensors`` holds the chosen set alone.

    Args:
        source: Any file that :func:`read` reads.
        target: File to write, see :func:`write`.
        ema: Set to take, see :func:`load`.
        layout: Names to write, see :func:`to_layout`; None keeps those of the source.
        overwrite: Replace ``target`` if it is there.

    Returns:
        The facts also written as the file's metadata: ``source``, ``container``, ``set``, ``tensors``, ``kept``.

    Raises:
        UserError: As the functions above, and if ``target`` is there.
    """
    source, target = Path(source), Path(target)
    if target.exists() and not overwrite:
        raise UserError(f'{target} is there already: pass --force to replace it, or choose another name')
    container = read(source)
    sets = weight_sets(container).choose(ema)
    rename = (lambda weights: to_layout(weights, layout)) if layout else dict
    facts = {
        'source': source.name,
        'container': sets.kind,
        'tensors': str(len(sets.state_dict)),
        'set': 'only' if sets.other is None else 'ema' if sets.is_ema else 'raw',
        'kept': 'none',
    }
    metadata, extra = facts, {}
    if target.suffix != '.safetensors':
        if sets.other is not None and sets.is_ema:
            facts['kept'] = 'raw'
            extra['ema_state_dict'] = {f'module.{name}': value for name, value in rename(sets.other).items()}
        elif sets.other is not None:
            facts['kept'] = 'ema'
            extra['state_dict_ema'] = rename(sets.other)
        meta = container.get('meta')
        if isinstance(meta, dict) and 'dataset_meta' in meta:  # the class names, which predictions are told by
            metadata = facts | {'dataset_meta': meta['dataset_meta']}
    write(rename(sets.state_dict), target, metadata, extra)
    return facts


def load_from_local(filename: str, map_location=None) -> dict:
    """:func:`read`, as mmengine calls a loader."""
    return read(filename, map_location or 'cpu')


def load_from_http(filename: str, map_location=None, model_dir: str | None = None) -> dict:
    """Download into torch's own cache, the main process first, then :func:`read`.

    A published classification file comes as the libraries' own loaders want it, which map no names: under the names of
    OpenMMLab, the set of weights that its figure belongs to.
    """
    from .zoo import result_of_weights

    path = _fetch_once(filename, model_dir)
    container = read(path, map_location or 'cpu')
    results = result_of_weights(path.name)
    if results and results[0].task == 'classification':
        sets = weight_sets(container).choose_published(results[0].weight_set)
        return {'meta': {}, 'state_dict': to_layout(sets.state_dict, 'backbone-prefixed')}
    return container


def _fetch_once(url: str, folder: str | None = None) -> Path:
    """:func:`mogacore.download.fetch` by the main process, and then by the others, who find the file."""
    if not is_main_process():
        barrier()
    path = fetch(url, folder)
    if is_main_process():
        barrier()
    return path


def load_from_openmmlab(filename: str, map_location=None) -> dict:
    """A name of OpenMMLab's table of weights, which may be a URL or a file in mmengine's folder."""
    name = filename.partition('://')[2]
    name = mmengine_checkpoint.get_deprecated_model_names().get(name, name)
    target = mmengine_checkpoint.get_external_models().get(name)
    if target is None:
        raise UserError(f'{filename} is not in the table of OpenMMLab weights: give a path or URL')
    if target.startswith(('http://', 'https://')):
        return load_from_http(target, map_location)
    return read(Path(mmengine_checkpoint._get_mmengine_home()) / target, map_location or 'cpu')


SCHEME = 'mogacore://'


def official_address(name: str) -> str:
    """Address of a published weight file by its name, see :func:`mogacore.zoo.official_weights`.

    Raises:
        UserError: If the name is unknown.
    """
    from .zoo import official_weights  # the data is read only when a name is given

    addresses = official_weights()
    name = name.removeprefix(SCHEME)
    if name not in addresses:
        near = get_close_matches(name, addresses, n=4, cutoff=0.4) or list(addresses)[:6]
        raise UserError(
            f'{SCHEME}{name} is not among the published weights: did you mean {", ".join(near)}? '
            'tools/weights.py lists all names'
        )
    return addresses[name]


def local_file(source: str | Path) -> Path:
    """The path of a weight file; one that is named by ``mogacore://`` or an address is fetched if it is not there.

    Raises:
        UserError: If the name is unknown or the file cannot be fetched.
    """
    if isinstance(source, str) and source.startswith(SCHEME):
        source = official_address(source)
    if isinstance(source, str) and source.startswith(('http://', 'https://')):
        return _fetch_once(source)
    return Path(source).expanduser()


def load_official(model: nn.Module, name: str) -> LoadReport:
    """Load a published file by its name into a classifier or trunk, with the set of weights that its figure belongs to.

    Args:
        model: See :func:`load_into`.
        name: See :func:`official_address`.

    Raises:
        UserError: As :func:`official_address` and :func:`load_into`; if the weights were trained with the other gate
            function than the model has.
    """
    from .zoo import result_of_weights

    path = local_file(f'{SCHEME}{name.removeprefix(SCHEME)}')
    result = result_of_weights(path.name)[0]
    gates = {module.attn_force_fp32 for module in model.modules() if hasattr(module, 'attn_force_fp32')}
    if result.attn_force_fp32 is not None and gates != {result.attn_force_fp32}:
        raise UserError(f'{path.name} was trained with attn_force_fp32={result.attn_force_fp32}: create the model so')
    sets = weight_sets(read(path)).choose_published(result.weight_set)
    return load_into(model, sets.state_dict)


def load_from_mogacore(filename: str, map_location=None) -> dict:
    """A name of :func:`mogacore.zoo.official_weights`, as in ``mogacore://moganet_tiny``."""
    return read(filename, map_location or 'cpu')


def load_from_refused(filename: str, map_location=None) -> dict:
    """Cloud stores, of which mmengine's own readers unpickle what they find."""
    raise UserError(f'{filename} cannot be read safely: fetch the file and give its path')


def register_safe_loader() -> None:
    """Make mmengine read every weight file by :func:`read`: load_from, resume and Pretrained of all task libraries."""
    register = mmengine_checkpoint.CheckpointLoader.register_scheme
    register('', load_from_local, force=True)
    register(['http://', 'https://'], load_from_http, force=True)
    register(['open-mmlab://', 'openmmlab://'], load_from_openmmlab, force=True)
    register('mogacore://', load_from_mogacore, force=True)
    register(['pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://'], load_from_refused, force=True)
    # torchvision://, modelzoo:// and mmcls:// find a URL and call this by its name in the module.
    mmengine_checkpoint.load_from_http = load_from_http
