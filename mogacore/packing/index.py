"""Writing the index of a folder of tar shards or LMDB that exists, such as one that webdataset has written."""

from __future__ import annotations

import json
import os
import re
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from mogacore import packs
from mogacore.errors import UserError
from mogacore.packs.index import INDEX_NAME, Index, pack_names
from mogacore.packs.lmdb_files import LMDB_FILE, lmdb_state, open_lmdb
from mogacore.packs.shards import BLOCK, SHARD_SUFFIX
from mogacore.progress import ProgressLines
from mogacore.text import shorten

from .plan import padded, sample_key
from .workers import count, run_tasks
from .write import Rows, index_shards

LABEL_KEYS = ('label', 'cls')  # of a JSON file
MAX_LABEL = 99_999
SHARD_NAME = re.compile(r'(.*?)(\d+)\.tar')


@dataclass
class Scanned(Rows):
    """Files of a shard, and the labels of samples by their keys."""

    labels: dict[str, int] = field(default_factory=dict)


def write_index(folder: str | Path, workers: int = 1, progress: Callable[[str], None] = print) -> list[str]:
    """Write the index of a folder with tar shards or an LMDB database, whose keys are names of files.

    The class of a sample in shards is the number in ``KEY.cls``, or in ``KEY.json`` itself or under 'label' or 'cls'.
    Unless the folders in the names give the same classes, images are found in a class folder with the number in five
    digits, as in ``00007/KEY.jpg``.

    Args:
        folder: Folder to index.
        workers: Number of processes.
        progress: Called with a line every few seconds.

    Returns:
        A line that says what was found.

    Raises:
        UserError: If the folder has neither, a shard is missing, truncated or compressed, a name occurs twice, or only
            some images have a label.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f'folder {folder} does not exist: give a folder of tar shards, or of an LMDB database')
    packs.forget()  # closes the database
    known = _known_classes(folder)
    shards = sorted(name for name in os.listdir(folder) if name.endswith(SHARD_SUFFIX) and name[0] != '.')
    if shards:
        index = _scan_shards(folder, shards, known, workers, progress)
    elif (folder / LMDB_FILE).exists():
        index = _scan_lmdb(folder)
        index.classes = known
    else:
        raise UserError(f'folder {folder} has neither {SHARD_SUFFIX} files nor {LMDB_FILE}: give a packed folder')
    index.save(folder)
    packs.forget()
    what = f' in {len(shards)} shards' if shards else ''
    classes = f', {len(index.classes)} classes' if index.classes else ''
    return [f'{folder / INDEX_NAME}: {len(index):,} files{what}{classes}']


def _known_classes(folder: Path) -> Sequence[str]:
    """Class folders in an earlier index, which may be damaged."""
    try:
        return Index.load(folder / INDEX_NAME).classes
    except UserError:
        return ()


def _scan_shards(
    folder: Path, names: list[str], known: Sequence[str], workers: int, progress: Callable[[str], None]
) -> Index:
    _check_numbers(folder, names)
    paths = [folder / name for name in names]
    size = sum(path.stat().st_size for path in paths if path.exists())  # the workers report missing ones
    lines = ProgressLines(len(paths), size, progress, 'indexed', 'shards')
    found = list(run_tasks(_scan_shard, paths, workers, lines))
    classes = _name_by_class(folder, found, known)
    index = index_shards(paths, found)
    if not len(index):
        raise UserError(f'the shards in {folder} have no files but labels: give others')
    index.classes = classes
    return index


def _check_numbers(folder: Path, names: list[str]) -> None:
    """Check that the shards belong to one data set and have numbers without gaps."""
    numbers: dict[str, dict[int, str]] = defaultdict(dict)
    for name in names:
        if match := SHARD_NAME.fullmatch(name):
            numbers[match[1]][int(match[2])] = match[2]
    if len(numbers) > 1:
        raise UserError(
            f'folder {folder} has shards of several data sets ({shorten(numbers)}): put those of each split into a '
            'folder of their own, for which symbolic links suffice'
        )
    for prefix, present in numbers.items():
        missing = [number for number in range(min(present), max(present)) if number not in present]
        if missing:
            first = f'{missing[0]:0{len(present[min(present)])}}'
            raise UserError(
                f'shard {folder / prefix}{first}{SHARD_SUFFIX} is missing, one of {len(missing)} between numbers '
                f'{min(present)} and {max(present)}: restore it, or renumber the others'
            )


def _scan_shard(path: Path) -> Scanned:
    """Files and labels of a shard.

    Raises:
        UserError: If it is no uncompressed tar archive, or truncated.
    """
    scanned, end = Scanned(), 0
    try:
        with path.open('rb') as file, tarfile.open(fileobj=file, mode='r:') as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # which would hold all of them
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise UserError(f'{member.name} in shard {path} is not a plain file: write the shard without links')
                end = member.offset_data + padded(member.size)
                _add(scanned, member, file, path)
            file.seek(end)
            if file.read(BLOCK) != bytes(BLOCK):  # the end of an archive
                raise tarfile.ReadError('it has no end')
    except (tarfile.TarError, EOFError) as error:
        raise UserError(
            f'shard {path} is not a complete, uncompressed tar file ({error}): copy it again, or unpack it with gunzip'
        ) from None
    except OSError as error:
        raise UserError(f'shard {path} cannot be read ({error.strerror}): correct its permissions') from None
    count(1, path.stat().st_size)
    return scanned


def _add(scanned: Scanned, member: tarfile.TarInfo, file: IO[bytes], path: Path) -> None:
    """Add a member of a shard, of which the position of the file does not matter afterwards."""
    name = member.name.removeprefix('./')
    kind = name.rpartition('.')[2].lower()
    if kind not in ('cls', 'json'):
        file.seek(member.offset_data - BLOCK)
        scanned.add(name, member.size, member.offset_data, zlib.crc32(file.read(BLOCK)))
        return
    file.seek(member.offset_data)
    content = file.read(member.size)
    label = _parse_label(content, kind)
    if kind == 'cls' and label is None:
        raise UserError(
            f'{name} in shard {path} holds {content[:20]!r}: use the number of the class, from 0 to {MAX_LABEL}'
        )
    if label is not None and (kind == 'cls' or sample_key(name) not in scanned.labels):
        scanned.labels[sample_key(name)] = label


def _parse_label(content: bytes, kind: str) -> int | None:
    """The class in the content of a label file; None if it holds none."""
    try:
        value = json.loads(content)
    except ValueError:
        return None
    if kind == 'json' and isinstance(value, dict):
        value = next((value[key] for key in LABEL_KEYS if key in value), None)
    return value if type(value) is int and 0 <= value <= MAX_LABEL else None


def _name_by_class(folder: Path, found: list[Scanned], known: Sequence[str]) -> Sequence[str]:
    """Put images into class folders by their labels, unless they are in folders; return the names of the folders."""
    labels = {key: label for scanned in found for key, label in scanned.labels.items()}
    names = [name for scanned in found for name in scanned.names]
    top = {name: name.partition('/')[0] if '/' in name else '' for name in names}
    if known and set(top.values()) <= set(known):
        return known
    pairs = {(top[name], labels.get(sample_key(name))) for name in names}
    if all(label is None for _, label in pairs):
        return ()
    if unlabeled := next((name for name in names if sample_key(name) not in labels), None):
        raise UserError(f'{unlabeled} in the shards of {folder} has no label, but others have: add a .cls file to each')
    folders = sorted(folder for folder, _ in pairs)
    if '' not in folders and sorted(pairs) == list(zip(folders, range(len(folders)), strict=True)):
        return folders
    for scanned in found:
        scanned.names = [f'{labels[sample_key(name)]:05}/{name}' for name in scanned.names]
    return [f'{label:05}' for label in range(max(labels.values()) + 1)]


def _scan_lmdb(folder: Path) -> Index:
    environment = open_lmdb(str(folder))
    try:
        with environment.begin(buffers=True) as transaction:
            entries = [(bytes(key), len(value)) for key, value in transaction.cursor()]
        state = lmdb_state(environment)
    finally:
        environment.close()
    if not entries:
        raise UserError(f'LMDB {folder} is empty: give another one')
    names, ends, order = pack_names([os.fsdecode(key) for key, _ in entries])
    sizes = np.array([size for _, size in entries], np.int64)[order]
    return Index('lmdb', names, ends, sizes, state=np.array(state))
