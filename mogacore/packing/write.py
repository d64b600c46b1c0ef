"""Writing packed folders."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from mogacore import machine, packs
from mogacore.errors import UserError
from mogacore.files import new_folder
from mogacore.packs.index import Index, pack_names
from mogacore.packs.lmdb_files import import_lmdb, lmdb_state
from mogacore.packs.shards import BLOCK, SHARD_SUFFIX
from mogacore.progress import ProgressLines

from .plan import (
    Part,
    Plan,
    check_keys,
    check_names,
    class_numbers,
    make_plan,
    member_size,
    padded,
    sample_key,
    split_shards,
    tar_header,
)
from .workers import is_stopped, read_image, run_tasks

LMDB_PAGE, LMDB_HEADER = 4096, 64  # bytes of a page, and of an entry beside its name and content, rounded up
LMDB_CHUNK = 16  # images read and written at a time


@dataclass
class Rows:
    """Files that were written, with their places in one shard, and images that cannot be decoded."""

    names: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    headers: list[int] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def add(self, name: str, size: int, offset: int = 0, header: int = 0) -> None:
        """Add a file."""
        self.names.append(name)
        self.sizes.append(size)
        self.offsets.append(offset)
        self.headers.append(header)


def pack(
    source: str | Path,
    out: str | Path,
    kind: str = 'shards',
    shard_size: int = 10**9,
    workers: int = 1,
    skip_unreadable: bool = False,
    progress: Callable[[str], None] = print,
) -> list[str]:
    """Write a packed copy of a data set, all of it or nothing; see :func:`mogacore.packing.plan.make_plan`.

    Args:
        source: Folder of images, of class folders, or of a data set with several of them.
        out: Folder to write; an empty one may exist.
        kind: One of ``FORMATS``.
        shard_size: Largest size of a shard in bytes.
        workers: Number of processes.
        skip_unreadable: Leave out images that cannot be decoded, instead of refusing them.
        progress: Called with a line every few seconds.

    Returns:
        Lines that say what was written and left out.

    Raises:
        UserError: If the source has no images, two of them have the same key, one cannot be decoded or is larger than a
            shard, the package lmdb is missing, or the target exists or cannot be written.
    """
    source, out = Path(source), Path(out)
    if kind == 'lmdb':
        import_lmdb()
    plan = make_plan(source)
    for part in plan.parts:
        (check_keys if kind == 'shards' else check_names)(part)
        for _ in split_shards(part, shard_size) if kind == 'shards' else ():
            pass
    if out.resolve().is_relative_to(source.resolve()):
        raise UserError(f'{out} is inside of {source}, which is packed: choose another folder')
    written, lines, unreadable = 0, [], []
    sizes = [size for part in plan.parts for size in part.sizes]
    lines_of_progress = ProgressLines(len(sizes), sum(sizes), progress, 'packed')
    numbers = class_numbers(plan.parts)
    try:
        with new_folder(out) as target:
            _check_space(target, plan, source, kind)
            for part in plan.parts:
                folder = target / part.name
                folder.mkdir(parents=True, exist_ok=True)
                index, bad = FORMATS[kind](part, folder, numbers, shard_size, workers, lines_of_progress)
                index.classes = part.classes
                index.save(folder)
                unreadable += [part.folder / file for file in bad]
                written += len(index)
                what = f'{len(index.shards)} shards' if kind == 'shards' else 'LMDB'
                lines.append(f'{out / part.name}: {len(index):,} images in {what}')
            if unreadable and not skip_unreadable:
                raise UserError(
                    f'{len(unreadable)} of {written + len(unreadable)} images are empty, truncated or not images, the '
                    f'first is {unreadable[0]}: replace or remove them, or leave them out with --skip-unreadable'
                )
            for file in plan.copied:
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source / file, target / file)
    except OSError as error:
        if failure := machine.explain(error):
            raise UserError(f'{out} was not written, {failure}') from None
        raise UserError(f'{out} cannot be written ({error}): nothing was written') from None
    packs.forget()
    if plan.copied:
        lines.append(f'copied {len(plan.copied)} other files, such as {plan.copied[0]}')
    for what, names in (('images that cannot be decoded', unreadable), ('other files', plan.left_out)):
        if names:
            lines.append(f'left out {len(names)} {what}, such as {names[0]}')
    return lines


def _check_space(target: Path, plan: Plan, source: Path, kind: str) -> None:
    needed = sum(_needed(part, kind) for part in plan.parts)
    needed += sum((source / file).stat().st_size for file in plan.copied)
    free = shutil.disk_usage(target).free
    if needed > free:
        raise UserError(
            f'{target.parent.parent} has {free / 1e9:.1f} GB free, but {needed / 1e9:.1f} GB are needed: free some '
            'space, or choose another folder'
        )


def _needed(part: Part, kind: str) -> int:
    """Bytes of a packed image folder, at least approximately."""
    if kind == 'shards':
        return sum(
            member_size(name, size, bool(part.classes)) for name, size in zip(part.files, part.sizes, strict=True)
        )
    pages = (size // LMDB_PAGE + 1 for size in part.sizes)
    names = sum(len(os.fsencode(name)) + LMDB_HEADER for name in part.files)
    return sum(pages) * LMDB_PAGE + 2 * names


def _write_shards(
    part: Part, folder: Path, numbers: dict[str, int], shard_size: int, workers: int, progress: ProgressLines
) -> tuple[Index, list[str]]:
    prefix = part.folder.resolve().name or 'images'
    shards = list(split_shards(part, shard_size))
    paths = [folder / f'{prefix}-{number:06}{SHARD_SUFFIX}' for number in range(len(shards))]
    labels = numbers if part.classes else {}
    found = []
    for rows in run_tasks(
        partial(_write_shard, part.folder, labels), zip(paths, shards, strict=True), workers, progress
    ):
        found.append(rows)
    return index_shards(paths, found), [name for rows in found for name in rows.unreadable]


def index_shards(paths: list[Path], found: list[Rows]) -> Index:
    """Index of the files in each shard.

    Raises:
        UserError: If two have the same name.
    """
    names, ends, order = pack_names([name for rows in found for name in rows.names])

    def arrange(values: list[int], dtype: type) -> np.ndarray:
        return np.array(values, dtype)[order]

    return Index(
        'shards', names, ends,
        sizes=arrange([size for rows in found for size in rows.sizes], np.int64),
        shards=[path.name for path in paths],
        shard_sizes=np.array([path.stat().st_size for path in paths], np.int64),
        shard=arrange([number for number, rows in enumerate(found) for _ in rows.names], np.int32),
        offsets=arrange([offset for rows in found for offset in rows.offsets], np.int64),
        headers=arrange([header for rows in found for header in rows.headers], np.uint32),
    )  # fmt: skip


def _write_shard(source: Path, labels: dict[str, int], task: tuple[Path, list[str]]) -> Rows:
    path, names = task
    rows = Rows()
    with path.open('wb') as file:
        for name in names:
            if is_stopped():
                break
            content, is_good = read_image(source / name)
            if not is_good:
                rows.unreadable.append(name)
                continue
            header = tar_header(name, len(content), (source / name).stat().st_mtime)
            file.write(header)
            rows.add(name, len(content), file.tell(), zlib.crc32(header[-BLOCK:]))
            _write_content(file, content)
            if labels:
                label = str(labels[name.partition('/')[0]]).encode()
                file.write(tar_header(f'{sample_key(name)}.cls', len(label)))
                _write_content(file, label)
        file.write(bytes(2 * BLOCK))
        file.flush()
        os.fsync(file.fileno())
    return rows


def _write_content(file, content: bytes) -> None:
    file.write(content)
    file.write(bytes(padded(len(content)) - len(content)))


def _write_lmdb(
    part: Part, folder: Path, numbers: dict[str, int], shard_size: int, workers: int, progress: ProgressLines
) -> tuple[Index, list[str]]:
    lmdb = import_lmdb()
    rows = Rows()
    names = sorted(part.files, key=os.fsencode)  # an LMDB filled in this order has no gaps
    chunks = [names[start : start + LMDB_CHUNK] for start in range(0, len(names), LMDB_CHUNK)]
    size = _needed(part, 'lmdb') * 5 // 4 + (1 << 24)
    environment = lmdb.open(str(folder), map_size=size, lock=False, sync=False, metasync=False)
    try:
        for contents, unreadable in run_tasks(partial(_read_chunk, part.folder), chunks, workers, progress):
            _put(environment, lmdb, contents)
            for name, content in contents:
                rows.add(name, len(content))
            rows.unreadable += unreadable
        environment.sync(True)
        state = lmdb_state(environment)
    finally:
        environment.close()
    packed, ends, order = pack_names(rows.names)
    return Index('lmdb', packed, ends, np.array(rows.sizes, np.int64)[order], state=np.array(state)), rows.unreadable


def _read_chunk(source: Path, names: list[str]) -> tuple[list[tuple[str, bytes]], list[str]]:
    """Names and contents of images, and names of those that cannot be decoded."""
    contents, unreadable = [], []
    for name in names:
        if is_stopped():
            break
        content, is_good = read_image(source / name)
        if is_good:
            contents.append((name, content))
        else:
            unreadable.append(name)
    return contents, unreadable


def _put(environment, lmdb, contents: list[tuple[str, bytes]]) -> None:
    """Write files, in a larger map if they do not fit, such as images that have grown meanwhile."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for name, content in contents:
                    transaction.put(os.fsencode(name), content, append=True)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(environment.info()['map_size'] * 2)


FORMATS: dict[str, Callable] = {'shards': _write_shards, 'lmdb': _write_lmdb}
