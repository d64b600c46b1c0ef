"""mmengine's access to local files: packed ones are found by their paths, and files are written atomically.

Every step and data set of the task libraries reads files through mmengine, which also writes checkpoints.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.fileio.io import backend_instances

from mogacore import packs
from mogacore.files import walk, write_atomic


class LocalFiles(LocalBackend):
    """mmengine's LocalBackend, which also finds the files of packed folders, see :mod:`mogacore.packs`.

    Reading raises UserError where a packed file cannot be read. Each file is written with
    :func:`mogacore.files.write_atomic`.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file."""
        target = Path(filepath)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write a text file."""
        self.put(obj.encode(encoding, 'surrogateescape'), filepath)

    def get(self, filepath: str | Path) -> bytes:
        """Content of a file."""
        return packs.read_bytes(filepath)

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        """Text of a file."""
        return self.get(filepath).decode(encoding)

    def exists(self, filepath: str | Path) -> bool:
        """Whether a path is that of a file or folder."""
        return os.path.exists(filepath) or packs.is_file(filepath) or packs.is_folder(filepath)

    def isfile(self, filepath: str | Path) -> bool:
        """Whether a path is that of a file."""
        return packs.is_file(filepath)

    def isdir(self, filepath: str | Path) -> bool:
        """Whether a path is that of a folder."""
        return packs.is_folder(filepath)

    @contextmanager
    def get_local_path(self, filepath: str | Path) -> Iterator[str | Path]:
        """Path of a file with the content; a packed file is copied to a temporary one."""
        if packs.packed(filepath) is None:
            yield filepath
            return
        with tempfile.NamedTemporaryFile(suffix=Path(filepath).suffix) as file:
            file.write(packs.read_bytes(filepath))
            file.flush()
            yield file.name

    def list_dir_or_file(
        self,
        dir_path: str | Path,
        list_dir: bool = True,
        list_file: bool = True,
        suffix: str | tuple[str, ...] | None = None,
        recursive: bool = False,
    ) -> Iterator[str]:
        """Paths relative to a folder, as in mmengine; those of a packed folder are sorted.

        A folder that contains itself by links is searched once, where mmengine would follow them without end.
        """
        located = packs.locate(dir_path)
        if located is None and recursive and list_file and not list_dir:
            return self._walk(dir_path, suffix or '')
        if located is None:
            return super().list_dir_or_file(dir_path, list_dir, list_file, suffix, recursive)
        if list_dir and suffix is not None:
            raise TypeError('`suffix` should be None when `list_dir` is True')
        return self._list_packed(*located, list_dir, list_file, suffix or '', recursive)

    def _walk(self, dir_path: str | Path, suffix: str | tuple[str, ...]) -> Iterator[str]:
        for at, _, names in walk(dir_path):
            paths = (os.path.relpath(os.path.join(at, name), dir_path) for name in names if name[0] != '.')
            yield from (path for path in paths if path.endswith(suffix))

    def _list_packed(self, pack, folder, list_dir, list_file, suffix, recursive) -> Iterator[str]:
        folders, files = pack.children(folder)
        if list_file:
            yield from (name for name in files if name.endswith(suffix) and name[0] != '.')
        for name in folders if list_dir or recursive else ():
            if list_dir:
                yield name
            if recursive:
                deeper = f'{folder}/{name}' if folder else name
                yield from (
                    f'{name}/{path}' for path in self._list_packed(pack, deeper, list_dir, list_file, suffix, True)
                )


def register_local_files() -> None:
    """Make mmengine read and write every local file, such as images, checkpoints and JSON, with :class:`LocalFiles`."""
    register_backend('local', LocalFiles, force=True, prefixes='')
    for key, backend in list(backend_instances.items()):  # created before
        if type(backend) is LocalBackend:
            del backend_instances[key]
