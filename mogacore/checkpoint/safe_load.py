"""Reads weight files without running code from them.

torch's own safe unpickler refuses what training files of mmengine, mmcv and timm hold besides tensors. Here each of
those objects becomes an inert placeholder first, and is built from checked values afterwards.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from mogacore.errors import UserError


class _Record:
    """An inert placeholder for a pickled object: keeps what the file says about it and runs nothing.

    torch's safe unpickler builds allowed classes from unchecked values, which numpy's do not survive: a forged dtype
    makes numpy treat bytes as pointers. So the unpickler gets placeholders, and :meth:`revive` builds the objects
    once ``args`` and ``state`` contain no more of them.
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


# All that a training file of mmengine, mmcv or timm holds beyond torch's own list. numpy 2 moved core to _core.
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


_SAFE_GLOBALS = [_renamed(name, record) for name, record in _RECORDS.items()]


@contextmanager
def _only_our_globals() -> Iterator[None]:
    """Allow torch's unpickler our placeholders only, whatever other libraries have allowed."""
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(_SAFE_GLOBALS)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)


def _revive(value, seen: set[int]):
    """``value`` with every placeholder replaced by its object; in place, so that shared parts stay shared."""
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


def read_file(path: Path, map_location='cpu', mmap: bool = False) -> dict:
    """The whole container in a local weight file; never runs code from it.

    Args:
        path: A file of torch.save, old format or new, or a ``.safetensors`` file.
        map_location: As of :func:`torch.load`.
        mmap: Leave the tensors on the disk until they are used; without effect on torch.save's old format.

    Returns:
        What was saved; of a ``.safetensors`` file a dict with ``state_dict`` and ``meta``.

    Raises:
        UserError: If the file is not there, is cut off or damaged, is no weight file, or holds pickled code.
    """
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
    # A damaged file may raise any error, in torch's parser or in ours.
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
    safetensors = import_safetensors(path)
    try:
        with safetensors.safe_open(path, 'pt', device=str(map_location or 'cpu')) as file:
            state_dict = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, the file is no dict
            return {'state_dict': state_dict, 'meta': file.metadata() or {}}
    except safetensors.SafetensorError as error:
        raise UserError(f'{path} is truncated, damaged or no safetensors file ({error}): fetch it again') from None


def import_safetensors(path: Path):
    try:
        import safetensors.torch
    except ImportError:
        raise UserError(f'{path} needs the package safetensors: run "pip install safetensors"') from None
    return safetensors
