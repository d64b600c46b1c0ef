"""Processes that pack and check at the same time, and the check of an image."""

from __future__ import annotations

import io
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from mogacore.errors import UserError
from mogacore.images import open_header

SECONDS_BETWEEN_LINES = 5
_stop: Any = threading.Event()  # set when the command is interrupted


def _start(stop: Any) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others


def is_stopped() -> bool:
    """Whether a worker should end early."""
    return _stop.is_set()


def run_tasks(function: Callable, tasks: Iterable, workers: int) -> Iterator:
    """Results of a function for each task, in order, computed in several processes.

    Raises:
        UserError: If a process was killed.
    """
    if workers == 1:
        yield from map(function, tasks)
        return
    context = get_context('fork')
    stop = context.Event()
    executor = ProcessPoolExecutor(workers, context, _start, (stop,))
    try:
        yield from executor.map(function, tasks)
    except BrokenProcessPool:
        raise UserError('a worker was killed, perhaps for lack of memory: use fewer --workers') from None
    finally:
        stop.set()
        executor.shutdown(cancel_futures=True)


def read_image(path: Path) -> tuple[bytes, bool]:
    """Content of an image file, and whether it can be decoded.

    Raises:
        UserError: If the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f'image {path} cannot be read ({error.strerror}): correct its permissions') from None
    return content, is_readable(content)


def is_readable(content: bytes) -> bool:
    """Whether an image can be decoded to its end; JPEG files are decoded at an eighth of their size."""
    try:
        with open_header(io.BytesIO(content)) as image:
            image.draft(None, (1, 1))
            image.load()
    except Exception:  # decoders raise exceptions of many types for corrupt files
        return False
    return True


class ProgressLines:
    """Reports the progress every few seconds.

    Args:
        total: Number of items.
        progress: Called with a line.
        what: What is done with them.
        unit: What they are.
    """

    def __init__(self, total: int, progress: Callable[[str], None], what: str, unit: str = 'images'):
        self.total, self.progress, self.what, self.unit = total, progress, what, unit
        self.done, self.bytes, self.last = 0, 0, time.monotonic()

    def add(self, number: int, size: int) -> None:
        """Count items, and their bytes."""
        self.done, self.bytes = self.done + number, self.bytes + size
        if time.monotonic() - self.last > SECONDS_BETWEEN_LINES:
            self.last = time.monotonic()
            self.progress(f'{self.what} {self.done:,} of {self.total:,} {self.unit} ({self.bytes / 1e9:.1f} GB)')
