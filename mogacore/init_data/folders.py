"""Folders with the images of one class each, with or without folders of the splits above them."""

from __future__ import annotations

from mogacore.errors import UserError
from mogacore.text import shorten

from .found import Found, LabelledImage
from .listing import SPLIT_NAMES, Listing

NAME = 'class folders'


def recognizes(listing: Listing, task: str) -> bool:
    """Whether all images could be in class folders: for classification only."""
    return task == 'classification'


def read(listing: Listing, task: str) -> Found:
    """Read the folders.

    Raises:
        UserError: If images are in no class folder, or there is a single class.
    """
    found = Found(NAME, listing.folder)
    tops = {name.split('/')[0]: SPLIT_NAMES.get(name.split('/')[0].lower()) for name in listing.images if '/' in name}
    is_split = 'train' in tops.values()
    depth = 2 if is_split else 1  # of the folders above an image
    flat: list[str] = []
    for name in listing.images:
        parts = name.split('/')
        split = tops.get(parts[0]) if is_split else None
        if is_split and split is None:
            found.note('no split', f'image {listing.folder / name} is in no folder of a split and is left out')
        elif len(parts) <= depth and split == 'test':
            found.note(
                'no label', f'image {listing.folder / name} of the test split is in no class folder and is left out'
            )
        elif len(parts) <= depth:
            flat.append(name)
        else:
            found.images.append(LabelledImage(name, split, label=parts[depth - 1]))
    found.classes = sorted({image.label for image in found.images if image.label is not None})
    if flat:
        found.problems.add(
            f'image {listing.folder / flat[0]} is in no class folder ({len(flat) - 1} more): move it into the folder '
            'of its class'
        )
    if len(found.classes) < 2 and not found.problems:
        below = f', or give {listing.folder / found.classes[0]} if its folders are the classes' if found.classes else ''
        raise UserError(
            f'folder {listing.folder} has {len(found.classes)} class folders ({shorten(found.classes)}), but '
            f'classification needs at least 2: sort the images into one folder per class{below}'
        )
    if is_split:
        used = {image.name.split('/')[0]: str(image.split) for image in found.images}
        if len(used) == len(set(used.values())):  # otherwise, such as of val and valid, lists name the images
            found.ready = {split: ('', top) for top, split in used.items()}
        missing = set(found.classes) - {image.label for image in found.of('train')}
        if missing:
            folder = next((top for top, split in tops.items() if split == 'train'), '')
            found.problems.add(
                f'class {shorten(sorted(missing))} has images, but none in {listing.folder / folder}: '
                'add some, or remove its folder'
            )
    return found
