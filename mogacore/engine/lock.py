"""One training per work dir at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process

from mogacore.errors import UserError

LOCK = '.lock'
HELD = (errno.EACCES, errno.EAGAIN)


@contextmanager
def only_run(work_dir: str | Path) -> Iterator[None]:
    """Hold a work dir while the body runs; the first process holds it for all, and every process must call this.

    The system releases the lock of a process that is killed. The data loader workers do not inherit it. On a file
    system without locks, nothing is held.

    Raises:
        UserError: If another process, here or on another machine that shares the folder, holds it.
    """
    path = Path(work_dir) / LOCK
    held, refusal = None, [None]
    if is_main_process():
        held = _lock(path)
        if held is None:
            refusal = [
                f'work dir {work_dir} is in use by another run ({_holder(path)}): wait until it has ended, or choose '
                'another --work-dir'
            ]
    broadcast_object_list(refusal)
    if refusal[0]:
        raise UserError(refusal[0])
    try:
        yield
    finally:
        if held is not None:
            with suppress(OSError):  # a file that is left does no harm
                path.unlink()  # before it is released: the next run then creates its own
            os.close(held)


def _lock(path: Path) -> int | None:
    """Lock a file, creating it, with the name of this process as content; None if another process holds it.

    Returns:
        A descriptor: the lock ends when it is closed.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD:
                os.close(descriptor)
                return None
        if _is_at(path, descriptor):
            with suppress(OSError):  # on a full disk the lock holds without a name
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f'process {os.getpid()} on {socket.gethostname()}'.encode(), 0)
            return descriptor
        os.close(descriptor)  # its holder has removed the file between the two calls


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    try:
        return path.read_text(errors='replace').strip() or 'unknown'
    except OSError:
        return 'unknown'
