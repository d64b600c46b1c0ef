"""mmengine's access to local files, with which every task library finds and reads data, such that it always ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import wraps
from typing import Any

from mmengine.fileio.backends import LocalBackend

from mogacore.files import read_file, walk


def register_local_files() -> None:
    """Make mmengine list a folder that contains itself by links once, and refuse what is not an ordinary file.

    It would follow such links without end, and wait for a FIFO.
    """
    if not hasattr(LocalBackend.list_dir_or_file, 'ends'):
        LocalBackend.list_dir_or_file = _ending(LocalBackend.list_dir_or_file)
        LocalBackend.get = lambda self, filepath: read_file(filepath)


def _ending(list_as_mmengine: Any) -> Any:
    @wraps(list_as_mmengine)
    def list_dir_or_file(
        self: Any, dir_path: Any, list_dir: bool = True, list_file: bool = True, suffix: Any = None,
        recursive: bool = False,
    ) -> Iterator[str]:  # fmt: skip
        if list_dir or not list_file or not recursive:
            yield from list_as_mmengine(self, dir_path, list_dir, list_file, suffix, recursive)
            return
        for at, _, names in walk(dir_path):
            paths = (os.path.relpath(os.path.join(at, name), dir_path) for name in names if name[0] != '.')
            yield from (path for path in paths if suffix is None or path.endswith(suffix))

    list_dir_or_file.ends = True  # type: ignore[attr-defined]
    return list_dir_or_file
