"""Copies of data on a local disk are complete or absent, made once, and read by the run that asked for them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from mogacore import stage as staging
from mogacore.engine.config import load_config, locate_data
from mogacore.errors import UserError
from mogacore.locations import STAGED_FROM, STAGED_TO, staged
from mogacore.stage import copy_name, list_data, stage

FILES = {'train/1.tar': b'1' * 5000, 'train/deep/2.tar': b'2', 'index.json': b'', 'ü b=c': b'3'}
COPIED = {**FILES, 'linked/2.tar': b'2'}


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / 'data'
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / 'linked').symlink_to(folder / 'train' / 'deep')
    (folder / 'circle').symlink_to(folder)
    (folder / 'above').symlink_to(tmp_path)  # the copies are there, too
    return folder


def name_of(data):
    return copy_name(data, list_data(data))


def files_of(folder):
    return {os.path.relpath(path, folder): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_a_copy_has_every_file_and_is_made_once(data, tmp_path):
    lines = []
    copy = stage(data, tmp_path / 'local', name_of(data), lines.append)
    assert copy.parent == tmp_path / 'local' and files_of(copy) == COPIED
    assert ': copied 5 of 5 files, 0.0 of 0.0 GB in ' in lines[-1]
    inode = (copy / 'train' / '1.tar').stat().st_ino
    assert stage(data, tmp_path / 'local', name_of(data), lines.append) == copy
    assert lines[-1] == f'{copy} is a complete copy of {data}' and (copy / 'train' / '1.tar').stat().st_ino == inode
    assert [path.name for path in (tmp_path / 'local').iterdir() if path.name[0] != '.'] == [copy.name]


def test_a_fifo_is_refused_instead_of_waited_for(data, tmp_path):
    os.mkfifo(data / 'train' / 'pipe')
    message = r'train/pipe cannot be read \(not an ordinary file\): correct the data in '
    with pytest.raises(UserError, match=message):
        list_data(data)
    os.remove(data / 'train' / 'pipe')
    (file,) = [file for file in list_data(data) if file.name == 'train/1.tar']
    os.remove(data / 'train' / '1.tar')
    os.mkfifo(data / 'train' / '1.tar')
    with pytest.raises(OSError, match='not an ordinary file'):
        staging._copy_file(data / file.name, tmp_path / 'copy', file, None)


@pytest.mark.parametrize('change', [
    lambda data: (data / 'train' / '1.tar').write_bytes(b'2' * 5000),
    lambda data: (data / 'new').write_bytes(b''),
    lambda data: (data / 'train' / '1.tar').rename(data / 'train' / '2.tar'),
])  # fmt: skip
def test_data_that_have_changed_get_another_copy(change, data, tmp_path):
    before = name_of(data)
    stage(data, tmp_path / 'local', before)
    time.sleep(0.01)
    change(data)
    assert name_of(data) != before
    with pytest.raises(UserError, match='has changed since the job started'):
        stage(data, tmp_path / 'other', before)
    assert files_of(stage(data, tmp_path / 'local', name_of(data))) == {**files_of(data), 'linked/2.tar': b'2'}


def test_an_interrupted_copy_is_continued(data, tmp_path, monkeypatch):
    name, copied = name_of(data), []
    real = staging._copy_file

    def interrupted(source, target, file, lines):
        if file.name == 'train/1.tar':
            target.write_bytes(b'1' * 4999)
            raise KeyboardInterrupt
        real(source, target, file, lines)

    monkeypatch.setattr(staging, '_copy_file', interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage(data, tmp_path / 'local', name)
    assert not (tmp_path / 'local' / name).exists()
    monkeypatch.setattr(staging, '_copy_file', lambda *args: (copied.append(args[2].name), real(*args)))
    assert files_of(stage(data, tmp_path / 'local', name)) == COPIED
    assert 'train/1.tar' in copied and 'index.json' not in copied


def test_a_full_disk_is_one_line(data, tmp_path, monkeypatch):
    monkeypatch.setattr('shutil.disk_usage', lambda path: type('Usage', (), dict(free=1000)))
    with pytest.raises(UserError, match=r'local on \S+ has 0.0 GB free, but .* needs 0.3 GB: set STAGE to another'):
        stage(data, tmp_path / 'local', name_of(data))
    monkeypatch.undo()

    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(staging, '_copy_file', full)
    with pytest.raises(UserError, match=r'cannot be copied to .* \(No space left on device\): set STAGE'):
        stage(data, tmp_path / 'local', name_of(data))
    assert not (tmp_path / 'local' / name_of(data)).exists()


def test_variables_of_the_node_are_replaced(data, tmp_path, monkeypatch):
    monkeypatch.setenv('SCRATCH', str(tmp_path / 'scratch'))
    assert stage(data, '$SCRATCH/job', name_of(data)).parent == tmp_path / 'scratch' / 'job'
    with pytest.raises(UserError, match=r'STAGE \$NOWHERE/a has a variable that is not set'):
        stage(data, '$NOWHERE/a', name_of(data))


def start(data, folder, seconds=0.0):
    """Start a copy in another process, which waits before it copies each file."""
    code = (
        'import sys, time; from mogacore import stage; real = stage._copy_file; '
        f'stage._copy_file = lambda *args: (time.sleep({seconds}), real(*args)); '
        'stage.run(stage.main, sys.argv[1:])'
    )
    return subprocess.Popen(
        [sys.executable, '-c', code, data, folder, name_of(data)], env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_processes_that_copy_at_the_same_time_wait_for_the_first(data, tmp_path):
    processes = [start(data, tmp_path / 'local', 0.3) for _ in range(3)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, outputs
    assert sum('copied 5 of 5 files' in output for output, _ in outputs) == 1
    assert sum('is a complete copy' in output for output, _ in outputs) == 2
    assert files_of(tmp_path / 'local' / name_of(data)) == COPIED


def test_a_killed_process_leaves_no_copy_and_no_lock(data, tmp_path):
    process = start(data, tmp_path / 'local', 5)
    end = time.monotonic() + 30
    while not list((tmp_path / 'local').glob('.*partial')) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert not (tmp_path / 'local' / name_of(data)).exists()
    assert files_of(stage(data, tmp_path / 'local', name_of(data))) == COPIED


@pytest.mark.parametrize('args, message', [
    (['none'], 'data folder none does not exist: set STAGE_DATA'), (['.'], 'has no files'), (['a', 'b'], 'usage: '),
])  # fmt: skip
def test_user_errors_are_one_line(args, message, tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'mogacore.stage', *args], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


def write_config(folder, data_root):
    path = folder / 'configs' / 'a.py'
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"train_dataloader = dict(dataset=dict(type='A', data_root='{data_root}', ann_file='index.json'))")
    return load_config(str(path))


def test_a_run_reads_the_copy_of_its_data(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy = stage(data, tmp_path / 'local', name_of(data))
    monkeypatch.setenv('LOCAL', str(tmp_path / 'local'))
    monkeypatch.setenv(STAGED_TO, f'$LOCAL/{copy.name}')
    for source, root, expected in (
        ('data', 'data', copy), (data, str(data), copy), (data / 'train', 'data/train', copy), ('data', 'link', copy),
    ):  # fmt: skip
        monkeypatch.setenv(STAGED_FROM, str(source))
        (tmp_path / 'link').unlink(missing_ok=True)
        (tmp_path / 'link').symlink_to(data)
        if root == 'data/train':
            (data / 'train' / 'index.json').touch()
            (copy / 'index.json').touch()
        cfg = write_config(tmp_path, root)
        locate_data(cfg, 'train')
        assert Path(cfg.train_dataloader.dataset.data_root) == expected
    monkeypatch.setenv(STAGED_FROM, str(data / 'train' / 'deep'))
    with pytest.raises(UserError, match=f'STAGE copied {data}/train/deep, but the config reads {data}: set STAGE_DATA'):
        locate_data(write_config(tmp_path, 'data'), 'train')
    monkeypatch.setenv(STAGED_FROM, str(data))
    (copy / 'train' / '1.tar').unlink()
    with pytest.raises(UserError, match='on this node, is missing: start the job again'):
        staged(data / 'train' / '1.tar')
    monkeypatch.delenv(STAGED_FROM)
    assert staged(data) == data
