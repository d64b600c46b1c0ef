"""Reads weight files without running code from them.

torch's own safe unpickler refuses objects that training files of mmengine, mmcv and timm contain besides tensors. Here
each of those objects first becomes an inert placeholder, and is then built from checked values.
"""

from __future__ import annotations

import argparse
import codecs
import json
import re
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from mogacore.errors import UserError
from mogacore.files import readable

from .schema import check_container, shown


class _Record:
    """An inert placeholder for a pickled object: stores its arguments and state, and runs nothing.

    torch's safe unpickler builds allowed classes from unchecked values, which is unsafe for numpy: a forged dtype makes
    numpy treat bytes as pointers. The unpickler therefore gets placeholders, and :meth:`revive` builds the objects once
    ``args`` and ``state`` contain no placeholders.
    """

    args: tuple
    state: Any

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
            raise ValueError(f'unsupported numpy array of type {code}')
        byte_order = self.state[1] if self.state else '='
        return np.dtype(code).newbyteorder(byte_order)


class _Array(_Record):
    def revive(self) -> np.ndarray:
        _, shape, dtype, is_fortran, data = self.state
        return _array(shape, dtype, data, order='F' if is_fortran else 'C')


class _Scalar(_Record):
    def revive(self) -> np.generic:
        dtype, data = self.args
        return _array((), dtype, data)[()]  # type: ignore[return-value]  # [()] of a 0-d array is a scalar


def _array(shape: tuple, dtype: np.dtype, data: bytes, order: Literal['C', 'F'] = 'C') -> np.ndarray:
    if not isinstance(dtype, np.dtype) or not isinstance(data, bytes):
        raise ValueError('numpy array in an unknown format')
    return np.ndarray(shape, dtype, data, order=order).copy()


class _EmptyBytes(_Record):
    def revive(self) -> bytes:
        return b''


class _HistoryBuffer(_Record):
    def __setstate__(self, state):
        state.pop('statistics_methods', None)  # functions, for which mmengine pickles getattr
        self.state = state

    def revive(self) -> HistoryBuffer:
        for key in ('_log_history', '_count_history'):
            history = self.state[key]
            is_flat = isinstance(history, (list, tuple)) and all(isinstance(item, (int, float)) for item in history)
            # An array of nested lists that contain the same list many times would take any memory.
            array = np.asarray(history) if is_flat or isinstance(history, np.ndarray) else None
            if array is None or array.ndim != 1 or array.dtype.kind not in 'biuf':
                raise ValueError('history of logged values that are not numbers')
        return HistoryBuffer(self.state['_log_history'], self.state['_count_history'], self.state['max_length'])


class _Namespace(_Record):
    def revive(self) -> argparse.Namespace:
        namespace = argparse.Namespace()
        vars(namespace).update(self.state or {})
        return namespace


# Everything that files of mmengine, mmcv and timm contain beyond torch's own list. numpy 2 renamed core to _core.
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
    # torch < 2.6 identifies an allowed class by its own __module__ and __qualname__.
    module, _, name = name.rpartition('.')
    return type(name, (record,), {'__module__': module, '__qualname__': name})


_SAFE_GLOBALS: list[Callable | tuple[Callable, str]] = [_renamed(name, record) for name, record in _RECORDS.items()]
_SAFE_GLOBALS.append(codecs.encode)  # of bytes in arrays; on torch's own list since 2.5


@contextmanager
def _only_our_globals() -> Iterator[None]:
    """Allow only our placeholders in torch's unpickler, regardless of what other libraries allow."""
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(_SAFE_GLOBALS)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)


def _revive(value, revived: dict[int, tuple]):
    """Replace every placeholder in ``value`` with its object, in place so that shared parts stay shared.

    ``revived`` has the placeholders and containers that are done, by id, each with what replaces it: nested tuples that
    contain the same tuple twice would otherwise take a time that doubles with each level.
    """
    if id(value) in revived:
        return revived[id(value)][1]
    result = value
    if isinstance(value, _Record):
        value.args, value.state = _revive(value.args, revived), _revive(value.state, revived)
        result = value.revive()
    elif type(value) is tuple:
        result = tuple(_revive(item, revived) for item in value)
    elif isinstance(value, (dict, list)):
        revived[id(value)] = value, value  # before its items, which may contain it
        for key, item in list(enumerate(value) if isinstance(value, list) else dict.items(value)):
            value[key] = _revive(item, revived)
        return value
    else:
        return value
    revived[id(value)] = value, result  # with the value itself, so that its id stays taken
    return result


def check_file(path: Path) -> None:
    """Check that a weight file exists and is a regular file, without opening it: opening a named pipe would hang.

    Raises:
        UserError: If it is not.
    """
    kinds = {stat.S_IFDIR: 'a folder', stat.S_IFIFO: 'a named pipe', stat.S_IFSOCK: 'a socket', stat.S_IFREG: None}
    try:
        kind = kinds.get(stat.S_IFMT(path.stat().st_mode), 'a device')
        reason = kind and f'it is {kind}'
    except FileNotFoundError:
        raise UserError(f'checkpoint {path} does not exist: give the path of a weight file') from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, 'strerror', None) or str(error)
    if reason:
        raise UserError(f'checkpoint {path} cannot be read ({reason}): give the path of a weight file')


