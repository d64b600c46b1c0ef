"""One training per work dir."""

import errno
import multiprocessing as mp
import os
import signal

import pytest
from toy_runs import toy_run

from mogacore.engine import lock
from mogacore.engine.lock import LOCK, only_run
from mogacore.errors import UserError


def hold(folder, ready):
    with only_run(folder):
        child = os.fork()  # like a data loader worker
        ready.put(child or os.getpid())
        signal.pause()


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder, and its child."""
    context = mp.get_context('fork')
    ready = context.SimpleQueue()
    process = context.Process(target=hold, args=(tmp_path, ready))
    process.start()
    children = {ready.get(), ready.get()}
    yield process
    process.kill()
    for pid in children - {process.pid}:
        os.kill(pid, signal.SIGKILL)


def test_a_held_work_dir_is_refused_and_names_its_holder(tmp_path, holder):
    with pytest.raises(UserError, match=rf'is in use by another run \(process {holder.pid} on .+\): wait until'):
        toy_run(tmp_path.parent, tmp_path.name)
    with pytest.raises(UserError, match='in use'), only_run(tmp_path):
        pass
    assert holder.is_alive() and (tmp_path / LOCK).exists()


def test_a_killed_process_frees_its_work_dir_although_its_child_lives(tmp_path, holder):
    holder.kill()
    holder.join()
    with only_run(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f'process {os.getpid()} on ')
    assert not (tmp_path / LOCK).exists()


def test_a_failed_run_frees_its_work_dir(tmp_path):
    with pytest.raises(KeyError), only_run(tmp_path):
        raise KeyError
    with only_run(tmp_path):
        pass


def test_a_file_that_its_holder_removes_meanwhile_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    lockf, calls = lock.fcntl.lockf, []

    def slow(descriptor, flags):
        if not calls:
            (tmp_path / LOCK).unlink()
        calls.append(descriptor)
        lockf(descriptor, flags)

    monkeypatch.setattr(lock.fcntl, 'lockf', slow)
    with only_run(tmp_path):
        assert len(calls) == 2 and (tmp_path / LOCK).exists()


def test_a_file_system_without_locks_is_used_without(tmp_path, monkeypatch):
    def unsupported(descriptor, flags):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock.fcntl, 'lockf', unsupported)
    with only_run(tmp_path), only_run(tmp_path):
        pass
