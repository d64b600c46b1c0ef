"""Atomic file writing."""

import errno
import json
import os
import threading

import numpy as np
import pytest
import torch

from mogacore import files
from mogacore.errors import UserError
from mogacore.files import (
    check_outputs,
    copy_atomic,
    expand,
    new_folder,
    plain,
    read_file,
    walk,
    writable_folder,
    write_atomic,
    write_figure,
    write_json,
)


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


def test_files_that_belong_together_are_copied_together_or_not_at_all(tmp_path, monkeypatch):
    ours, theirs = [tmp_path / 'a.xml', tmp_path / 'a.bin'], [tmp_path / 'b.xml', tmp_path / 'b.bin']
    for number, path in enumerate([*ours, *theirs]):
        path.write_bytes(b'%d' % number)
    sync, synced = os.fsync, []

    def full_at_the_second(descriptor):
        synced.append(descriptor)
        (full_disk if len(synced) == 2 else sync)(descriptor)

    monkeypatch.setattr(files.os, 'fsync', full_at_the_second)
    with pytest.raises(OSError, match='No space left'):
        copy_atomic(dict(zip(ours, theirs, strict=True)))
    assert [path.read_bytes() for path in theirs] == [b'2', b'3']
    copy_atomic(dict(zip(ours, theirs, strict=True)))
    assert [path.read_bytes() for path in theirs] == [b'0', b'1']
    assert sorted(tmp_path.iterdir()) == sorted([*ours, *theirs])


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


def test_numbers_arrays_and_tensors_become_json(tmp_path):
    content = {'scalar': np.float32(0.5), 'matrix': torch.tensor([[1, 2], [3, 4]]), 'other': {1j}.pop()}
    write_json(tmp_path / 'a.json', content, default=plain)
    assert json.loads((tmp_path / 'a.json').read_text()) == {'scalar': 0.5, 'matrix': [[1, 2], [3, 4]], 'other': '1j'}


def test_folder_that_cannot_be_written_is_reported(tmp_path, monkeypatch):
    assert writable_folder(tmp_path / 'a' / 'b').is_dir() and not list((tmp_path / 'a' / 'b').iterdir())

    def refuse(dir):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr('tempfile.TemporaryFile', refuse)
    with pytest.raises(UserError, match=r'b cannot be written \(Permission denied\): choose another'):
        writable_folder(tmp_path / 'a' / 'b')


def test_a_new_folder_appears_with_all_of_its_files(tmp_path):
    with new_folder(tmp_path / 'deep' / 'out') as folder:
        (folder / 'a.txt').write_text('a')
        assert not (tmp_path / 'deep' / 'out').exists()
    assert [path.name for path in (tmp_path / 'deep').iterdir()] == ['out']
    assert (tmp_path / 'deep' / 'out' / 'a.txt').read_text() == 'a'
    (tmp_path / 'empty').mkdir(mode=0o755)
    with new_folder(tmp_path / 'empty') as folder:
        (folder / 'b.txt').touch()
    assert (tmp_path / 'empty' / 'b.txt').exists()
    assert (tmp_path / 'empty').stat().st_mode == (tmp_path / 'deep').stat().st_mode


def test_a_failed_new_folder_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / 'out') as folder:
        (folder / 'a.txt').write_text('a')
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('make', [lambda path: path.write_text('old'), lambda path: (path / 'sub').mkdir(parents=True)])
def test_a_new_folder_overwrites_nothing(make, tmp_path):
    make(tmp_path / 'out')
    with pytest.raises(UserError, match='out already exists'), new_folder(tmp_path / 'out'):
        raise AssertionError('not reached')
    assert [path.name for path in tmp_path.iterdir()] == ['out']


@pytest.mark.parametrize('name', ['file/a.json', 'file/b/a.json', 'folder'])
def test_a_place_that_cannot_be_a_file_is_reported(name, tmp_path):
    (tmp_path / 'file').write_text('kept')
    (tmp_path / 'folder').mkdir()
    with pytest.raises(UserError, match=rf'{name} cannot be written \(.+\): choose another file'):
        write_json(tmp_path / name, {})
    assert (tmp_path / 'file').read_text() == 'kept' and sorted(os.listdir(tmp_path)) == ['file', 'folder']