def read_file(path: Path, map_location='cpu', mmap: bool = False) -> dict:
    """Read the whole container of a local weight file; never runs code from it.

    Args:
        path: A file written by torch.save, in the old or new format, or a ``.safetensors`` file.
        map_location: As in :func:`torch.load`.
        mmap: Leave the tensors on the disk until they are used; no effect on torch.save's old format.

    Returns:
        The saved dict; for a ``.safetensors`` file, a dict with ``state_dict`` and ``meta``.

    Raises:
        UserError: If the file is missing, truncated or damaged, is not a weight file, or contains pickled code.
        MalformedError: If it has an entry of a wrong type, see :func:`mogacore.checkpoint.schema.check_container`.
    """
    check_file(path)
    try:
        with path.open('rb') as file:
            head = file.read(16)
    except OSError as error:
        raise UserError(
            f'checkpoint {path} cannot be read ({error.strerror}): give the path of a weight file'
        ) from None
    if path.suffix == '.safetensors':
        container = _read_safetensors(path, map_location)
        check_container({'state_dict': container['state_dict']}, path)
        return container
    container = _read_torch(path, head, map_location, mmap)
    check_container(container, path)
    return container


def _read_torch(path: Path, head: bytes, map_location, mmap: bool) -> dict:
    if not head.startswith((b'PK\x03\x04', b'\x80')):
        found = f'it starts with {head!r}' if head else 'it is empty'
        raise UserError(f'{path} is not a checkpoint, {found}: give a file from torch.save, or download it again')
    if program := _program(path):
        raise UserError(
            f'{path} is {program}, which contains a program: at its source, save only the tensors, with '
            'torch.save(model.state_dict(), ...)'
        )
    is_utf_8 = readable(path) == str(path)  # torch opens other paths neither itself nor with mmap
    mmap = mmap and head[:2] == b'PK' and is_utf_8
    try:
        with _only_our_globals(), path.open('rb') as file:
            container = torch.load(path if is_utf_8 else file, map_location, weights_only=True, mmap=mmap)
        container = _revive(container, {})
    # A damaged file may raise any error, in torch's parser or in this module.
    except Exception as error:
        refused = re.search(r'GLOBAL (\S+)', str(error))
        if refused:
            raise UserError(
                f'{path} contains pickled code ({refused[1]}), which was refused and not run: at its source, save only '
                'the tensors, with torch.save(model.state_dict(), ...) or as .safetensors'
            ) from None
        raise UserError(
            f'{path} is truncated, damaged or not a checkpoint ({_first_line(error)}): download it again'
        ) from error
    if not isinstance(container, dict):
        raise UserError(f'{path} contains {shown(container)}, not a dict: give a file with a state dict')
    return container


def _first_line(error: Exception) -> str:
    text = str(error)
    inner = re.search(r'WeightsUnpickler error:\s*(.+)', text)  # torch puts advice before it
    return (inner[1] if inner else text.partition('\n')[0])[:120] or type(error).__name__


def _program(path: Path) -> str | None:
    """What an archive is if torch.jit.save or torch.export.save wrote it."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = {name.rpartition('/')[2] for name in archive.namelist()}
    except Exception:  # a damaged file may raise any error; torch's reader reports the damage
        return None
    if 'constants.pkl' in files:
        return 'a TorchScript archive (torch.jit.save)'
    # torch < 2.5 writes the second one, at the top level.
    is_export = not files.isdisjoint(('archive_format', 'serialized_exported_program.json'))
    return 'an exported program (torch.export.save)' if is_export else None


def _read_safetensors(path: Path, map_location) -> dict:
    safetensors = import_safetensors(path)
    try:
        with safetensors.safe_open(path, 'pt', device=str(map_location or 'cpu')) as file:
            state_dict = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, the file is not a dict
            return {'state_dict': state_dict, 'meta': _from_texts(file.metadata() or {})}
    # Besides its own error, the reader raises those of torch for types that torch does not have.
    except Exception as error:
        raise UserError(
            f'{path} is truncated, damaged or not a safetensors file ({_first_line(error)}): download it again'
        ) from error


def _from_texts(meta: dict[str, str]) -> dict[str, Any]:
    """Metadata of a ``.safetensors`` file, where that of the data set is JSON."""
    try:
        found = json.loads(meta.get('dataset_meta', ''))
    except (ValueError, RecursionError):
        return dict(meta)
    return {**meta, 'dataset_meta': found} if isinstance(found, dict) else dict(meta)


def import_safetensors(path: Path) -> ModuleType:
    """Import safetensors, which is optional; ``path`` is the file that needs it.

    Raises:
        UserError: If it is not installed.
    """
    try:
        import safetensors.torch
    except ImportError:
        raise UserError(f'{path} needs the package safetensors: run "pip install safetensors"') from None
    return safetensors
