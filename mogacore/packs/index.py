"""The index of a packed folder: where each file is, by its name."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from mogacore.errors import UserError
from mogacore.files import open_atomic

INDEX_NAME = 'mogacore.index.npz'
VERSION = 1


def index_command(folder: str | Path) -> str:
    """The command that writes the index of a folder."""
    return f'mogacore pack {folder} --index'


@dataclass
class Index:
    """Names of the packed files, sorted by their bytes, and where each is.

    Args:
        kind: 'shards' or 'lmdb'.
        names: Names as bytes, one after another.
        ends: (files,) int64, where each name ends in ``names``.
        sizes: (files,) int64, bytes of each file.
        shards: Names of the shards.
        shard_sizes: (shards,) int64, bytes of each shard.
        shard: (files,) int32, the shard of each file.
        offsets: (files,) int64, where the content of each file starts in its shard.
        headers: (files,) uint32, CRC-32 of the 512 bytes before it, which show that the shard is still the same.
        state: (3,) int64, entries, last transaction and bytes of an LMDB database, see :func:`lmdb_state`.
        classes: Names of all class folders, also empty ones; none if there are no class folders.
    """

    kind: str
    names: bytes
    ends: np.ndarray
    sizes: np.ndarray
    shards: Sequence[str] = ()
    shard_sizes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    shard: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    offsets: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    headers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))
    state: np.ndarray = field(default_factory=lambda: np.zeros(3, np.int64))
    classes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.ends)

    @classmethod
    def load(cls, path: Path) -> Index:
        """Read an index.

        Raises:
            UserError: If it cannot be read.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                if int(file['version']) != VERSION:
                    raise ValueError(f'version {file["version"]}')
                values = {key: file[key] for key in file.files if key != 'version'}
            texts = dict(kind=str(values['kind']), names=values['names'].tobytes())
            lists = {key: [str(name) for name in values[key]] for key in ('shards', 'classes')}
            index = cls(**{**values, **texts, **lists})
            if index.kind not in ('shards', 'lmdb') or index.ends[-1:].tolist() not in ([], [len(index.names)]):
                raise ValueError('its parts do not fit')
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            reason = ' '.join(str(error).split())[:100]
            command = index_command(path.parent)
            raise UserError(f'index {path} cannot be read ({reason}): run "{command}"') from None
        return index

    def save(self, folder: Path) -> None:
        """Write it into a folder, atomically."""
        values = {key: value for key, value in vars(self).items() if key not in ('names', 'shards', 'classes')}
        with open_atomic(folder / INDEX_NAME) as file:
            np.savez(
                file, version=VERSION, names=np.frombuffer(self.names, np.uint8),
                shards=np.array(self.shards, dtype=str), classes=np.array(self.classes, dtype=str), **values,
            )  # fmt: skip

    def raw(self, row: int) -> bytes:
        """Name of a file as bytes."""
        return self.names[self.ends[row - 1] if row else 0 : self.ends[row]]

    def find(self, name: str) -> int | None:
        """Row of a file; None if there is none with this name."""
        wanted = os.fsencode(name)
        row = self._first(wanted)
        return row if row < len(self) and self.raw(row) == wanted else None

    def _first(self, wanted: bytes, start: int = 0) -> int:
        """First row, from ``start`` on, whose name does not come before ``wanted``."""
        end = len(self)
        while start < end:
            middle = (start + end) // 2
            if self.raw(middle) < wanted:
                start = middle + 1
            else:
                end = middle
        return start

    def below(self, folder: str) -> range:
        """Rows of the files in a folder and its subfolders; '' is everything."""
        if not folder:
            return range(len(self))
        prefix = os.fsencode(folder)
        return range(self._first(prefix + b'/'), self._first(prefix + b'0'))  # 0 comes after /

    def children(self, folder: str) -> tuple[list[str], list[str]]:
        """Sorted names of the folders and of the files directly in a folder."""
        names = list(self._children(folder))
        return tuple(sorted(os.fsdecode(name) for name, is_file in names if is_file == wanted) for wanted in (0, 1))  # type: ignore[return-value]

    def _children(self, folder: str) -> Iterator[tuple[bytes, bool]]:
        rows = self.below(folder)
        start = len(os.fsencode(folder)) + 1 if folder else 0
        row = rows.start
        while row < rows.stop:
            name = self.raw(row)
            part, is_deeper, _ = name[start:].partition(b'/')
            yield part, not is_deeper
            row = self._first(name[:start] + part + b'0', row) if is_deeper else row + 1


def pack_names(names: Sequence[str]) -> tuple[bytes, np.ndarray, np.ndarray]:
    """Sort names for an index.

    Args:
        names: Distinct relative paths.

    Returns:
        ``names`` and ``ends`` of an :class:`Index`, and (files,) int64, the number of each of its rows in the argument.

    Raises:
        UserError: If a name occurs twice.
    """
    raw = [os.fsencode(name) for name in names]
    order = sorted(range(len(raw)), key=raw.__getitem__)
    for before, after in pairwise(order):
        if raw[before] == raw[after]:
            raise UserError(f'{names[after]} occurs twice: give every file its own name')
    ends = np.cumsum([len(raw[number]) for number in order], dtype=np.int64)
    return b''.join(raw[number] for number in order), ends, np.array(order, np.int64)
