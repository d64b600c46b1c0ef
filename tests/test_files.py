"""Atomic file writing."""

import errno
import os
import threading

import pytest

from mogacore import files
from mogacore.files import write_atomic


def full_disk(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_failed_write_leaves_only_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.json'
    write_atomic(path, b'old')
    monkeypatch.setattr(files.os, 'fsync', full_disk)
    with pytest.raises(OSError, match='No space left'):
        write_atomic(path, b'new')
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]


def test_concurrent_writes_of_the_same_file_do_not_interfere(tmp_path, monkeypatch):
    """Like the logs of several ranks: another process writes between our write and our rename."""
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
