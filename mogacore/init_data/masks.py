"""Folders of images and of class maps with the same names: index PNGs, or color maps with a color table."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from mogacore.datasets.checks.common import read_image, read_lines
from mogacore.errors import UserError
from mogacore.text import shorten

from . import voc
from .found import Found, LabelledImage, progress
from .listing import Listing, split_of, stem

NAME = 'images and class maps'
IMAGE_FOLDERS = ('images', 'image', 'imgs', 'img', 'jpegimages', 'leftimg8bit')
MAP_FOLDERS = ('masks', 'mask', 'maps', 'labels', 'label', 'annotations', 'annotation', 'ann', 'segmentationclass',
               'segmentation', 'gtfine', 'gt')  # fmt: skip
MAP_ENDINGS = r'[_-](mask|masks|label|labels|gt|seg|segmentation|map|labelids)$'
TABLES = ('class_dict.csv', 'labelmap.txt')
IGNORED = 255  # value of pixels without a class
MAX_NAMES = IGNORED  # classes that the other values can tell apart
MAX_CLASSES = 200  # more values than these are taken as an image instead of a class map
LAYOUT = 'put images into images/ and maps of the same name into masks/'


def recognizes(listing: Listing, task: str) -> bool:
    """Whether the folder has folders of images and of maps."""
    maps, images = _find(listing)
    return task == 'segmentation' and bool(maps.keys() & images.keys())


def read(listing: Listing, task: str) -> Found:
    """Pair images and maps, and read the values of all maps.

    Raises:
        UserError: If there are no pairs, or maps are color images without a color table.
    """
    found = Found(NAME, listing.folder)
    maps, images = _find(listing)
    splits = voc.read_splits(listing, 'Segmentation')
    if not maps.keys() & images.keys():
        raise UserError(f'folder {listing.folder} has no images with class maps: {LAYOUT}')
    for key in sorted(images.keys() & maps.keys()):
        for kind, names in (('images', images[key]), ('maps', maps[key])):
            if len(names) > 1:
                found.problems.add(
                    f'folder {listing.folder} has {len(names)} {kind} {key} ({shorten(names)}): keep one'
                )
        split = splits.get(key.rpartition('/')[2]) if splits else split_of(images[key][0])
        found.images.append(LabelledImage(images[key][0], split, label_map=maps[key][0]))
    for key in sorted(images.keys() - maps.keys()):
        found.note('no map', f'image {listing.folder / images[key][0]} has no map and is left out')
    for key in sorted(maps.keys() - images.keys()):
        found.note('no image', f'map {listing.folder / maps[key][0]} has no image and is left out')
    table = _read_table(listing)
    if table:
        found.palette = list(table)
        found.classes = list(table.values())
    elif names := _read_names(listing):
        found.classes = names
    _read_values(found, table)
    return found


def is_map_folder(path: str) -> bool:
    """Whether a folder of a path holds class maps by its name."""
    return any(part.lower() in MAP_FOLDERS for part in path.split('/'))


def _find(listing: Listing) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Maps and images by the path that both have in common."""
    maps: dict[str, list[str]] = defaultdict(list)
    images: dict[str, list[str]] = defaultdict(list)
    for name in listing.images:
        parts = stem(name).split('/')
        lower = [part.lower() for part in parts[:-1]]
        for found, folders in ((maps, MAP_FOLDERS), (images, IMAGE_FOLDERS)):
            at = next((index for index in reversed(range(len(lower))) if lower[index] in folders), None)
            if at is not None:
                found['/'.join(parts[:at] + parts[at + 1 :])].append(name)
                break
    for key in list(maps):  # such as a_mask for a
        short = re.sub(MAP_ENDINGS, '', key, flags=re.IGNORECASE)
        if key not in images and short in images:
            maps[short] += maps.pop(key)
    return dict(maps), dict(images)


def _read_table(listing: Listing) -> dict[tuple[int, int, int], str]:
    """Color table: color to name of the class. Either ``name,r,g,b`` per line, or CVAT's ``name:r,g,b::``."""
    files = [name for name in listing.files if name.rpartition('/')[2].lower() in TABLES]
    if not files:
        return {}
    path = listing.folder / files[0]
    lines = [line.strip() for line in read_lines(path)]
    if path.suffix == '.csv':
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if row]
        rows = rows[1:] if rows and not rows[0][-1].isdecimal() else rows
    else:
        parts = [line.split(':') for line in lines if line and line[0] != '#']
        rows = [[part[0], *(part[1].split(',') if len(part) > 1 else [])] for part in parts]
    found: dict[tuple[int, int, int], str] = {}
    for row in rows:
        if len(row) != 4 or not all(cell.strip().isdecimal() and int(cell) < 256 for cell in row[1:]):
            raise UserError(f'{path} has the entry {",".join(row)}, not name,r,g,b with numbers up to 255: correct it')
        color = (int(row[1]), int(row[2]), int(row[3]))
        if color in found or row[0] in found.values():
            raise UserError(f'{path} has the color or name of {row[0]} twice: give each class its own')
        found[color] = row[0]
    if len(found) > MAX_NAMES:
        raise UserError(f'{path} has {len(found)} classes, but class maps hold at most {MAX_NAMES}: join some')
    return found