def test_figures_have_the_format_of_the_suffix_and_others_are_reported(tmp_path):
    figure = pytest.importorskip('matplotlib.figure').Figure()
    write_figure(tmp_path / 'a', figure, dpi=20)
    write_figure(tmp_path / 'a.SVG', figure, dpi=20)
    assert (tmp_path / 'a.png').read_bytes()[1:4] == b'PNG' and b'<svg' in (tmp_path / 'a.SVG').read_bytes()
    assert set(files.FIGURE_FORMATS) <= figure.canvas.get_supported_filetypes().keys()
    with pytest.raises(UserError, match=r'a\.doc has an unknown format: give a name that ends in \.eps, '):
        write_figure(tmp_path / 'a.doc', figure, dpi=20)
    assert sorted(os.listdir(tmp_path)) == ['a.SVG', 'a.png']


def test_outputs_are_checked_before_long_work(tmp_path):
    pytest.importorskip('matplotlib')
    (tmp_path / 'file').touch()
    check_outputs(None, tmp_path / 'a' / 'b.json', figure=tmp_path / 'c.png')
    assert (tmp_path / 'a').is_dir() and not list((tmp_path / 'a').iterdir())
    with pytest.raises(UserError, match='it is a folder'):
        check_outputs(tmp_path / 'a')
    with pytest.raises(UserError, match='cannot be created'):
        check_outputs(tmp_path / 'file' / 'b.json')
    with pytest.raises(UserError, match='unknown format'):
        check_outputs(figure=tmp_path / 'c.doc')


@pytest.mark.parametrize('name', ['n' * 255, 'n' * 230, '画' * 85])
def test_the_longest_names_of_files_are_written(name, tmp_path):
    write_atomic(tmp_path / name, b'content')
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, b'content')]
    with pytest.raises(UserError, match=r'cannot be written .*too long'):
        write_json(tmp_path / f'{name}{"n" * 255}', [])
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize('make, reason', [
    (os.mkfifo, 'not an ordinary file'), (os.mkdir, 'Is a directory|not an ordinary'),
    (lambda path: path.symlink_to(path.name), 'symbolic links'),
    (lambda path: path.symlink_to('/dev/zero'), 'not an ordinary file'),
])  # fmt: skip
def test_only_ordinary_files_are_read(make, reason, tmp_path):
    make(tmp_path / 'x')
    with pytest.raises(OSError, match=reason):
        read_file(tmp_path / 'x')
    (tmp_path / 'file').write_bytes(b'content')
    (tmp_path / 'link').symlink_to('file')
    assert read_file(tmp_path / 'link') == b'content'


@pytest.fixture
def linked(tmp_path, monkeypatch):
    """Folders a and b, each with a file and links to itself, to the other, and to what is above."""
    monkeypatch.chdir(tmp_path)
    for name, other in (('a', 'b'), ('b', 'a')):
        (tmp_path / name).mkdir()
        (tmp_path / name / f'{name}.png').touch()
        os.mkfifo(tmp_path / name / 'pipe.png')
        for link, target in (('self', '.'), ('up', '..'), ('top', '/'), ('other', f'../{other}'), ('gone', 'none')):
            (tmp_path / name / link).symlink_to(target)
    return tmp_path


def test_a_folder_that_contains_itself_by_links_is_walked_once(linked):
    found = [os.path.join(at, name) for at, _, names in walk('a') for name in names]
    assert found == [f'{at}/{name}' for at, file in (('a', 'a.png'), ('a/other', 'b.png'))
                     for name in (file, 'gone', 'pipe.png')]  # fmt: skip
    for name in ('x', 'y', 'z'):
        (linked / 'a' / name).symlink_to('.')
    assert [at for at, _, _ in walk('a')] == ['a', 'a/other']


def test_patterns_expand_as_those_of_glob(linked):
    from glob import glob

    (linked / 'deep/er').mkdir(parents=True)
    for name in ('deep/1.png', 'deep/er/2.png', 'deep/.hidden.png', 'deep/er/[x].png'):
        (linked / name).touch()
    for pattern in ('deep/*', 'deep/**/*.png', '*/1.png', 'deep/er/[[]x].png', 'de*/e?/*', 'deep/.*.png', 'none/*',
                    str(linked / 'deep/**/*.png'), '../*/deep/1.png'):  # fmt: skip
        assert expand(pattern) == sorted(glob(pattern, recursive=True)), pattern
    assert [path for path in expand('a/**/*.png') if os.path.isfile(path)] == ['a/a.png', 'a/other/b.png']


def test_a_folder_that_cannot_be_read_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, 'scandir', full_disk)
    with pytest.raises(UserError, match=r'folder .* cannot be read'):
        list(walk(tmp_path))
