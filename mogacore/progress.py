"""Lines that report the progress of workers, processes or threads, which finish many files.

Standard library only: :mod:`mogacore.stage` needs nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from multiprocessing import get_context
from typing import Any

SECONDS_BETWEEN_LINES = 5


class ProgressLines:
    """Reports how many items and bytes the workers have finished, every few seconds.

    Args:
        total: Number of items.
        size: Bytes of all items.
        progress: Called with a line.
        what: What is done with them.
        unit: What they are.
        done: Number and bytes of the items that an earlier run has finished.
    """

    def __init__(
        self,
        total: int,
        size: int,
        progress: Callable[[str], None],
        what: str,
        unit: str = 'images',
        done: tuple[int, int] = (0, 0),
    ):
        self.total, self.size, self.progress, self.what, self.unit = total, size, progress, what, unit
        self._counts: Any = get_context('fork').Array('q', done)  # shared by the workers
        self._size_before = done[1]
        self._start = self._last = time.monotonic()

    def count(self, number: int, size: int) -> None:
        """Add items and bytes that a worker has finished; it may be a thread, or a process forked later."""
        with self._counts.get_lock():
            self._counts[0] += number
            self._counts[1] += size

    def results(self, futures: Iterable[Future]) -> Iterator[Any]:
        """Results of the workers' tasks in order, with lines meanwhile."""
        for future in futures:
            while not future.done():
                wait([future], SECONDS_BETWEEN_LINES)
                self._show_if_due()
            yield future.result()
            self._show_if_due()

    def show(self) -> None:
        """Report now."""
        self._last = time.monotonic()
        number, size = self._counts
        seconds = max(self._last - self._start, 1e-3)
        self.progress(
            f'{self.what} {number:,} of {self.total:,} {self.unit}, {size / 1e9:.1f} of {self.size / 1e9:.1f} GB in '
            f'{seconds:.0f} s, {(size - self._size_before) / seconds / 1e6:.0f} MB/s'
        )

    def _show_if_due(self) -> None:
        if time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self.show()
