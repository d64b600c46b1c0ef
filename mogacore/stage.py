"""Copying data to the local disk of a node, once for all of its processes and jobs.

    python -m mogacore.stage DATA              # print the name of the copy
    python -m mogacore.stage DATA FOLDER NAME  # copy DATA to FOLDER/NAME on this node, unless it is there

The name depends on the path of the data and on the names, sizes and times of all files, so that data that have changed
get another copy. A copy appears under its name when it is complete. The Slurm scripts call this; a run finds the copy
by two environment variables, see :func:`mogacore.locations.staged`. Standard library only, as in that module.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .errors import UserError, run
from .files import NOT_A_FILE, open_file, walk
from .progress import ProgressLines

COPY_THREADS = 4
SPARE_BYTES = 1 << 28  # left free for other files of the job


class File(NamedTuple):
    """A file to copy: its path below the data, its bytes, and the time of its last change in ns."""

    name: str
    size: int
    mtime: int


def list_data(data: Path) -> list[File]:
    """All files of a data folder, sorted; links are followed as by :func:`mogacore.files.walk`.

    Raises:
        UserError: If the folder does not exist, cannot be read, or holds no file.
    """
    if not data.is_dir():
        raise UserError(f'data folder {data} does not exist: set STAGE_DATA to the folder to copy')
    try:
        found = sorted(_files_below(data))
    except OSError as error:
        raise UserError(f'{error.filename} cannot be read ({error.strerror}): correct the data in {data}') from None
    if not found:
        raise UserError(f'data folder {data} has no files: set STAGE_DATA to the folder to copy')
    return found


def _files_below(data: Path) -> Iterator[File]:
    for at, _, names in walk(data):
        below = os.path.relpath(at, data)
        for name in names:
            path = os.path.join(at, name)
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, NOT_A_FILE, path)
            yield File(name if below == '.' else f'{below}/{name}', status.st_size, status.st_mtime_ns)


def copy_name(data: Path, files: list[File]) -> str:
    """Name of the copy of a data folder with these files."""
    digest = hashlib.sha256(os.fsencode(data.resolve()))
    for file in files:
        digest.update(os.fsencode(file.name) + b'\0%d %d\0' % (file.size, file.mtime))
    return f'{data.resolve().name}-{digest.hexdigest()[:12]}'


def stage(data: str | Path, folder: str | Path, name: str, progress: Callable[[str], None] = print) -> Path:
    """Copy a data folder to the local disk of this node, unless a complete copy is there.

    Processes that copy the same data at the same time wait for the first one. A copy that was interrupted is continued.

    Args:
        data: Folder to copy.
        folder: Folder on the local disk, in which environment variables of the node are replaced.
        name: Name of the copy, from :func:`copy_name`.
        progress: Called with lines.

    Returns:
        The copy.

    Raises:
        UserError: If the data have changed since the name was determined, the disk is too small, or a file cannot be
            read or written.
    """
    data, root = Path(data), Path(os.path.expandvars(folder))
    target, partial = root / name, root / f'.{name}.partial'
    if '$' in str(root):
        raise UserError(f'STAGE {folder} has a variable that is not set on {socket.gethostname()}: set another folder')
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f'.{name}.lock', progress):
            if target.is_dir():
                progress(f'{target} is a complete copy of {data}')
                return target
            files = list_data(data)
            if copy_name(data, files) != name:
                raise UserError(f'{data} has changed since the job started: start the job again')
            _copy(data, partial, files, progress)
            os.sync()  # a power failure must not leave a copy that looks complete
            os.replace(partial, target)
    except OSError as error:
        raise UserError(
            f'{data} cannot be copied to {target} on {socket.gethostname()} ({error.strerror or error}): set STAGE to '
            'a folder with enough space, or omit it'
        ) from None
    return target


@contextmanager
def _locked(path: Path, progress: Callable[[str], None]) -> Iterator[None]:
    with path.open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f'waiting for another process that copies to {path.parent}')
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # the lock ends with the file, also if this process is killed


def _is_copied(file: File, path: Path) -> bool:
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return (status.st_size, status.st_mtime_ns) == (file.size, file.mtime)


def _copy(data: Path, partial: Path, files: list[File], progress: Callable[[str], None]) -> None:
    partial.mkdir(exist_ok=True)
    missing = [file for file in files if not _is_copied(file, partial / file.name)]
    needed, free = sum(file.size for file in missing), shutil.disk_usage(partial).free
    if needed + SPARE_BYTES > free:
        raise UserError(
            f'{partial.parent} on {socket.gethostname()} has {free / 1e9:.1f} GB free, but {data} needs '
            f'{(needed + SPARE_BYTES) / 1e9:.1f} GB: set STAGE to another folder, remove old copies, or omit it'
        )
    for folder in {os.path.dirname(file.name) for file in missing}:
        (partial / folder).mkdir(parents=True, exist_ok=True)
    size = sum(file.size for file in files)
    done = len(files) - len(missing), size - needed
    lines = ProgressLines(len(files), size, progress, f'{socket.gethostname()}: copied', 'files', done)
    with ThreadPoolExecutor(COPY_THREADS) as pool:
        copies = [pool.submit(_copy_file, data / file.name, partial / file.name, file, lines) for file in missing]
        try:
            for _ in lines.results(copies):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    lines.show()


def _copy_file(source: Path, target: Path, file: File, lines: ProgressLines) -> None:
    with open_file(source) as read, target.open('wb') as written:
        while chunk := read.read(1 << 24):
            written.write(chunk)
            lines.count(0, len(chunk))
    if target.stat().st_size != file.size:
        raise UserError(f'{source} has changed while it was copied: start the job again')
    os.utime(target, ns=(file.mtime, file.mtime))  # marks it as complete
    lines.count(1, 0)


def main(argv: list[str]) -> None:
    """Print the name of a copy, or make it."""
    if len(argv) not in (1, 3):
        raise UserError('usage: python -m mogacore.stage DATA [FOLDER NAME]')
    if len(argv) == 1:
        print(copy_name(Path(argv[0]), list_data(Path(argv[0]))))
    else:
        data, folder, name = argv
        stage(data, folder, name, lambda line: print(line, flush=True))


if __name__ == '__main__':
    run(main, sys.argv[1:])
