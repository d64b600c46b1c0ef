"""Workers report what they have finished in lines, and hand back their results in order."""

import re
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from mogacore import progress
from mogacore.progress import ProgressLines

_lines = None


def _start(lines):
    global _lines
    _lines = lines


def work(number):
    time.sleep(0.3)
    _lines.count(1, 10**9)
    return -number


@pytest.mark.parametrize(
    'pool', [ThreadPoolExecutor, lambda *args, **kwargs: ProcessPoolExecutor(*args, get_context('fork'), **kwargs)]
)
def test_workers_are_counted_meanwhile(pool, monkeypatch):
    monkeypatch.setattr(progress, 'SECONDS_BETWEEN_LINES', 0.1)
    found = []
    lines = ProgressLines(6, 6 * 10**9, found.append, 'made', 'files', done=(2, 2 * 10**9))
    with pool(2, initializer=_start, initargs=(lines,)) as executor:
        results = list(lines.results([executor.submit(work, number) for number in range(4)]))
    assert results == [0, -1, -2, -3]
    lines.show()
    rows = [re.fullmatch(r'made (\d) of 6 files, (\d)\.0 of 6\.0 GB in \d s, (\d+) MB/s', line) for line in found]
    assert all(rows), found
    counts = [int(row[1]) for row in rows]
    assert counts == [int(row[2]) for row in rows] == sorted(counts)
    assert counts[0] == 2 and counts[-1] == 6
    assert int(rows[0][3]) == 0 and 1000 < int(rows[-1][3]) < 4e9 / 0.6 / 1e6  # of the four, not of the earlier ones


def test_lines_are_seconds_apart(monkeypatch):
    found = []
    lines = ProgressLines(3, 0, found.append, 'made')
    with ThreadPoolExecutor(1) as executor:
        assert list(lines.results([executor.submit(int, number) for number in range(3)])) == [0, 1, 2]
    assert not found
