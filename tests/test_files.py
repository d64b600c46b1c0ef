"""Files that are there whole or not at all."""

import errno
import os
import threading

import pytest

from mogacore import files
from mogacore.files import set_opencv_log_level, write_atomic


def full_disk(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / 'a.json'
    write_atomic(path, b'old')
    monkeypatch.setattr(files.os, 'fsync', full_disk)
    with pytest.raises(OSError, match='No space left'):
        write_atomic(path, b'new')
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]


def test_processes_that_write_the_same_file_do_not_meet(tmp_path, monkeypatch):
    """The ranks of a job do so with their logs; here another process's write happens between ours and its renaming."""
    path = tmp_path / 'a.json'
    sync = os.fsync

    def other_process(descriptor):
        monkeypatch.setattr(files.os, 'fsync', sync)
        monkeypatch.setattr(files.os, 'getpid', lambda: 1)
        writer = threading.Thread(target=write_atomic, args=(path, b'theirs'))
        writer.start()
        writer.join()
        assert path.read_bytes() == b'theirs'

    monkeypatch.setattr(files.os, 'fsync', other_process)
    write_atomic(path, b'ours')
    assert path.read_bytes() == b'ours'
    assert list(tmp_path.iterdir()) == [path]


def test_log_level_of_opencv_is_set_and_the_one_before_returned():
    before = set_opencv_log_level(0)
    assert set_opencv_log_level(2) == 0
    assert set_opencv_log_level(before) == 2
