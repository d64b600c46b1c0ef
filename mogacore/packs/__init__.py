"""Images packed into tar shards or LMDB, read by the path that they have in the folder they were packed from.

A packed folder holds shards or a database, and an index of the files in it. ``FOLDER/n01440764/1.JPEG`` names a file in
the packed folder ``FOLDER``, whether or not it exists outside of it. The functions of this module accept both kinds of
paths, so that whatever finds and reads images through them, or through mmengine (see
:mod:`mogacore.datasets.local_files`), works for both. :mod:`mogacore.packing` writes packed folders.
"""

from __future__ import annotations

import os
from pathlib import Path

from mogacore.errors import UserError
from mogacore.files import read_file, walk

from .index import INDEX_NAME, Index, index_command
from .lmdb_files import LMDB_FILE, LmdbReader
from .shards import SHARD_SUFFIX, ShardReader

NO_CLASSES = ('__MACOSX', '__pycache__')
READERS: dict[str, type[ShardReader] | type[LmdbReader]] = {'shards': ShardReader, 'lmdb': LmdbReader}
_packs: dict[str, Pack] = {}  # by their real paths
_found: dict[str, tuple[Pack, str] | None] = {}  # for each folder asked for, the pack that contains it, and its path


class Pack:
    """A packed folder, open for reading in this process and in processes forked from it.

    Args:
        folder: Folder with an index.

    Raises:
        UserError: If the index cannot be read, or a file that it lists is missing or has changed.
    """

    def __init__(self, folder: str | Path):
        self.folder = str(folder)
        self.index = Index.load(Path(folder) / INDEX_NAME)
        self.reader = READERS[self.index.kind](self.folder, self.index)

    def __contains__(self, name: str) -> bool:
        return self.index.find(name) is not None

    def size(self, name: str) -> int:
        """Number of bytes of a file."""
        return int(self.index.sizes[self._row(name)])

    def read(self, name: str) -> bytes:
        """Content of a file.

        Args:
            name: Path relative to the folder.

        Raises:
            UserError: If there is no such file, or it cannot be read.
        """
        return self.reader.read(self._row(name))

    def _row(self, name: str) -> int:
        row = self.index.find(name)
        if row is None:
            raise UserError(
                f'{name} is not among the {len(self.index)} files packed in {self.folder}: correct its name in the '
                'annotations, or pack the data again'
            )
        return row

    def is_folder(self, name: str) -> bool:
        """Whether there are files below a relative path; '' is the folder itself."""
        return not name or name in self.index.classes or bool(self.index.below(name))

    def children(self, name: str = '') -> tuple[list[str], list[str]]:
        """Sorted names of the folders and of the files directly in a folder."""
        folders, files = self.index.children(name)
        return (sorted({*folders, *self.index.classes}) if not name else folders), files

    def files(self, name: str = '') -> list[str]:
        """Sorted paths, relative to a folder, of all files in it and its subfolders."""
        start = len(os.fsencode(name)) + 1 if name else 0
        return sorted(os.fsdecode(self.index.raw(row)[start:]) for row in self.index.below(name))


def locate(folder: str | Path) -> tuple[Pack, str] | None:
    """The packed folder that a folder is in, and the rest of the path, '' for itself; None if there is none."""
    full = os.path.abspath(folder)
    found = _find(full)
    return found and (found[0], full[len(found[1]) + 1 :])


def locate_file(path: str | Path) -> tuple[Pack, str] | None:
    """As :func:`locate`, for the path of a file, whether or not it is packed."""
    full = os.path.abspath(path)
    found = _find(os.path.dirname(full))
    return found and (found[0], full[len(found[1]) + 1 :])


def packed(path: str | Path) -> tuple[Pack, str] | None:
    """As :func:`locate_file`, but None if the file is not packed."""
    located = locate_file(path)
    return located if located and located[1] in located[0] else None


def _find(folder: str) -> tuple[Pack, str] | None:
    if folder not in _found:
        parent = os.path.dirname(folder)
        if os.path.isfile(os.path.join(folder, INDEX_NAME)):
            real = os.path.realpath(folder)  # LMDB must not be opened twice
            if real not in _packs:
                _packs[real] = Pack(folder)
            _found[folder] = _packs[real], folder
        else:
            _found[folder] = None if parent == folder else _find(parent)
    return _found[folder]


def forget() -> None:
    """Look for packed folders again, after some have been written or removed."""
    _found.clear()
    _packs.clear()


def read_bytes(path: str | Path) -> bytes:
    """Content of a file, packed or not.

    Raises:
        OSError: If it cannot be read.
        UserError: If it is below a packed folder, and neither packed nor a file.
    """
    located = locate_file(path)
    if located is None:
        return read_file(path)
    pack, name = located
    row = pack.index.find(name)
    if row is not None:
        return pack.reader.read(row)
    return read_file(path) if os.path.isfile(path) else pack.read(name)  # which says what is missing


def is_file(path: str | Path) -> bool:
    """Whether a path is that of a file, packed or not."""
    return os.path.isfile(path) or packed(path) is not None


def is_folder(path: str | Path) -> bool:
    """Whether a path is that of a folder, packed or not."""
    located = None if os.path.isdir(path) else locate(path)
    return os.path.isdir(path) or (located is not None and located[0].is_folder(located[1]))


def file_size(path: str | Path) -> int:
    """Number of bytes of a file, packed or not."""
    located = packed(path)
    return located[0].size(located[1]) if located else os.path.getsize(path)


def file_names(folder: str | Path) -> set[str]:
    """Names of the ordinary files in a folder, packed or not, and of links to some; none if it does not exist."""
    names: set[str] = set()
    if os.path.isdir(folder):
        with os.scandir(folder) as entries:
            names = {e.name for e in entries if (os.path.isfile(e.path) if e.is_symlink() else e.is_file())}
    located = locate(folder)
    return names.union(located[0].children(located[1])[1]) if located else names


def list_classes(folder: str | Path) -> list[str]:
    """Sorted names of the class folders in a folder, without hidden ones such as ``.ipynb_checkpoints``."""
    if located := locate(folder):
        names = located[0].children(located[1])[0]
    else:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    return sorted(name for name in names if name[0] != '.' and name not in NO_CLASSES)


def list_files(folder: str | Path) -> list[str]:
    """Sorted relative paths of all files in a folder and its subfolders, without hidden ones."""
    if located := locate(folder):
        return located[0].files(located[1])
    found = []
    for at, folders, names in walk(folder):
        folders[:] = [name for name in folders if name[0] != '.' and name not in NO_CLASSES]
        below = os.path.relpath(at, folder)
        found += [name if below == '.' else f'{below}/{name}' for name in names if name[0] != '.']
    return sorted(found)


def check_indexed(folder: str | Path) -> None:
    """Raise UserError if a folder has tar shards or an LMDB database, and no index."""
    names = os.listdir(folder) if os.path.isdir(folder) and not locate(folder) else []
    if LMDB_FILE in names or any(name.endswith(SHARD_SUFFIX) for name in names):
        raise UserError(f'folder {folder} has packed images, but no {INDEX_NAME}: run "{index_command(folder)}"')
