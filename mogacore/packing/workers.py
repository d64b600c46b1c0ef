"""Processes that pack and check at the same time, and the check of an image."""

from __future__ import annotations

import io
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from mogacore.errors import UserError
from mogacore.images import open_header

SECONDS_BETWEEN_LINES = 5
CONTEXT = get_context('fork')
_stop: Any = CONTEXT.Event()  # of the worker's command, set when it is interrupted
_counts: Any = CONTEXT.Array('q', 2)  # items and bytes that all workers of the command have finished


def _start(stop: Any, counts: Any) -> None:
    global _stop, _counts
    _stop, _counts = stop, counts
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others


def is_stopped() -> bool:
    """Whether a worker should end early."""
    return _stop.is_set()


def count(number: int, size: int) -> None:
    """Report to the first process that a worker has finished a number of items with ``size`` bytes."""
    with _counts.get_lock():
        _counts[0] += number
        _counts[1] += size


class ProgressLines:
    """Reports the progress of the workers every few seconds.

    Args:
        total: Number of items.
        progress: Called with a line.
        what: What is done with them.
        unit: What they are.
    """

    def __init__(self, total: int, progress: Callable[[str], None], what: str, unit: str = 'images'):
        self.total, self.progress, self.what, self.unit = total, progress, what, unit
        self.counts: Any = CONTEXT.Array('q', 2)
        self.last = time.monotonic()

    def show(self) -> None:
        """Report if the last line is old enough."""
        if time.monotonic() - self.last >= SECONDS_BETWEEN_LINES:
            self.last = time.monotonic()
            done, size = self.counts[0], self.counts[1]
            self.progress(f'{self.what} {done:,} of {self.total:,} {self.unit} ({size / 1e9:.1f} GB)')


def run_tasks(function: Callable, tasks: Iterable, workers: int, lines: ProgressLines) -> Iterator:
    """Results of a function for each task, in order, computed in several processes.

    Args:
        function: Called with a task in a worker; may call :func:`count` and :func:`is_stopped`.
        tasks: What to compute.
        workers: Number of processes.
        lines: Reports the progress meanwhile.

    Raises:
        UserError: If a process was killed.
    """
    stop = CONTEXT.Event()
    executor = ProcessPoolExecutor(workers, CONTEXT, _start, (stop, lines.counts))
    try:
        for future in [executor.submit(function, task) for task in tasks]:
            while not future.done():
                wait([future], SECONDS_BETWEEN_LINES)
                lines.show()
            yield future.result()
            lines.show()
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
    is_good = is_readable(content)
    count(1, len(content))
    return content, is_good


def is_readable(content: bytes) -> bool:
    """Whether an image can be decoded to its end; JPEG files are decoded at an eighth of their size."""
    try:
        with open_header(io.BytesIO(content)) as image:
            image.draft(None, (1, 1))
            image.load()
    except Exception:  # decoders raise exceptions of many types for corrupt files
        return False
    return True
