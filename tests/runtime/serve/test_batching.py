"""Images that wait are joined, and an image fails alone."""

import threading
import time

import pytest

from mogacore.runtime.serve.batching import Batcher, QueueFull, Stopped


class Model:
    """Doubles numbers, one batch at a time when ``go`` is set; records the batches."""

    def __init__(self):
        self.batches = []
        self.started, self.go = threading.Semaphore(0), threading.Event()

    def __call__(self, numbers):
        self.batches.append(numbers)
        self.started.release()
        assert self.go.wait(10)
        if 13 in numbers:
            raise ValueError('13 is unlucky')
        return [2 * number for number in numbers]


@pytest.fixture
def model():
    return Model()


def make(model, max_batch=4, max_delay_s=0.0, max_queue=8, **options):
    return Batcher(model, max_batch, max_delay_s, max_queue, **options)


def values(futures):
    return [future.result(timeout=10) for future in futures]


def test_images_that_wait_for_a_batch_are_joined_up_to_its_size(model):
    batcher = make(model)
    first = batcher.submit([0])
    assert model.started.acquire(timeout=10)
    others = [batcher.submit([i]) for i in range(1, 7)]
    assert len(batcher) == 6
    model.go.set()
    assert values(first) == [0] and [values(futures) for futures in others] == [[2 * i] for i in range(1, 7)]
    assert model.batches == [[0], [1, 2, 3, 4], [5, 6]]
    batcher.stop()


def test_image_waits_for_others_at_most_the_delay(model):
    model.go.set()
    batcher = make(model, max_delay_s=0.2)
    start = time.monotonic()
    futures = batcher.submit([1])
    time.sleep(0.05)
    futures += batcher.submit([2])
    assert values(futures) == [2, 4] and model.batches == [[1, 2]]
    assert 0.19 < time.monotonic() - start < 5
    start = time.monotonic()
    values(batcher.submit([1, 2, 3, 4]))  # full: no wait
    assert time.monotonic() - start < 0.19
    batcher.stop()


def test_image_that_fails_fails_alone(model):
    model.go.set()
    batcher = make(model, max_delay_s=0.05)
    good, bad, other = batcher.submit([1, 13, 3])
    assert (good.result(10), other.result(10)) == (2, 6)
    with pytest.raises(ValueError, match='unlucky'):
        bad.result(10)
    assert values(batcher.submit([5])) == [10]  # the thread lives
    batcher.stop()


def test_full_queue_takes_all_images_of_a_request_or_none(model):
    batcher = make(model, max_queue=3)
    first = batcher.submit([0])
    assert model.started.acquire(timeout=10)
    waiting = batcher.submit([1, 2])
    with pytest.raises(QueueFull):
        batcher.submit([3, 4])
    waiting += batcher.submit([5])
    with pytest.raises(QueueFull):
        batcher.submit([6])
    model.go.set()
    assert values(first + waiting) == [0, 2, 4, 10]
    batcher.stop()


def test_stop_predicts_what_waits_and_refuses_more(model):
    observed = []
    batcher = make(model, max_delay_s=60, on_batch=lambda number, seconds: observed.append((number, seconds > 0)))
    futures = batcher.submit([1, 2])  # not a full batch: would wait for a minute
    model.go.set()
    batcher.stop()
    assert values(futures) == [2, 4]
    with pytest.raises(Stopped):
        batcher.submit([3])
    assert observed == [(2, True)]


def test_image_whose_request_was_given_up_is_not_predicted(model):
    batcher = make(model)
    batcher.submit([0])
    assert model.started.acquire(timeout=10)
    (given_up,) = batcher.submit([1])
    kept = batcher.submit([2])
    assert given_up.cancel()
    model.go.set()
    assert values(kept) == [4] and model.batches == [[0], [2]]
    batcher.stop()
