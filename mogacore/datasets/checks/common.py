"""What the checks of several kinds of data share: files, images, class names, sampling."""

import os
from pathlib import Path

from mogacore.errors import UserError

MAX_LISTED = 20000
MAX_OPENED = 200
COCO_CLASSES = 80  # number of classes of mmdet's CocoDataset without metainfo


def check_files(names, folder, kind, setting):
    if not folder.is_dir():
        raise UserError(f'folder {folder} with the {kind} not found: set data_root and {setting}')
    checked = spread(names, MAX_LISTED)
    listed = {parent: list_names(parent) for parent in {os.path.dirname(folder / name) for name in checked}}
    missing = [name for name in checked if os.path.basename(name) not in listed[os.path.dirname(folder / name)]]
    if missing:
        count = f'{len(missing)} of {len(checked)} {kind} are not in {folder}, the first is {missing[0]}'
        raise UserError(f'{count}: add them, or set data_root and {setting}')


def list_names(folder):
    return set(os.listdir(folder)) if os.path.isdir(folder) else set()


def read_classes(classes):
    """The class names as a list, read from a text file if a path is given; None if not given."""
    if not isinstance(classes, str):
        return None if classes is None else list(classes)
    if not Path(classes).is_file():
        raise UserError(
            f'metainfo.classes is the string {classes!r}, but no such file exists: for one class, use ({classes!r},)'
        )
    return Path(classes).read_text(encoding='utf-8').splitlines()


def check_num_classes(num_classes, num_given, is_given=True):
    if num_classes not in (None, num_given):
        source = 'metainfo.classes has' if is_given else 'CocoDataset without metainfo.classes has'
        remedy = f"change metainfo=dict(classes=...) of the data set or num_classes={num_classes} of the model's head"
        raise UserError(f'{source} {num_given} classes, but the model has {num_classes}: {remedy}')


def read_image(path, read):
    """``read(image)``; PIL only loads the header before. None if PIL refuses the image as too large."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return read(image)
    except Image.DecompressionBombError:
        return None
    except (OSError, SyntaxError) as error:  # PIL raises both for corrupt files
        raise UserError(unreadable(path)) from error


def oriented_size(image):
    """(width, height) as loaded by OpenCV, which applies the EXIF orientation."""
    if image.format in ('JPEG', 'MPO') and image.getexif().get(0x0112, 1) >= 5:
        return image.size[::-1]
    return image.size


def unreadable(path):
    return f'image {path} is empty, truncated or not an image: replace it, or remove it from the data set'


def spread(items, limit):
    """Up to ``limit`` of the items, evenly spaced."""
    count = min(len(items), limit)
    return [items[i * len(items) // count] for i in range(count)]


def shorten(names):
    return ', '.join(map(str, names[:10])) + (f' and {len(names) - 10} more' if len(names) > 10 else '')


def times(size):
    return f'{size[0]} x {size[1]}'
