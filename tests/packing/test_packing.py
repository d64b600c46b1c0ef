"""Packed copies hold the files of their folders, in layouts that other programs read, all of them or none."""

import itertools
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from packed_data import write_class_folders, write_coco, write_image, write_tar, write_webdataset

import mogacore.packing.write
from mogacore import packs
from mogacore.errors import UserError
from mogacore.packing import pack, write_index
from mogacore.packing.plan import make_plan, sample_key, split_shards
from mogacore.packing.workers import AHEAD, run_tasks
from mogacore.progress import ProgressLines

FORMATS = ('shards', 'lmdb')


@pytest.fixture(params=FORMATS)
def kind(request):
    if request.param == 'lmdb':
        pytest.importorskip('lmdb')
    return request.param


@pytest.mark.parametrize('workers', [1, 3])
def test_class_folders_are_read_like_the_folder_that_was_packed(kind, workers, tmp_path):
    source, out = write_class_folders(tmp_path / 'data'), tmp_path / 'packed'
    (source / 'train' / 'empty').mkdir()
    (source / 'classes.txt').write_text('a b c')
    lines = pack(source, out, kind, shard_size=20_000, workers=workers)
    assert f'{out}/train: 15 images in {"LMDB" if kind == "lmdb" else "3 shards"}' in lines
    assert (out / 'classes.txt').read_text() == 'a b c'
    for split in ('train', 'val'):
        assert packs.list_classes(out / split) == packs.list_classes(source / split)
        assert packs.list_files(out / split) == packs.list_files(source / split)
        for folder in ('', *packs.list_classes(source / split), 'a/deep'):
            assert packs.list_files(out / split / folder) == packs.list_files(source / split / folder)
            assert packs.file_names(source / split / folder) <= packs.file_names(out / split / folder)
            assert packs.is_folder(out / split / folder)
        for file in packs.list_files(source / split):
            assert packs.read_bytes(out / split / file) == (source / split / file).read_bytes()
            assert packs.file_size(out / split / file) == (source / split / file).stat().st_size
            assert packs.is_file(out / split / file) and not packs.is_folder(out / split / file)
    assert not packs.is_folder(out / 'train' / 'd') and not packs.is_file(out / 'train' / 'a' / 'none.jpg')


def test_coco_folders_are_packed_and_annotations_copied(kind, tmp_path):
    source, out = write_coco(tmp_path / 'coco'), tmp_path / 'packed'
    (source / 'val2017' / 'archive.zip').write_bytes(b'')
    lines = pack(source, out, kind)
    assert lines[-1] == 'left out 1 other files, such as val2017/archive.zip'
    for file in (source / 'val2017').glob('*.jpg'):
        assert packs.read_bytes(out / 'val2017' / file.name) == file.read_bytes()
    annotations = 'annotations/instances_train2017.json'
    assert (out / annotations).read_bytes() == (source / annotations).read_bytes()
    if kind == 'shards':
        with tarfile.open(out / 'train2017' / 'train2017-000000.tar') as archive:
            assert archive.getnames() == [f'{number:012}.jpg' for number in range(4)]


def test_shards_have_the_layout_of_webdataset(tmp_path):
    source = write_class_folders(tmp_path / 'data')
    pack(source, tmp_path / 'packed', shard_size=20_000, workers=2)
    numbers = dict(a=0, b=1, c=2)
    for split in ('train', 'val'):
        found = {}
        shards = sorted((tmp_path / 'packed' / split).glob('*.tar'))
        assert [shard.name for shard in shards] == [f'{split}-{number:06}.tar' for number in range(len(shards))]
        for shard in shards:
            assert shard.stat().st_size <= 20_000
            with tarfile.open(shard) as archive:
                contents = [(member.name, archive.extractfile(member).read()) for member in archive]
            # webdataset makes one sample of successive members with the same key.
            for key, group in itertools.groupby(contents, lambda item: sample_key(item[0])):
                sample = {name[len(key) + 1 :]: content for name, content in group}
                assert key not in found and len(sample) == 2
                found[key] = sample
        for file in packs.list_files(source / split):
            sample = found.pop(sample_key(file))
            assert sample[file.rpartition('.')[2]] == (source / split / file).read_bytes()
            assert sample['cls'] == str(numbers[file[0]]).encode()
        assert not found


