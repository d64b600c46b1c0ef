"""Packed files are found by their paths; what is missing, truncated or changed is one line."""

import os
import random
import sys
from multiprocessing import get_context

import pytest
from packed_data import write_class_folders, write_coco, write_tar, write_webdataset

import mogacore.packs.shards
from mogacore import packs
from mogacore.errors import UserError
from mogacore.packing import pack, write_index
from mogacore.packs.index import Index, pack_names


@pytest.fixture(params=['shards', 'lmdb'])
def packed(request, tmp_path):
    """A source with class folders, and its packed copy."""
    if request.param == 'lmdb':
        pytest.importorskip('lmdb')
    pack(write_class_folders(tmp_path / 'data'), tmp_path / 'packed', request.param, shard_size=20_000)
    return tmp_path / 'data', tmp_path / 'packed'


def test_an_index_finds_names_and_folders_like_a_search_in_a_list(tmp_path):
    generator = random.Random(0)
    parts = ['a', 'a-b', 'a.b', 'ab', 'a0', 'b', 'ü', '\udcff', 'A']
    for _ in range(30):
        names = list({'/'.join(generator.choices(parts, k=generator.randrange(1, 4))) + '.x' for _ in range(40)})
        packed, ends, order = pack_names(names)
        Index('lmdb', packed, ends, order).save(tmp_path)
        index = Index.load(tmp_path / packs.INDEX_NAME)
        assert [names[number] for number in index.sizes] == [os.fsdecode(index.raw(row)) for row in range(len(index))]
        for name in [*names, 'none', '', 'a']:
            row = index.find(name)
            assert (row is not None) == (name in names) and (row is None or names[index.sizes[row]] == name)
        for folder in {'', 'none', *parts, *(name.rpartition('/')[0] for name in names)}:
            below = [
                name[len(folder) + 1 if folder else 0 :]
                for name in names
                if not folder or name.startswith(f'{folder}/')
            ]
            assert len(index.below(folder)) == len(below)
            folders = {name.partition('/')[0] for name in below if '/' in name}
            assert index.children(folder) == (sorted(folders), sorted(name for name in below if '/' not in name))


def test_ordinary_files_and_folders_are_read_as_they_are(tmp_path):
    source = write_class_folders(tmp_path / 'data') / 'train'
    assert packs.locate(source) is None and packs.packed(source / 'a' / 'a1.jpg') is None
    assert packs.read_bytes(source / 'a' / 'a1.jpg') == (source / 'a' / 'a1.jpg').read_bytes()
    files = {entry.name for entry in os.scandir(source / 'a') if entry.is_file()}
    assert packs.file_names(source / 'a') == files and packs.file_names(source / 'none') == set()
    assert packs.is_folder(source / 'a') and not packs.is_folder(source / 'none')
    with pytest.raises(FileNotFoundError):
        packs.read_bytes(source / 'a' / 'none.jpg')


def test_paths_may_be_relative_or_go_through_links(packed, monkeypatch):
    source, out = packed
    monkeypatch.chdir(out.parent)
    (out.parent / 'link').symlink_to(out)
    content = (source / 'train' / 'b' / 'b2.jpg').read_bytes()
    for path in (
        'packed/train/b/b2.jpg',
        'link/train/b/b2.jpg',
        'packed/val/../train/b/b2.jpg',
        out / 'train/b/b2.jpg',
    ):
        assert packs.read_bytes(path) == content


def test_a_file_beside_the_shards_is_read(packed):
    _, out = packed
    (out / 'train' / 'notes.txt').write_text('notes')
    assert packs.read_bytes(out / 'train' / 'notes.txt') == b'notes'


def read_all(folder, files, queue):
    try:
        queue.put({file: packs.read_bytes(folder / file) for file in files})
    except Exception as error:
        queue.put(error)


def test_forked_processes_open_the_files_themselves(packed, monkeypatch):
    source, out = packed
    monkeypatch.setattr(mogacore.packs.shards, 'MAX_OPEN', 2)  # fewer than there are shards
    files = packs.list_files(out / 'train')
    packs.read_bytes(out / 'train' / files[0])  # opens a shard, or the database, before the fork
    pack_, _ = packs.locate(out / 'train')
    context = get_context('fork')
    queues = [context.Queue() for _ in range(4)]
    processes = [context.Process(target=read_all, args=(out / 'train', files, queue)) for queue in queues]
    for process in processes:
        process.start()
    expected = {file: (source / 'train' / file).read_bytes() for file in files}
    for file in reversed(files):  # meanwhile
        assert packs.read_bytes(out / 'train' / file) == expected[file]
    assert [queue.get(timeout=30) for queue in queues] == [expected] * 4
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert pack_.reader.process == os.getpid()
    assert packs.read_bytes(out / 'train' / files[0]) == expected[files[0]]


