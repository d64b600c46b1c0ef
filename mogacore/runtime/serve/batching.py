"""Dynamic batching: images of concurrent requests that arrive within a short delay are predicted together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any


class QueueFull(Exception):
    """The queue has no room for the images of a request."""


class Stopped(Exception):
    """The batcher takes no more images."""


@dataclass
class _Item:
    image: Any
    result: Future = field(default_factory=Future)
    arrival: float = field(default_factory=time.monotonic)


class Batcher:
    """One worker thread that predicts the images of a bounded queue in batches.

    A batch starts as soon as it is full, or its oldest image has waited ``max_delay_s``. If a batch fails, its images
    are predicted one by one, so that an image can only fail its own request.

    Args:
        predict: Function from a list of images to a list of as many results.
        max_batch: Largest number of images per batch.
        max_delay_s: Longest time that an image waits for others, in seconds.
        max_queue: Largest number of waiting images.
        name: Name of the thread.
        on_batch: Called after each batch with its number of images and its time in seconds.
    """

    def __init__(
        self,
        predict: Callable[[list], Sequence],
        max_batch: int,
        max_delay_s: float,
        max_queue: int,
        name: str = 'batcher',
        on_batch: Callable[[int, float], None] | None = None,
    ):
        self.predict = predict
        self.max_batch = max_batch
        self.max_delay_s = max_delay_s
        self.max_queue = max_queue
        self.on_batch = on_batch
        self._waiting: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._is_stopped = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Number of waiting images."""
        return len(self._waiting)

    def submit(self, images: Sequence) -> list[Future]:
        """Queue the images of a request, all or none; each future receives the result of one.

        Raises:
            QueueFull: If they do not fit into the queue now.
            Stopped: After :meth:`stop`.
        """
        items = [_Item(image) for image in images]
        with self._changed:
            if self._is_stopped:
                raise Stopped
            if len(self._waiting) + len(items) > self.max_queue:
                raise QueueFull
            self._waiting += items
            self._changed.notify()
        return [item.result for item in items]

    def stop(self) -> None:
        """Take no more images, predict those that wait, and end the thread."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        self._thread.join()

    def _next_batch(self) -> list[_Item]:
        """The next batch; empty after the last one."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_stopped)
            while self._waiting and len(self._waiting) < self.max_batch and not self._is_stopped:
                left_s = self._waiting[0].arrival + self.max_delay_s - time.monotonic()
                if left_s <= 0 or not self._changed.wait(left_s):
                    break
            return [self._waiting.popleft() for _ in range(min(self.max_batch, len(self._waiting)))]

    def _work(self) -> None:
        while batch := self._next_batch():
            batch = [item for item in batch if item.result.set_running_or_notify_cancel()]
            if batch:
                start = time.perf_counter()
                self._run(batch)
                if self.on_batch:
                    self.on_batch(len(batch), time.perf_counter() - start)

    def _run(self, batch: list[_Item]) -> None:
        try:
            results = self.predict([item.image for item in batch])
            assert len(results) == len(batch), 'one result per image'
        except Exception as error:  # whatever it is, the request that waits for it reports it
            if len(batch) == 1:
                batch[0].result.set_exception(error)
            else:
                for item in batch:
                    self._run([item])
            return
        for item, result in zip(batch, results, strict=True):
            item.result.set_result(result)
