"""Failures of the machine in one line."""

import errno
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch.utils.data import DataLoader, Dataset

from mogacore.errors import UserError
from mogacore.machine import SYSTEM, explain


@pytest.mark.parametrize('number', SYSTEM)
def test_system_errors_name_the_file_and_a_remedy(number):
    line = str(explain(OSError(number, os.strerror(number), '/work/iter_1.pth')))
    what, remedy = SYSTEM[number]
    assert line.startswith(f'{what} (') and line.endswith(f"'/work/iter_1.pth'): {remedy}")
    assert os.strerror(number) in line


@pytest.mark.parametrize('error', [
    FileNotFoundError(errno.ENOENT, 'No such file', 'x'), RuntimeError('shape mismatch'), KeyError('out of memory'),
    UserError('batch_size 4 needs more: bad_alloc'), ValueError('[Errno 28]'), AssertionError(), OSError('odd'),
])  # fmt: skip
def test_other_exceptions_are_not_explained(error):
    assert explain(error) is None


def test_an_operator_that_cannot_start_lacks_memory_where_memory_is_limited(monkeypatch):
    error = RuntimeError('could not create a primitive')
    limits = [resource.RLIM_INFINITY, resource.RLIM_INFINITY]
    monkeypatch.setattr(resource, 'getrlimit', lambda kind: tuple(limits) if kind == resource.RLIMIT_AS else None)
    assert explain(error) is None
    limits[0] = 2**32
    line = str(explain(error))
    assert line.startswith('there is not enough memory (could not create a primitive): ') and 'ulimit -v' in line


class FailingDataset(Dataset):
    def __init__(self, fail):
        self.fail = fail

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.fail()


def full_disk():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'cache.npy')


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize('fail, words', [
    (full_disk, "the disk is full ([Errno 28] No space left on device: 'cache.npy'): free some space"),
    (die, 'a data loader worker was killed'),
    # torch names the signal only if it learns of it before it misses the batch.
    (lambda: os.kill(os.getpid(), signal.SIGSEGV), ('a data loader worker crashed (DataLoader worker (pid ',
                                                    'a data loader worker was killed, usually')),
    (lambda: np.empty(1 << 60, np.uint8), 'there is not enough memory (Unable to allocate 1.00 EiB'),
])  # fmt: skip
def test_failures_of_workers_are_explained(fail, words):
    with pytest.raises((OSError, RuntimeError, MemoryError)) as raised:
        list(DataLoader(FailingDataset(fail), num_workers=1))
    line = str(explain(raised.value))
    assert line.startswith(words) and '\n' not in line, line


@pytest.mark.parametrize('allocate', [lambda: torch.empty(1 << 60), lambda: np.empty(1 << 55), lambda: bytes(1 << 60)])
def test_memory_that_cannot_be_allocated_is_explained(allocate):
    with pytest.raises((RuntimeError, MemoryError)) as raised:
        allocate()
    assert str(explain(raised.value)).startswith('there is not enough memory (')


def test_a_file_larger_than_the_limit_ends_a_command_in_one_line(tmp_path):
    code = (
        'import sys; from mogacore.errors import run; from mogacore.files import write_atomic\n'
        'run(lambda: write_atomic(sys.argv[1], bytes(100_000)))'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, tmp_path / 'a.bin'], capture_output=True, text=True, cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith('error: a file would exceed the largest size that is allowed (')
    assert len(done.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())