def test_a_process_keeps_few_shards_open(tmp_path, monkeypatch):
    monkeypatch.setattr(mogacore.packs.shards, 'MAX_OPEN', 3)
    images = write_webdataset(tmp_path, range(10), per_shard=1)
    write_index(tmp_path)
    before = len(os.listdir('/proc/self/fd'))
    order = [*range(10)] * 3
    random.Random(0).shuffle(order)
    for label in order:
        name = f'{label:06}.jpg'
        assert packs.read_bytes(tmp_path / f'{label:05}' / name) == images[name]
    assert len(os.listdir('/proc/self/fd')) == before + 3


def assert_refused(path, message):
    packs.forget()
    with pytest.raises(UserError, match=message) as caught:
        packs.read_bytes(path)
    assert '\n' not in str(caught.value)


def test_a_name_that_is_not_packed_is_one_line(packed):
    assert_refused(packed[1] / 'train' / 'b' / 'b9.jpg', 'b/b9.jpg is not among the 15 files packed in .*packed/train')


@pytest.mark.parametrize('change, message', [
    (lambda shard: shard.unlink(), 'cannot be read .No such file or directory.: restore it, or pack the data again'),
    (lambda shard: os.truncate(shard, shard.stat().st_size - 100), r'is truncated, \d+ of \d+ bytes: copy it again'),
    (lambda shard: os.truncate(shard, shard.stat().st_size + 512), 'changed since its index was written: run "mogac'),
])  # fmt: skip
def test_missing_truncated_and_changed_shards_are_one_line(change, message, tmp_path):
    pack(write_class_folders(tmp_path / 'data'), tmp_path / 'packed', shard_size=20_000)
    path = tmp_path / 'packed' / 'train' / 'b' / 'b1.jpg'
    packs.read_bytes(path)
    change(tmp_path / 'packed' / 'train' / 'train-000001.tar')
    assert_refused(path, f'shard .*train-000001.tar {"has " if "changed" in message else ""}{message}')


def test_a_shard_that_was_written_again_with_the_same_size_is_one_line(tmp_path):
    members = [('0.jpg', b'zero'), ('1.jpg', b'one')]
    write_tar(tmp_path / 'set-000000.tar', members)
    write_index(tmp_path)
    assert packs.read_bytes(tmp_path / '1.jpg') == b'one'
    write_tar(tmp_path / 'set-000000.tar', [members[1], members[0]])
    assert_refused(tmp_path / '1.jpg', 'set-000000.tar has changed since its index was written')
    write_index(tmp_path)
    assert packs.read_bytes(tmp_path / '1.jpg') == b'one'


def test_a_shard_that_is_cut_while_it_is_open_is_one_line(tmp_path):
    write_tar(tmp_path / 'set-000000.tar', [('0.jpg', bytes(5000)), ('1.jpg', bytes(5000))])
    write_index(tmp_path)
    packs.read_bytes(tmp_path / '0.jpg')
    os.truncate(tmp_path / 'set-000000.tar', 8000)
    with pytest.raises(UserError, match='is truncated, it ends before byte'):
        packs.read_bytes(tmp_path / '1.jpg')


def test_missing_changed_truncated_and_damaged_databases_are_one_line(tmp_path, monkeypatch):
    lmdb = pytest.importorskip('lmdb')
    pack(write_coco(tmp_path / 'data'), tmp_path / 'packed', 'lmdb')
    folder = tmp_path / 'packed' / 'val2017'
    path, file = folder / '000000000001.jpg', folder / 'data.mdb'
    content, size = packs.read_bytes(path), file.stat().st_size
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, 'lmdb', None)
        assert_refused(path, 'LMDB needs the package lmdb: pip install lmdb')
    with monkeypatch.context() as patch:
        patch.setattr(lmdb, 'open', lambda *args, **settings: (_ for _ in ()).throw(lmdb.LockError('locked')))
        assert_refused(path, r'LMDB .*val2017 cannot be opened \(locked\): end what writes to it')
    whole = file.read_bytes()
    os.truncate(file, size // 2)
    assert_refused(path, f'LMDB .* is truncated, {size // 2} of {size} bytes: copy it again')
    file.write_bytes(b'no database' * 1000)
    assert_refused(path, r'LMDB .*val2017 cannot be opened \(.*INVALID')
    file.unlink()
    assert_refused(path, 'LMDB file .*data.mdb is missing: restore it')
    file.write_bytes(whole)
    packs.forget()
    assert packs.read_bytes(path) == content
    packs.forget()
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b'new.jpg', b'new')
    assert_refused(path, 'has changed since its index was written: run "mogacore pack .*val2017 --index"')
    write_index(folder)
    assert packs.read_bytes(folder / 'new.jpg') == b'new' and packs.read_bytes(path) == content


def test_packed_folders_without_an_index_are_one_line(packed):
    for split in ('train', 'val'):
        (packed[1] / split / packs.INDEX_NAME).unlink()
        packs.forget()
        with pytest.raises(UserError, match=f'has packed images, but no .*: run "mogacore pack .*{split} --index"'):
            packs.check_indexed(packed[1] / split)
    packs.check_indexed(packed[0] / 'train')