def test_gnu_tar_lists_and_extracts_shards(tmp_path):
    source = write_class_folders(tmp_path / 'data')
    name = f'{"long" * 40}.jpg'
    write_image(source / 'train' / 'a' / name, np.random.default_rng(0))
    (source / 'train' / 'b' / 'b1.jpg').rename(source / 'train' / 'b' / 'ü b1.jpg')
    pack(source, tmp_path / 'packed')
    (tmp_path / 'extracted').mkdir()
    done = subprocess.run(
        ['tar', 'xf', tmp_path / 'packed' / 'train' / 'train-000000.tar', '-C', tmp_path / 'extracted'],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    for file in packs.list_files(source / 'train'):
        content = (source / 'train' / file).read_bytes()
        assert (
            (tmp_path / 'extracted' / file).read_bytes()
            == packs.read_bytes(tmp_path / 'packed/train' / file)
            == content
        )


@pytest.mark.parametrize('label_file', [
    lambda label: ('cls', str(label).encode()),
    lambda label: ('json', b'{"label": %d, "caption": "a"}' % label),
    lambda label: ('json', b'%d' % label),
])  # fmt: skip
def test_shards_of_webdataset_are_found_in_folders_of_their_labels(label_file, tmp_path):
    labels = [3, 0, 1, 3, 3, 0, 1, 1, 0]
    images = write_webdataset(tmp_path, labels, label_file)
    assert write_index(tmp_path) == [f'{tmp_path}/{packs.INDEX_NAME}: 9 files in 3 shards, 4 classes']
    assert packs.list_classes(tmp_path) == ['00000', '00001', '00002', '00003']  # also those without images
    for label, (name, content) in zip(labels, images.items(), strict=True):
        assert packs.read_bytes(tmp_path / f'{label:05}' / name) == content
    assert len(packs.list_files(tmp_path)) == len(labels)


def test_folders_in_the_names_of_members_are_the_classes_if_the_labels_agree(tmp_path):
    members = [(f'{name}/{number}.{suffix}', content)
               for label, name in enumerate('xyz') for number in range(2)
               for suffix, content in (('jpg', name.encode()), ('cls', b'%d' % label))]  # fmt: skip
    write_tar(tmp_path / 'agree' / 'a-0.tar', members)
    write_index(tmp_path / 'agree')
    assert packs.list_classes(tmp_path / 'agree') == ['x', 'y', 'z']
    changed = [(name, b'2' if name == 'x/1.cls' else content) for name, content in members]
    write_tar(tmp_path / 'differ' / 'a-0.tar', changed)
    write_index(tmp_path / 'differ')
    assert packs.list_files(tmp_path / 'differ' / '00002') == ['x/1.jpg', 'z/0.jpg', 'z/1.jpg']


def test_indexing_again_finds_what_packing_wrote(kind, tmp_path):
    source, out = write_class_folders(tmp_path / 'data'), tmp_path / 'packed'
    pack(source, out, kind, shard_size=20_000)
    before = {split: packs.list_files(out / split) for split in ('train', 'val')}
    for split, files in before.items():
        write_index(out / split, workers=2)
        assert packs.list_files(out / split) == files
        assert packs.list_classes(out / split) == packs.list_classes(source / split)
        for file in files:
            assert packs.read_bytes(out / split / file) == (source / split / file).read_bytes()
    (out / 'train' / packs.INDEX_NAME).write_bytes(b'damaged')
    packs.forget()
    with pytest.raises(UserError, match=f'cannot be read.*: run "mogacore pack {out}/train --index"'):
        packs.list_files(out / 'train')
    write_index(out / 'train')
    assert packs.list_files(out / 'train') == before['train'] and packs.list_classes(out / 'train') == ['a', 'b', 'c']


def test_shards_are_as_full_as_their_size_allows(tmp_path):
    source = tmp_path / 'data'
    generator = random.Random(0)
    for number in range(60):
        path = source / f'{number:02}.jpg'
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(generator.randrange(1, 3000)))
    (part,) = make_plan(source).parts
    for limit in (5000, 10_000, 50_000):
        shards = list(split_shards(part, limit))
        assert [name for shard in shards for name in shard] == part.files

        def size(names):
            return 1024 + sum(512 + -(-(source / name).stat().st_size // 512) * 512 for name in names)

        assert all(size(shard) <= limit for shard in shards)
        assert all(size([*one, other[0]]) > limit for one, other in itertools.pairwise(shards))


def refused(message, *args, **settings):
    with pytest.raises(UserError, match=message) as caught:
        pack(*args, **settings)
    assert '\n' not in str(caught.value)


def test_images_that_cannot_be_decoded_are_refused_or_left_out(kind, tmp_path):
    source, out = write_class_folders(tmp_path / 'data'), tmp_path / 'packed'
    whole = (source / 'train' / 'b' / 'b1.jpg').read_bytes()
    (source / 'train' / 'b' / 'b1.jpg').write_bytes(whole[: len(whole) // 2])
    (source / 'val' / 'c' / 'c2.jpg').write_bytes(b'')
    (source / 'val' / 'c' / 'c3.jpg').write_text('<html>')
    refused(
        f'3 of 25 images are empty, truncated or not images, the first is {source}/train/b/b1.jpg: .*--skip-unreadable',
        source, out, kind, workers=2,
    )  # fmt: skip
    assert not out.exists() and [path.name for path in tmp_path.iterdir()] == ['data']
    lines = pack(source, out, kind, skip_unreadable=True)
    assert f'left out 3 images that cannot be decoded, such as {source}/train/b/b1.jpg' in lines
    assert packs.list_files(out / 'val' / 'c') == ['c0.png', 'c1.jpg', 'deep/c4.jpg']


def test_each_image_is_read_once(kind, tmp_path, monkeypatch):
    source, log = write_class_folders(tmp_path / 'data'), tmp_path / 'log'
    read_bytes = Path.read_bytes

    def logged(path):
        with log.open('a') as file:
            file.write(f'{path}\n')
        return read_bytes(path)

    monkeypatch.setattr(Path, 'read_bytes', logged)  # the workers are forked
    pack(source, tmp_path / 'packed', kind, workers=2)
    images = [path for path in log.read_text().splitlines() if path.startswith(str(source))]
    assert sorted(images) == sorted(
        f'{source}/{split}/{file}' for split in ('train', 'val') for file in packs.list_files(source / split)
    )


def test_results_are_not_computed_far_ahead(tmp_path):
    tasks = [tmp_path / str(number) for number in range(40)]
    results = run_tasks(touch, tasks, 1, ProgressLines(len(tasks), 0, print, 'made'))
    first = next(results)
    time.sleep(0.5)  # for a worker that does not wait
    assert len(list(tmp_path.iterdir())) <= AHEAD
    assert [first, *results] == list(range(40))


def touch(path):
    path.touch()
    return int(path.name)


def test_user_errors_are_one_line_and_leave_nothing(tmp_path, monkeypatch):
    source, out = write_class_folders(tmp_path / 'data'), tmp_path / 'packed'
    refused('does not exist: give a folder of images', tmp_path / 'none', out)
    refused(f'image {source}/train/.* more than a shard of 2,000: raise --shard-size', source, out, shard_size=2000)
    refused('is inside of .*, which is packed: choose another folder', source, source / 'packed')
    (tmp_path / 'empty').mkdir()
    refused('has no images with .jpg', tmp_path / 'empty', out)
    pack(source, out)
    refused('already exists: remove it', source, out)
    refused('is already packed: give the folder', out, tmp_path / 'again')
    refused('is already packed', out / 'train', tmp_path / 'again')
    monkeypatch.setattr('shutil.disk_usage', lambda path: type('Usage', (), dict(free=1000)))
    refused(f'{tmp_path} has 0.0 GB free, but .* are needed', source, tmp_path / 'again')
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, 'lmdb', None)  # makes the import fail
    refused('LMDB needs the package lmdb: pip install lmdb, or use tar shards', source, tmp_path / 'again', 'lmdb')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['data', 'empty', 'packed']


def test_names_that_a_format_cannot_hold_are_refused(tmp_path):
    generator = np.random.default_rng(0)
    source = tmp_path / 'data'
    for name in ('a/1.jpg', 'a/1.png', 'b/2.jpg'):
        write_image(source / name, generator)
    refused('a/1.png and a/1.jpg have the same name up to the first dot, a/1.*--format lmdb', source, tmp_path / 'out')
    (source / 'a' / '1.png').unlink()
    write_image(source / '/'.join(['folder' * 20] * 5) / '3.jpg', generator)
    pytest.importorskip('lmdb')
    refused('more than 511 bytes, the limit of LMDB', source, tmp_path / 'out', 'lmdb')
    pack(source, tmp_path / 'out')
    assert len(packs.list_files(tmp_path / 'out')) == 3


def test_a_full_disk_leaves_nothing(kind, tmp_path, monkeypatch):
    source = write_class_folders(tmp_path / 'data')

    def full(*args, **settings):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(mogacore.packing.write, '_write_content' if kind == 'shards' else '_put', full)
    refused('packed was not written, the disk is full', source, tmp_path / 'packed', kind)
    assert [path.name for path in tmp_path.iterdir()] == ['data']


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_command_leaves_nothing_under_the_final_name(number, tmp_path):
    source = write_class_folders(tmp_path / 'data')
    for copy in range(400):
        os.link(source / 'train' / 'b' / 'b1.jpg', source / 'train' / 'b' / f'copy{copy}.jpg')
    slow = (
        'import time, mogacore.packing.write as write; read = write.read_image; '
        'write.read_image = lambda path: (time.sleep(0.02), read(path))[1]; '
        'from mogacore.cli.main import main; main()'
    )
    command = [sys.executable, '-c', slow, 'pack', source, tmp_path / 'packed', '--shard-size', '50K', '--workers', '2']
    process = subprocess.Popen(
        list(map(str, command)), env={**os.environ, 'PYTHONPATH': str(ROOT)}, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 30
        while not list(tmp_path.glob('packed.*/**/*.tar')) and time.monotonic() < end:
            time.sleep(0.02)
        assert list(tmp_path.glob('packed.*/**/*.tar'))
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert not (tmp_path / 'packed').exists()
    if number == signal.SIGINT:
        assert errors.strip() == 'interrupted' and not list(tmp_path.glob('packed*'))


@pytest.mark.parametrize('change, message', [
    (lambda folder: (folder / 'set-000001.tar').unlink(), 'shard .*set-000001.tar is missing, one of 1 between'),
    (lambda folder: os.truncate(folder / 'set-000002.tar', 1500), 'set-000002.tar is not a complete, uncompressed tar'),
    (lambda folder: os.truncate(folder / 'set-000000.tar', 512), 'set-000000.tar is not a complete'),
    (lambda folder: (folder / 'set-000000.tar').write_bytes(b'\x1f\x8b' * 500), 'set-000000.tar is not a complete'),
    (lambda folder: (folder / 'set-000000.tar').rename(folder / 'other-000000.tar'), 'several data sets .*symbolic'),
    (lambda folder: write_tar(folder / 'set-000003.tar', [('000000.jpg', b'1'), ('000000.cls', b'1')]), 'occurs twice'),
    (lambda folder: write_tar(folder / 'set-000003.tar', [('x.jpg', b'1'), ('x.cls', b'cat')]), "holds b'cat': use"),
    (lambda folder: write_tar(folder / 'set-000003.tar', [('x.jpg', b'1')]), 'x.jpg in the shards of .* has no label'),
])  # fmt: skip
def test_shards_that_cannot_be_indexed_are_refused(change, message, tmp_path):
    write_webdataset(tmp_path, [0, 1] * 6)
    change(tmp_path)
    with pytest.raises(UserError, match=message):
        write_index(tmp_path)
    assert not (tmp_path / packs.INDEX_NAME).exists()


def test_a_shard_cut_off_between_two_members_is_refused(tmp_path):
    write_webdataset(tmp_path, [0, 1] * 2)
    with tarfile.open(tmp_path / 'set-000000.tar') as archive:
        third = archive.getmembers()[4]
    os.truncate(tmp_path / 'set-000000.tar', third.offset)
    with pytest.raises(UserError, match='not a complete, uncompressed tar file'):
        write_index(tmp_path)


def test_folders_without_packed_images_cannot_be_indexed(tmp_path):
    with pytest.raises(UserError, match='has neither'):
        write_index(tmp_path)
    with pytest.raises(UserError, match='does not exist'):
        write_index(tmp_path / 'none')
