"""What the checks of several kinds of data share: files, images, class names, sampling."""

from __future__ import annotations

import codecs
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mogacore import images as image_files
from mogacore.errors import UserError
from mogacore.files import MAX_NAME, read_file
from mogacore.images import ALL_EXTENSIONS
from mogacore.packs import check_indexed, file_names, is_folder, read_bytes
from mogacore.text import type_name

IMAGE_SUFFIXES = (*ALL_EXTENSIONS, '.npy')  # what a user may consider an image, readable or not
COCO_CLASSES = 80  # number of classes of mmdet's CocoDataset without metainfo

T = TypeVar('T')


def check_files(names: Sequence[str], folder: Path, kind: str, setting: str) -> None:
    """Check that files exist, packed or not.

    Args:
        names: Paths relative to ``folder``.
        folder: Folder of the data set.
        kind: What the files are, for the message, such as 'images'.
        setting: Setting of the data set that leads to them, besides ``data_root``.

    Raises:
        UserError: If the folder or a file is missing; names the first one and their number.
    """
    check_indexed(folder)
    if not is_folder(folder):
        raise UserError(f'folder {folder} with the {kind} not found: set data_root and {setting}')
    listed = {parent: file_names(parent) for parent in {os.path.dirname(folder / name) for name in names}}
    missing = [name for name in names if os.path.basename(name) not in listed[os.path.dirname(folder / name)]]
    if missing:
        count = f'{len(missing)} of {len(names)} {kind} are not in {folder}, the first is {missing[0]}'
        raise UserError(f'{count}: add them, or set data_root and {setting}')


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file, without the byte order mark that it may start with.

    Raises:
        UserError: If it cannot be read as UTF-8.
    """
    try:
        return read_file(path).decode('utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path} cannot be read as text in UTF-8 ({error}): recreate it') from error


def _check_mark(path):
    """Refuse a byte order mark, which the task libraries take for a part of the first line."""
    with open(path, 'rb') as file:
        if file.read(3) == codecs.BOM_UTF8:
            raise UserError(f'{path} starts with a byte order mark: save it as UTF-8 without one')


def read_list(path: str | Path, contents: str) -> list[str]:
    """The lines of a list of images.

    Args:
        path: A text file.
        contents: What a line holds, for the message.

    Raises:
        UserError: If it is a JSON file, a line is too long for a name of a file, or there are none.
    """
    lines = read_lines(path)
    _check_mark(path)
    if not any(line.strip() for line in lines):
        raise UserError(f'{path} is empty: list {contents}')
    if Path(path).suffix.lower() == '.json':
        raise UserError(f'{path} is a JSON file, not a list: list {contents}')
    for number, line in enumerate(lines, 1):
        if any(len(os.fsencode(part)) > MAX_NAME for part in line.split('/')):
            raise UserError(
                f'line {number} of {path} has {len(line)} characters, more than a file name: list {contents}'
            )
    return lines


def read_classes(classes: str | Iterable[str] | None) -> list[str] | None:
    """The class names as a list, read from a text file if a path is given; None if not given.

    Raises:
        UserError: If there is no such file, or no name.
    """
    if classes is None:
        return None
    if not isinstance(classes, str):
        if not isinstance(classes, Iterable):
            raise UserError(f'metainfo.classes is {classes!r}: give a list of names')
        if not list(classes):
            raise UserError('metainfo.classes is empty: give the names of the classes, or omit it')
        return list(classes)
    if not Path(classes).is_file():
        raise UserError(
            f'metainfo.classes is the string {classes!r}, but no such file exists: for one class, use ({classes!r},)'
        )
    lines = read_lines(classes)
    _check_mark(classes)
    return lines


def repeated_names(names: Iterable[str]) -> list[str]:
    """The names that occur more than once, in their order."""
    return [name for name, count in Counter(names).items() if count > 1]


def image_prefix(dataset: Mapping) -> str:
    """Folder of the images below ``data_root``, as mmpretrain's data sets take it.

    Raises:
        UserError: If ``data_prefix`` is no text.
    """
    prefix = dataset.get('data_prefix') or ''
    prefix = prefix.get('img_path') or '' if isinstance(prefix, Mapping) else prefix
    if not isinstance(prefix, str):
        raise UserError(f'data_prefix of the data set is {prefix!r}: give one folder, and join several data sets')
    return prefix


def check_channels(dataset: Mapping, in_channels: int | None) -> None:
    """Compare the channels that the pipeline loads with those that the backbone takes; ``unchanged`` loads any.

    Raises:
        UserError: If they differ.
    """
    for step in dataset.get('pipeline') or ():
        if type_name(step.get('type')) in ('LoadImageFromFile', 'LoadImage'):
            color_type = step.get('color_type', 'color').removesuffix('_ignore_orientation')
            loaded = {'color': 3, 'grayscale': 1}.get(color_type)
            if loaded and in_channels and loaded != in_channels:
                other = {1: "add color_type='grayscale' to it", 3: "remove color_type='grayscale' from it"}
                remedy = other.get(in_channels, "use color_type='unchanged' and files with that many channels")
                problem = f'LoadImageFromFile in the pipeline of {dataset.get("data_root") or "the data set"} gives'
                raise UserError(
                    f'{problem} {loaded} channels, but the backbone has in_channels={in_channels}: {remedy}, '
                    f'or set in_channels={loaded}'
                )
            return


def check_num_classes(
    num_classes: Mapping[str, int],
    num_given: int,
    source: str = 'metainfo.classes',
    setting: str = 'metainfo=dict(classes=...) of the data set',
) -> None:
    """Compare the number of classes of a data set with that of every head.

    Args:
        num_classes: Path of each head in the config to its number of classes.
        num_given: Number of classes of the data set.
        source: Where that number comes from.
        setting: What to change instead.

    Raises:
        UserError: If a head has another number.
    """
    bad = {path: number for path, number in num_classes.items() if number != num_given}
    if bad:
        heads = ', '.join(f'{path}.num_classes={number}' for path, number in bad.items())
        problem = f'{source} has {num_given} classes, but the model has {next(iter(bad.values()))} ({heads})'
        raise UserError(f'{problem}: set each to {num_given}, or change {setting}')


def read_image(path: str | Path, read: Callable[[Any], T]) -> T:
    """``read(image)`` of an image that PIL opens.

    Raises:
        UserError: If it is corrupt or has too many pixels.
    """
    try:
        with image_files.open_header(io.BytesIO(read_bytes(path))) as image:
            image_files.check_size(*image.size, f'image {path}')
            return read(image)
    except UserError:
        raise
    except Exception as error:  # PIL raises errors of many types for corrupt files
        raise UserError(unreadable(path)) from error


def read_size(path: str | Path, ignore_orientation: bool) -> tuple[tuple[int, int], int]:
    """(width, height) of an image as it is loaded, and its EXIF orientation.

    Raises:
        UserError: If it is corrupt or has too many pixels.
    """
    try:
        size, orientation = image_files.read_size(path, ignore_orientation)
    except OSError as error:
        raise UserError(unreadable(path)) from error
    image_files.check_size(*size, f'image {path}')
    return size, orientation


def ignores_orientation(dataset: Mapping) -> bool:
    """Whether the first step of the pipeline loads images as they are stored, without their EXIF orientation."""
    loading = [step for step in dataset.get('pipeline') or () if 'LoadImage' in str(step.get('type'))]
    color_type = str(loading[0].get('color_type', 'color')) if loading else 'color'
    return color_type == 'unchanged' or color_type.endswith('ignore_orientation')


def explain_swap(actual: tuple[int, int], size: tuple[int, int], orientation: int, ignore_orientation: bool) -> str:
    """Cause and first remedy if width and height look swapped because of the EXIF orientation; otherwise ''."""
    if actual != size[::-1] or orientation < 5:
        return ''
    if ignore_orientation:
        color_type, what = 'color', 'ignores'
    else:
        color_type, what = 'color_ignore_orientation', 'applies'
    return (
        f'width and height look swapped since the loader {what} its EXIF orientation {orientation}; '
        f"set color_type='{color_type}' in the loading step, or "
    )


def unreadable(path: str | Path) -> str:
    """The line about an image that cannot be decoded."""
    return f'image {path} is empty, truncated or not an image: replace it, or remove it from the data set'


def times(size: Sequence[int]) -> str:
    """Two numbers as in '640 x 480'."""
    return f'{size[0]} x {size[1]}'
