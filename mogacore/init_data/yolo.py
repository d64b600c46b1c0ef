"""YOLO text files: a line per object with its class and fractions of width and height; boxes, polygons or keypoints."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mogacore.datasets.checks.common import read_lines
from mogacore.errors import UserError
from mogacore.files import read_file

from .found import Found, LabelledImage
from .listing import Listing, read_start, split_of, stem

NAME = 'YOLO text files'
TOLERANCE = 0.01  # by which a fraction may leave 0 to 1
MIN_POLYGON = 6  # numbers
MAX_VALUES = 1_000_000  # of a YAML file
MAX_SETTINGS = 1 << 20  # bytes of a YAML file in which names are looked for
NAME_FILES = ('classes.txt', 'obj.names', 'labels.txt', 'names.txt')
NO_LABELS = ('requirements.txt',)


def recognizes(listing: Listing, task: str) -> bool:
    """Whether an image has a text file of the same name that starts with a number."""
    texts = set(listing.with_suffix('.txt'))
    labels = filter(None, (_find_label(name, texts) for name in listing.images))
    starts = (read_start(listing.folder / name, 4).removeprefix(codecs.BOM_UTF8) for name in labels)
    return any(start[:1].isdigit() for start in starts)


def _is_settings(path: Path) -> bool:
    text = read_start(path, MAX_SETTINGS).replace(b'\0', b'').decode(errors='ignore')  # in UTF-16, too
    return re.search(r'^names\s*:', text, re.MULTILINE) is not None


def read(listing: Listing, task: str) -> Found:
    """Read the label file of every image.

    Raises:
        UserError: If the settings of the data set cannot be read.
    """
    found = Found(NAME, listing.folder)
    settings = _read_settings(listing)
    names, shape = _names(listing, settings), _keypoint_shape(listing, settings, task)
    texts = set(listing.with_suffix('.txt'))
    splits = _splits(listing, settings)
    used, ids = set(), set()
    for image in listing.images:
        label = _find_label(image, texts)
        split = splits.get(image) if splits else split_of(image)
        entry = LabelledImage(image, split)
        found.images.append(entry)
        if label is None:
            continue
        used.add(label)
        entry.source = str(listing.folder / label)
        try:
            lines = read_lines(listing.folder / label)
        except UserError as error:
            found.problems.add(str(error))
            continue
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                class_id, annotation = _parse(line, task, shape)
                if class_id < 0 or (names is not None and class_id not in names):
                    end = f'0 to {len(names) - 1}' if names else 'numbered from 0'
                    raise ValueError(f'has class {class_id}, but the classes are {end}')
            except ValueError as error:
                found.problems.add(f'{listing.folder / label} line {number} {error}: correct it')
                continue
            ids.add(class_id)
            entry.objects.append(annotation | {'category': class_id})
    if names is None:
        names = {number: f'class_{number}' for number in ids}
        found.note('names', f'{listing.folder} has no data.yaml or classes.txt: the classes are called class_NUMBER')
    for entry in found.images:
        for annotation in entry.objects:
            annotation['category'] = names[annotation['category']]
    found.classes = [names[number] for number in sorted(names)]
    if shape and task == 'pose':
        found.keypoints, found.swaps = _keypoint_names(listing, settings, shape[0])
    for label in sorted(texts - used):
        if label.rpartition('/')[2] not in (*NAME_FILES, *NO_LABELS) and re.search(r'(^|/)labels/', label):
            found.note('unused', f'label file {listing.folder / label} has no image and is not used')
    return found


def _find_label(image: str, texts: set[str]) -> str | None:
    """The label file of an image: below ``labels`` instead of ``images``, or beside it."""
    name = f'{stem(image)}.txt'
    folders = [match.span() for match in re.finditer(r'(?<![^/])images(?=/)', name)]
    candidates = [f'{name[:start]}labels{name[end:]}' for start, end in reversed(folders)]
    return next((path for path in [*candidates, name] if path in texts and path not in NAME_FILES), None)


def _read_settings(listing: Listing) -> dict:
    """Content of the YAML file with ``names``, and its folder as ``folder``."""
    files = [name for name in listing.with_suffix('.yaml', '.yml') if _is_settings(listing.folder / name)]
    if len(files) > 1:
        raise UserError(f'folder {listing.folder} has several data sets ({", ".join(files)}): keep one YAML file')
    if not files:
        return {}
    path = listing.folder / files[0]
    try:
        content = yaml.safe_load(read_file(path).decode())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f'{path} cannot be read as YAML ({" ".join(str(error).split())}): correct it') from error
    if _has_many_values(content):
        raise UserError(
            f'{path} has more than {MAX_VALUES:,} values, by aliases that repeat others: write it without them'
        )
    if not isinstance(content, dict) or not isinstance(content.get('names'), list | dict) or not content['names']:
        raise UserError(f'{path} has no list of names: add names, such as names: [cat, dog]')
    return content | {'folder': path.parent, 'file': path}


def _has_many_values(content: Any) -> bool:
    """Whether the values of a YAML file, of which few aliases may make billions, are too many to be read."""
    rest = [content]
    for _ in range(MAX_VALUES):
        if not rest:
            return False
        value = rest.pop()
        if isinstance(value, dict | list):
            rest += value.values() if isinstance(value, dict) else value
    return True


def _names(listing: Listing, settings: Mapping) -> dict[int, str] | None:
    """Name of each class number; None if no file has them."""
    if settings:
        names, file = settings['names'], settings['file']
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        found = {key: str(value) for key, value in pairs if isinstance(key, int) and key >= 0}
        if len(found) < len(names):
            raise UserError(f'{file} has names whose numbers are not 0, 1, ...: correct them')
        if settings.get('nc') not in (None, len(names)):
            raise UserError(f'{file} has {len(names)} names, but nc: {settings["nc"]}: correct one of them')
    else:
        files = [name for name in listing.files if name.rpartition('/')[2] in NAME_FILES]
        if not files:
            return None
        file = listing.folder / files[0]
        found = dict(enumerate(line.strip() for line in read_lines(file) if line.strip()))
    if len(set(found.values())) < len(found):
        raise UserError(f'{file} has a name twice ({", ".join(found.values())}): give each class its own name')
    return found


def _keypoint_shape(listing: Listing, settings: Mapping, task: str) -> tuple[int, int] | None:
    """Number of keypoints of an object and of values of each; None if the labels have none."""
    shape = settings.get('kpt_shape')
    if shape is None and task != 'pose':
        return None
    numbers = shape if isinstance(shape, list) and len(shape) == 2 else (0, 0)
    if not isinstance(numbers[0], int) or numbers[0] < 1 or numbers[1] not in (2, 3):
        where = settings.get('file') or f'{listing.folder} (no YAML file)'
        raise UserError(f'{where} has no kpt_shape: [number of keypoints, 2 or 3], which --task pose needs: add it')
    return numbers[0], numbers[1]


def _keypoint_names(listing: Listing, settings: Mapping, number: int) -> tuple[list[str], list[str]]:
    """Names of the keypoints, and the partner of each in a mirror image as ``flip_idx`` gives it."""
    names = settings.get('kpt_names')
    names = next(iter(names.values()), None) if isinstance(names, dict) else names
    if not isinstance(names, list) or len(names) != number:
        names = [f'keypoint_{index}' for index in range(number)]
    order = settings.get('flip_idx')
    if order is None:
        return [str(name) for name in names], []
    partners = dict(enumerate(order)) if isinstance(order, list) else {}
    if len(partners) != number or any(type(at) is not int or partners.get(at) != i for i, at in partners.items()):
        raise UserError(f'{settings["file"]}: flip_idx {order} does not pair the {number} keypoints: correct it')
    return [str(name) for name in names], ['' if at == i else str(names[at]) for i, at in enumerate(order)]


def _splits(listing: Listing, settings: Mapping) -> dict[str, str]:
    """Split of each image by the folders and lists in the YAML file; empty if it names none."""
    found: dict[str, str] = {}
    for key in ('train', 'val', 'test'):
        value = settings.get(key)
        for item in value if isinstance(value, list) else [value] if value else []:
            path = _locate(settings, str(item), listing.folder)
            if path is None:
                if key == 'test':  # often named and absent
                    continue
                raise UserError(f'{settings["file"]}: {key} {item} does not exist: correct it')
            if path.is_file():
                listed = [listing.find_image(line.strip(), key) for line in read_lines(path) if line.strip()]
            else:
                below = path.resolve().relative_to(listing.folder.resolve()).as_posix()
                listed = [name for name in listing.images if below == '.' or name.startswith(f'{below}/')]
            for name in filter(None, listed):
                found.setdefault(name, key)
    return found if len(set(found.values())) > 1 else {}


def _locate(settings: Mapping, item: str, folder: Path) -> Path | None:
    """A path of the YAML file: relative to ``path``, to the file or to the folder of the data, or without ``../``."""
    bases = [settings['folder'] / str(settings.get('path') or '.'), settings['folder'], folder]
    for name in (item, re.sub(r'^(\.\./)+', '', item)):
        for base in bases:
            try:
                path = (base / name).resolve()
                is_there = path.exists()
            except (OSError, ValueError):  # a name that no file can have
                continue
            if is_there and path.is_relative_to(folder.resolve()):
                return path
    return None


def _parse(line: str, task: str, shape: tuple[int, int] | None) -> tuple[int, dict]:
    """Class and annotation of a line, with fractions in place of pixels.

    Raises:
        ValueError: With what is wrong.
    """
    words = line.split()
    try:
        class_id, values = int(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        raise ValueError(f'is {line.strip()[:60]!r}, not a class number and numbers') from None
    if not all(math.isfinite(value) for value in values):
        raise ValueError('has a value that is not finite')
    points: list[float] = []
    if shape:
        if len(values) != 4 + shape[0] * shape[1]:
            raise ValueError(f'has {len(values)} values, but kpt_shape {list(shape)} needs {4 + shape[0] * shape[1]}')
        values, points = values[:4], values[4:]
    is_polygon = len(values) >= MIN_POLYGON and len(values) % 2 == 0
    if len(values) != 4 and not is_polygon:
        raise ValueError(f'has {len(values)} values, not 4 of a box or pairs of a polygon')
    if task in ('instance', 'segmentation') and not is_polygon:
        raise ValueError(f'has a box, but --task {task} needs polygons')
    places = [*values, *(value for i, value in enumerate(points) if shape and i % shape[1] < 2)]
    bad = [value for value in places if not -TOLERANCE <= value <= 1 + TOLERANCE]
    if bad:
        raise ValueError(f'has the value {bad[0]:g}, not a fraction of the image in 0 to 1')
    if is_polygon:
        return class_id, dict(fractions=values)
    x, y, width, height = values
    annotation = dict(bbox=[x - width / 2, y - height / 2, width, height])
    if shape:
        rows = [points[i : i + shape[1]] for i in range(0, len(points), shape[1])]
        annotation['keypoints'] = [v for row in rows for v in (*row[:2], row[2] if shape[1] == 3 else 2 * any(row))]
    return class_id, annotation


def to_pixels(image: LabelledImage) -> None:
    """Multiply the fractions of the objects of an image by its size, in place."""
    width, height = image.size
    for entry in image.objects:
        if 'fractions' in entry:
            values = entry.pop('fractions')
            entry['segmentation'] = [[value * (height if i % 2 else width) for i, value in enumerate(values)]]
        else:
            entry['bbox'] = [v * s for v, s in zip(entry['bbox'], (width, height) * 2, strict=True)]
        if 'keypoints' in entry:
            sizes = (width, height, 1)
            entry['keypoints'] = [value * sizes[i % 3] for i, value in enumerate(entry['keypoints'])]