def _read_names(listing: Listing) -> list[str]:
    """Names of the values 0, 1, ... in a text file; empty if there is none."""
    files = [name for name in listing.files if name.rpartition('/')[2] == 'classes.txt']
    return [line.strip() for line in read_lines(listing.folder / files[0]) if line.strip()] if files else []


def _read_values(found: Found, table: dict) -> None:
    """Check every map, and find the number of classes and whether maps must be rewritten."""
    counts = np.zeros(IGNORED + 1, np.int64)
    for image in progress(found.images, 'reading maps'):
        path = found.folder / str(image.label_map)
        image.source = str(path)
        try:
            values = read_map(path, table)
        except UserError as error:
            found.problems.add(str(error))
            continue
        image.recorded = values.shape[1], values.shape[0]
        found.rewrites_maps |= not _is_plain(path)
        counts += np.bincount(values.ravel(), minlength=IGNORED + 1)
    present = np.flatnonzero(counts).tolist()
    if found.problems or not present:
        return
    if set(present) == {0, IGNORED} and not table:
        found.notes.add(f'maps have the values 0 and {IGNORED} only: {IGNORED} is taken as class 1')
        found.is_binary = found.rewrites_maps = True
        found.classes = found.classes or ['background', 'foreground']
        present = [0, 1]
    classes = [value for value in present if value != IGNORED]
    if len(classes) > MAX_CLASSES:
        found.problems.add(
            f'maps such as {found.images[0].source} have {len(classes)} values, as if they were gray images: store the '
            'class index of each pixel'
        )
    if not found.classes:
        found.classes = [f'class_{number}' for number in range(max(classes, default=0) + 1)]
        found.note('names', f'no classes.txt: the values of the maps are called class_0 to {found.classes[-1]}')
    if max(classes, default=0) >= len(found.classes):
        found.problems.add(
            f'maps have the value {max(classes)}, but there are {len(found.classes)} names '
            f'({shorten(found.classes)}): add names, or correct the maps'
        )
    unused = [name for number, name in enumerate(found.classes) if number not in present]
    if unused and len(found.classes) > 1:
        found.note('unused', f'no map has the class {shorten(unused)}')


def read_map(path: Path, table: dict[tuple[int, int, int], str]) -> np.ndarray:
    """Class indices of a map, (H, W) uint8; colors of the table become the number of their entry.

    Raises:
        UserError: If it cannot be read, or has colors without or outside the table, or larger values.
    """
    if path.suffix.lower() in ('.jpg', '.jpeg'):
        raise UserError(f'map {path} is a JPEG file, which changes values at edges: store maps as PNG')
    array = read_image(path, _to_array)
    if array.ndim == 3 and array.shape[2] in (2, 4):  # alpha
        array = array[..., 0] if array.shape[2] == 2 else array[..., :3]
    if array.ndim == 3 and (array == array[..., :1]).all() and not table:
        array = array[..., 0]  # gray values in three channels
    if array.ndim == 2 and not table:
        array = array.astype(np.uint8) if array.dtype == bool else array
        bad = array[~((array >= 0) & (array <= IGNORED) & (np.floor(array) == array))]  # NaN, too
        if len(bad):
            raise UserError(f'map {path} has the value {bad[0]}, but 0 to 255 are allowed: store class indices')
        return array.astype(np.uint8)
    if not table:
        raise UserError(
            f'map {path} is a color image: add the file {TABLES[0]} with a line name,r,g,b for each class, or store '
            'the class index of each pixel in a single channel'
        )
    if array.ndim == 2:
        array = np.stack([array] * 3, -1)
    return _from_colors(array, path, table)


def read_indices(found: Found, image: LabelledImage) -> np.ndarray:
    """Class index of each pixel of an image, (H, W) uint8."""
    values = read_map(found.folder / str(image.label_map), {color: '' for color in found.palette})
    return np.where(values == IGNORED, 1, values).astype(np.uint8) if found.is_binary else values


def _is_plain(path: Path) -> bool:
    """Whether mmseg reads the indices of a map as they are: a PNG of one channel with 8 bits."""
    return path.suffix == '.png' and bool(read_image(path, lambda image: image.mode in ('L', 'P')))


def _to_array(image: Image.Image) -> np.ndarray:
    """Pixels as they are stored: indices of a palette stay, bits become 0 and 1."""
    return np.asarray(image)


def _from_colors(array: np.ndarray, path: Path, table: dict[tuple[int, int, int], str]) -> np.ndarray:
    codes = (array.astype(np.int64) * (65536, 256, 1)).sum(-1)
    found = np.full(array.shape[:2], IGNORED, np.uint8)
    known = np.zeros(array.shape[:2], bool)
    for number, (red, green, blue) in enumerate(table):
        here = codes == red * 65536 + green * 256 + blue
        found[here] = number
        known |= here
    if not known.all():
        y, x = np.argwhere(~known)[0]
        color = ', '.join(map(str, array[y, x]))
        raise UserError(f'map {path} has the color {color} at x={x}, y={y}, which the color table lacks: add it')
    return found
