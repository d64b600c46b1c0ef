"""What a packed copy of a folder consists of: image folders to pack, and other files to copy."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mogacore.errors import UserError
from mogacore.images import ALL_EXTENSIONS, EXTENSIONS
from mogacore.packs import list_classes, list_files, locate
from mogacore.packs.shards import BLOCK

ANNOTATIONS = 'annotations'
TRAINING, OTHER_SPLITS = {'train', 'training'}, {'val', 'valid', 'validation', 'test', 'testing'}
COPIED = ('.json', '.txt', '.csv', '.xml', '.yaml', '.yml')  # annotations and lists
MAX_KEY = 511  # bytes of a key of LMDB


@dataclass
class Part:
    """An image folder to pack.

    Args:
        name: Its path below the source, '' for the source itself.
        folder: The folder.
        files: Sorted relative paths of its images.
        sizes: Bytes of each.
        classes: Names of all class folders, also empty ones; none if it has no class folders.
    """

    name: str
    folder: Path
    files: list[str]
    sizes: list[int]
    classes: list[str]


@dataclass
class Plan:
    """Image folders to pack, sorted files to copy, and files that are left out, relative to the source."""

    parts: list[Part]
    copied: list[str]
    left_out: list[str]


def make_plan(source: Path) -> Plan:
    """Find the image folders of a data set.

    A folder with ``annotations``, or with folders for training and for validation or test, is a data set, and each of
    its folders with images is packed by itself. Any other folder is packed as one.

    Raises:
        UserError: If there is no such folder, it is already packed, or it has no images.
    """
    if not source.is_dir():
        raise UserError(f'folder {source} does not exist: give a folder of images or of class folders')
    folders = set(list_classes(source))
    if locate(source) or any(locate(source / name) for name in folders):
        raise UserError(f'folder {source} is already packed: give the folder that it was packed from')
    has_splits = bool(folders & TRAINING and folders & OTHER_SPLITS)
    is_labeled = ANNOTATIONS not in folders
    names = sorted(folders) if has_splits or not is_labeled else ['']
    files = list_files(source)
    plan = Plan([], [], [])
    for name in names:
        prefix = f'{name}/' if name else ''
        images = [file[len(prefix) :] for file in files if file.startswith(prefix) and _is_image(file)]
        if images:
            folder = source / name
            has_classes = is_labeled and all('/' in file for file in images)
            sizes = [(folder / file).stat().st_size for file in images]
            plan.parts.append(Part(name, folder, images, sizes, list_classes(folder) if has_classes else []))
    packed = {os.path.join(part.name, file) for part in plan.parts for file in part.files}
    for file in files:
        if file not in packed:
            (plan.copied if file.lower().endswith(COPIED) else plan.left_out).append(file)
    if not plan.parts:
        raise UserError(f'folder {source} has no images with {", ".join(EXTENSIONS)}: give another folder')
    return plan


def _is_image(file: str) -> bool:
    return file.lower().endswith(ALL_EXTENSIONS)


def class_numbers(parts: Sequence[Part]) -> dict[str, int]:
    """Number of each class folder of a data set, in the order of the sorted names of all."""
    return {name: number for number, name in enumerate(sorted({name for part in parts for name in part.classes}))}


def sample_key(name: str) -> str:
    """webdataset's key of a member: its path up to the first dot of the file name."""
    folder, slash, file = name.rpartition('/')
    return folder + slash + file.partition('.')[0]


def check_keys(part: Part) -> None:
    """Check that each image has its own key in webdataset's layout.

    Raises:
        UserError: If two images have the same, or one has none.
    """
    known: dict[str, str] = {}
    for file in part.files:
        key = sample_key(file)
        if not key or key.endswith('/') or key in known:
            problem = f'{part.folder / file} and {known[key]} have' if key in known else f'{part.folder / file} has'
            what = f'the same name up to the first dot, {key}' if key in known else 'no name before its first dot'
            raise UserError(f'{problem} {what}, which identifies an image in shards: rename it, or use --format lmdb')
        known[key] = file


def check_names(part: Part) -> None:
    """Check that each name can be a key of LMDB.

    Raises:
        UserError: If one is too long.
    """
    for file in part.files:
        if len(os.fsencode(file)) > MAX_KEY:
            raise UserError(
                f'{part.folder / file} has a path of more than {MAX_KEY} bytes, the limit of LMDB: use --format shards'
            )


def tar_header(name: str, size: int, mtime: float = 0) -> bytes:
    """Header of a member, whose last 512 bytes precede the content."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime = size, int(mtime)
    return info.tobuf(tarfile.PAX_FORMAT, 'utf-8', 'surrogateescape')


def padded(size: int) -> int:
    """Bytes that a content takes in a tar file."""
    return -(-size // BLOCK) * BLOCK


def member_size(name: str, size: int, has_label: bool) -> int:
    """Bytes of an image, and of its label, in a shard."""
    header = BLOCK if len(name) < 100 and name.isascii() else len(tar_header(name, size))
    return header + padded(size) + (header + BLOCK if has_label else 0)


def split_shards(part: Part, shard_size: int) -> Iterator[list[str]]:
    """Images of each shard, in order.

    Args:
        part: Image folder.
        shard_size: Largest size of a shard in bytes.

    Raises:
        UserError: If an image is larger than that.
    """
    names: list[str] = []
    total = 2 * BLOCK  # the end of an archive
    for file, size in zip(part.files, part.sizes, strict=True):
        needed = member_size(file, size, bool(part.classes))
        if needed + 2 * BLOCK > shard_size:
            raise UserError(
                f'image {part.folder / file} needs {needed + 2 * BLOCK:,} bytes, more than a shard of {shard_size:,}: '
                'raise --shard-size'
            )
        if names and total + needed > shard_size:
            yield names
            names, total = [], 2 * BLOCK
        names.append(file)
        total += needed
    if names:
        yield names
