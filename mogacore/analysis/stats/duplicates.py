"""Images with the same content, within a split and in several."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mogacore.datasets.checks import Sample
from mogacore.packs import file_size, is_file, read_bytes

from .records import Images

NUM_SHOWN = 3


def find_duplicates(splits: Mapping[str, Images], sample: Sample) -> dict[str, Any]:
    """Find images whose content is the same, byte for byte.

    Only files of the same size are read.

    Args:
        splits: The images of each split.
        sample: How many files to read.

    Returns:
        ``compared``: number of images whose content is known to be unique or was read. ``complete``: whether these are
        all. ``within``: for each split, the number of images that are copies of others in it, and the first groups.
        ``across``: for each pair of splits, the number of distinct images that are in both, and the first ones.
    """
    by_size: dict[Any, list[tuple[str, str]]] = defaultdict(list)
    groups: dict[Any, list[tuple[str, str]]] = defaultdict(list)
    for split, images in splits.items():
        for path in images.files:
            if is_file(path):
                by_size[file_size(path)].append((split, path))
        for number, array in enumerate(images.arrays):
            values = np.ascontiguousarray(array)
            groups[values.shape, _digest(values.tobytes())].append((split, f'number {number}'))
    candidates = [(size, *file) for size, files in by_size.items() if len(files) > 1 for file in files]
    read = 0
    for size, split, path in sample.of(candidates):
        groups[size, _digest(read_bytes(path))].append((split, path))
        read += 1
    total = sum(map(len, by_size.values())) + sum(len(images.arrays) for images in splits.values())
    return dict(
        compared=total - len(candidates) + read,
        complete=read == len(candidates),
        within={split: _within(split, groups.values()) for split in splits},
        across=_across(list(splits), groups.values()),
    )


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _within(split: str, groups: Iterable[list[tuple[str, str]]]) -> dict:
    found = [sorted(path for other, path in group if other == split) for group in groups]
    copies = sorted(paths for paths in found if len(paths) > 1)
    return dict(copies=sum(len(paths) - 1 for paths in copies), groups=copies[:NUM_SHOWN])


def _across(splits: list[str], groups: Iterable[list[tuple[str, str]]]) -> list[dict]:
    groups = list(groups)
    pairs = [(first, second) for number, first in enumerate(splits) for second in splits[number + 1 :]]
    rows = []
    for first, second in pairs:
        shared = []
        for group in groups:
            paths = {split: path for split, path in reversed(group)}
            if first in paths and second in paths:
                shared.append([paths[first], paths[second]])
        if shared:
            rows.append(dict(splits=[first, second], images=len(shared), examples=sorted(shared)[:NUM_SHOWN]))
    return rows
