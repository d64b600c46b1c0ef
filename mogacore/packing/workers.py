"""Processes that pack and check at the same time, and the check of an image."""

from __future__ import annotations

import io
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from mogacore.errors import UserError
from mogacore.images import open_header
from mogacore.progress import ProgressLines

AHEAD = 4  # tasks per worker
CONTEXT = get_context('fork')
_stop: Any = CONTEXT.Event()  # of the worker's command, set when it is interrupted
_lines: ProgressLines  # of the worker's command


def _start(stop: Any, lines: ProgressLines) -> None:
    global _stop, _lines
    _stop, _lines = stop, lines
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others


def is_stopped() -> bool:
    """Whether a worker should end early."""
    return _stop.is_set()


def count(number: int, size: int) -> None:
    """Report to the first process that a worker has finished a number of items with ``size`` bytes."""
    _lines.count(number, size)


def run_tasks(function: Callable, tasks: Iterable, workers: int, lines: ProgressLines) -> Iterator:
    """Results of a function for each task, in order, computed in several processes.

    Tasks start as results are taken: at most ``AHEAD`` per worker are computed in advance, which bounds their memory.

    Args:
        function: Called with a task in a worker; may call :func:`count` and :func:`is_stopped`.
        tasks: What to compute.
        workers: Number of processes.
        lines: Reports the progress meanwhile.

    Raises:
        UserError: If a process was killed.
    """
    stop = CONTEXT.Event()
    executor = ProcessPoolExecutor(workers, CONTEXT, _start, (stop, lines))
    try:
        yield from lines.results(_submitted(executor, function, tasks, AHEAD * workers))
    except BrokenProcessPool:
        raise UserError('a worker was killed, perhaps for lack of memory: use fewer --workers') from None
    finally:
        stop.set()
        executor.shutdown(cancel_futures=True)


def _submitted(executor: Executor, function: Callable, tasks: Iterable, ahead: int) -> Iterator[Future]:
    """Futures of the tasks in order, of which ``ahead`` are submitted when the first is taken."""
    futures: deque[Future] = deque()
    for task in tasks:
        futures.append(executor.submit(function, task))
        if len(futures) == ahead:
            yield futures.popleft()
    yield from futures


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
