"""Check of class maps, as mmseg's BaseSegDataset reads them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mogacore.errors import UserError
from mogacore.files import walk
from mogacore.packs import is_file, is_folder, list_files, locate
from mogacore.text import shorten, type_name

from .common import (
    IMAGE_SUFFIXES,
    check_files,
    check_num_classes,
    explain_swap,
    ignores_orientation,
    read_classes,
    read_image,
    read_list,
    read_size,
    times,
)
from .report import Expected, Faults, Problems, Sample

ADE20K_CLASSES = 150
IGNORED = 255  # map value of pixels without a class
MARGIN = 3  # pixels; an ignored border between objects is at most twice as wide
MIN_IGNORED = 0.01  # share of ignored pixels away from borders that may be a class


def check_segmentation(dataset: Mapping, expected: Expected, sample: Sample, problems: Problems) -> None:
    """Check BaseSegDataset or ADE20KDataset: folders, suffixes, sizes, number of classes and values."""
    is_ade = type_name(dataset['type']) == 'ADE20KDataset'
    with problems.collect():
        num_values = _count_values(dataset, is_ade, expected, problems)
    with problems.collect():
        _check_palette(dataset.get('metainfo') or {})
    folders = dataset.get('data_prefix') or {'img_path': '', 'seg_map_path': ''}
    for key in ('img_path', 'seg_map_path'):
        if folders.get(key) is None:
            raise UserError(f'data_prefix of the data set has no {key}: set it to the folder below data_root')
    root = Path(dataset.get('data_root') or '')
    image_folder, map_folder = root / folders['img_path'], root / folders['seg_map_path']
    image_suffix, map_suffix = dataset.get('img_suffix', '.jpg'), dataset.get('seg_map_suffix', '.png')
    for key, suffix in (('img_suffix', image_suffix), ('seg_map_suffix', map_suffix)):
        if not isinstance(suffix, str):
            raise UserError(f'{key} of the data set is {suffix!r}: give one suffix, and convert other files')
    stems = _list_stems(dataset, image_folder, image_suffix, (map_folder, map_suffix), problems)
    with problems.collect():
        check_files([stem + image_suffix for stem in stems], image_folder, 'images', 'data_prefix.img_path')
    setting = 'data_prefix.seg_map_path, seg_map_suffix'
    with problems.collect():
        check_files([stem + map_suffix for stem in stems], map_folder, 'maps', setting)
    faults, values = Faults(), _Values(num_values, dataset.get('reduce_zero_label', is_ade))
    count = 0
    for index, stem in sample.of(list(enumerate(stems))):
        image, label_map = image_folder / f'{stem}{image_suffix}', map_folder / f'{stem}{map_suffix}'
        if is_file(image) and is_file(label_map):
            count += 1
            _check_pair(image, label_map, index, ignores_orientation(dataset), values, faults)
    faults.report(problems)
    if not problems:  # such as a wrong number of classes
        values.check_ignored(map_folder, expected.for_training and count == len(stems), problems)


def _check_palette(metainfo):
    classes, palette = read_classes(metainfo.get('classes')), metainfo.get('palette')
    if classes is not None and palette is not None and len(palette) != len(classes):
        problem = f'metainfo.palette has {len(palette)} colors, but metainfo.classes {len(classes)} names'
        raise UserError(f'{problem}: give one color for each, or omit palette')


def _count_values(dataset, is_ade, expected, problems):
    """Number of the values that maps may have, without an ignored 0; None if it is unknown."""
    classes = read_classes((dataset.get('metainfo') or {}).get('classes'))
    num_heads = next(iter(expected.num_classes.values()), None)
    if not is_ade:
        if classes is not None:
            with problems.collect():
                check_num_classes(expected.num_classes, len(classes))
        return num_heads if classes is None else len(classes)
    remedy = "set type='BaseSegDataset' and metainfo=dict(classes=...), and reduce_zero_label=False if 0 is a class"
    if classes is None:
        source = 'ADE20KDataset without metainfo.classes'
        with problems.collect():
            check_num_classes(expected.num_classes, ADE20K_CLASSES, source, f'the data set: for own classes, {remedy}')
    elif expected.builtin_classes and not set(classes) <= set(expected.builtin_classes):
        unknown = [name for name in classes if name not in expected.builtin_classes]
        problems.add(f'metainfo.classes has {shorten(unknown)}, not among the classes of ADE20KDataset: {remedy}')
    else:
        with problems.collect():
            check_num_classes(expected.num_classes, len(classes))
    # metainfo.classes selects some of the 150 classes, while the map values stay the same.
    return ADE20K_CLASSES if classes is not None or num_heads is None else num_heads


def _list_stems(dataset, folder, suffix, maps, problems):
    """Relative paths of the images without suffix: the lines of ``ann_file`` if given, else all files in ``folder``."""
    if not is_folder(folder):
        raise UserError(f'folder {folder} with the images not found: set data_root and data_prefix.img_path')
    ann_file = Path(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    if dataset.get('ann_file') and not ann_file.is_dir() and not ann_file.is_file():
        raise UserError(f'list {ann_file} is not a file: set ann_file of the data set, or omit it for all images')
    if ann_file.is_file():
        contents = f'one image per line{f", without {suffix}" if suffix else ""}'
        return [line.strip() for line in read_list(ann_file, contents)]
    paths = (os.path.join(at, name) for at, _, names in walk(folder) for name in names if name[0] != '.')
    names = list_files(folder) if locate(folder) else sorted(os.path.relpath(path, folder) for path in paths)
    stems = [name[: -len(suffix)] for name in names if name.endswith(suffix)]
    if not stems:
        found = f'only {len(names)} other files, such as {names[0]}' if names else 'it is empty'
        raise UserError(f'folder {folder} has no images with suffix {suffix}, {found}: set img_suffix or data_prefix')
    if suffix.startswith('.'):  # others, such as _image.png, select files of a folder
        others = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES) and not name.endswith(suffix)]
        left_out = [name for name in others if not _is_map(folder / name, *maps)]
        if left_out:
            problem = f'{len(left_out)} of {len(stems) + len(left_out)} images in {folder} do not end in {suffix}'
            remedy = 'convert or rename them, or move them elsewhere; img_suffix selects one suffix for all images'
            problems.add(f'{problem} and would be left out, the first is {left_out[0]}: {remedy}')
    return stems


def _is_map(path, folder, suffix):
    return path.name.endswith(suffix) and path.is_relative_to(folder)


def _check_pair(image, label_map, index, ignores, values, faults):
    try:
        size, orientation = read_size(image, ignores)
        map_size, _ = read_size(label_map, ignore_orientation=True)  # maps are loaded as they are stored
        found, kind = read_image(label_map, lambda image: (np.asarray(image), image.format))
    except UserError as error:
        faults.add('unreadable', index, str(error))
        return
    if size != map_size:
        problem = f'map {label_map} is {times(map_size)} px (width x height), but its image {times(size)}'
        swap = explain_swap(size, map_size, orientation, ignores)
        faults.add('size', index, f'{problem}: {swap}make each map the size of its image')
    if kind == 'JPEG':
        faults.add('jpeg', index, f'map {label_map} is a JPEG file, which changes values: store maps as PNG')
    elif found.ndim != 2:
        remedy = 'store the class index of each pixel in a single channel'
        faults.add('color', index, f'map {label_map} is a color image: {remedy}')
    elif line := values.check(label_map, found):
        faults.add('values', index, line)


class _Values:
    """The values of the maps of a data set."""

    def __init__(self, num_classes: int | None, reduce_zero_label: bool):
        self.num_classes, self.zero = num_classes, bool(reduce_zero_label)
        self.counts = np.zeros(IGNORED + 1, np.int64)
        self.num_inner = 0  # ignored pixels whose neighbors are also ignored

    def check(self, path: Path, values: np.ndarray) -> str | None:
        """Count the values of a map; returns the problem if one is out of range."""
        if self.num_classes is None:
            return None
        limit = self.num_classes + self.zero  # with reduce_zero_label, 0 is ignored and 1 is the first class
        if values.dtype == np.uint8:  # much faster than sorting them
            counts = np.bincount(values.ravel(), minlength=IGNORED + 1)
            found = np.flatnonzero(counts)
            counts = counts[found]
        else:
            found, counts = np.unique(values, return_counts=True)
        bad = found[~((found >= 0) & (found < limit) & (np.floor(found) == found)) & (found != IGNORED)]  # NaN, too
        if len(bad):
            zero = ' with reduce_zero_label' if self.zero else ''
            problem = f'map {path} has the value {bad[0]} ({len(bad)} of its {len(found)} values are out of range)'
            allowed = f'0 to {limit - 1} and {IGNORED} are allowed for num_classes={self.num_classes}{zero}'
            return f'{problem}, but {allowed}: correct the maps, num_classes or reduce_zero_label'
        self.counts[found.astype(np.int64)] += counts
        if IGNORED in found:
            self.num_inner += int(_erode(values == IGNORED).sum())
        return None

    def check_ignored(self, folder: Path, is_complete: bool, problems: Problems) -> None:
        """Report a class that is apparently stored as an ignored value.

        Args:
            folder: Folder of the maps.
            is_complete: All maps of the training set are counted, so that a missing class can never be learned.
            problems: Where to report.
        """
        if self.num_classes is None or not self.counts.any():
            return
        ignored = self.counts[IGNORED] / self.counts.sum()
        classes = self.counts[self.zero : self.num_classes + self.zero]
        if is_complete and self.zero and self.num_classes > 1 and self.counts[0] and (
            np.flatnonzero(classes == 0).tolist() == [self.num_classes - 1]
        ):  # fmt: skip
            problems.add(
                f'maps in {folder} have 0, which reduce_zero_label ignores, to {self.num_classes - 1}, but no '
                f'{self.num_classes}, the last class: set reduce_zero_label=False of the data set if 0 is a class'
            )
        missing = [index + self.zero for index in np.flatnonzero(classes == 0)]
        num_found = len(classes) - len(missing)
        # Beside a single class, the border of an object cannot be the only thing that is ignored.
        is_binary = num_found <= 1 and self.num_classes > 1
        is_inner = is_complete and self.num_inner / self.counts.sum() > MIN_IGNORED
        if missing and self.counts[IGNORED] and (is_binary or is_inner):
            held = ', '.join(str(index) for index in np.flatnonzero(self.counts[:IGNORED])) or 'none'
            problems.add(
                f'maps in {folder} have {IGNORED} in {ignored:.0%} of their pixels, which is ignored, and no '
                f'{shorten(missing)} (values of classes found: {held}): store each class as its index, such as 1 '
                f'instead of {IGNORED} for the foreground'
            )


def _erode(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask whose whole neighborhood of ``MARGIN`` pixels lies in the mask."""
    for axis in (0, 1):
        total = np.cumsum(np.insert(mask, 0, 0, axis=axis), axis=axis, dtype=np.int32)
        width = 2 * MARGIN + 1
        length = total.shape[axis]
        if length <= width:
            return np.zeros((0, 0), bool)
        high, low = (np.take(total, range(*bounds), axis=axis) for bounds in ((width, length), (0, length - width)))
        mask = high - low == width
    return mask
