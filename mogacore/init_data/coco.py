"""COCO JSON: boxes, masks and keypoints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from mogacore.datasets.checks.coco_files import (
    check_annotations,
    check_keys,
    check_masks,
    check_objects,
    read_coco,
)
from mogacore.errors import UserError
from mogacore.text import shorten, show

from . import masks
from .found import Found, LabelledImage
from .listing import Listing, split_of, split_of_file

NAME = 'COCO JSON'
LISTS = ('images', 'annotations', 'categories')
# Fields of an annotation that are kept; the others are free notes of the tool that wrote the file.
FIELDS = ('bbox', 'segmentation', 'keypoints', 'num_keypoints', 'iscrowd', 'area')


def recognizes(listing: Listing, task: str) -> bool:
    """Whether the folder has COCO files."""
    return any(isinstance(content, dict) and set(LISTS) <= content.keys() for content in listing.contents.values())


def read(listing: Listing, task: str) -> Found:
    """Read the file of each split.

    Raises:
        UserError: If it is unclear which files to use.
    """
    found = Found(NAME, listing.folder)
    for content in listing.contents.values():
        if isinstance(content, UserError):
            found.problems.add(str(content))
    files = _choose(listing, task)
    names: dict[str, None] = {}
    for name, split in files.items():
        with found.problems.collect():
            names |= dict.fromkeys(_read_file(listing, name, split, task, found))
    found.classes = list(names)
    if len(found.ready) < len(files) or task == 'segmentation':  # which needs maps
        found.ready = {}
    return found


def _choose(listing: Listing, task: str) -> dict[str, str | None]:
    """The files to read and their splits."""
    contents = {name: content for name, content in listing.contents.items()
                if isinstance(content, dict) and set(LISTS) <= content.keys()}  # fmt: skip
    with_points = {name for name, content in contents.items() if _has_keypoints(content['annotations'])}
    wanted = with_points if task == 'pose' else set(contents) - with_points or with_points
    if not wanted:
        raise UserError(
            f'COCO files of {listing.folder} ({shorten(contents)}) have no keypoints, which --task pose needs: label '
            'keypoints, or choose another task'
        )
    by_split: dict[str | None, list[str]] = defaultdict(list)
    for name in sorted(wanted):
        by_split[split_of_file(name)].append(name)
    for split, names in by_split.items():
        if len(names) > 1:
            what = f'split {split}' if split else 'no split in their names'
            raise UserError(
                f'folder {listing.folder} has {len(names)} COCO files for {what} ({shorten(names)}): keep one, or call '
                'them train.json and val.json'
            )
    if None in by_split and len(by_split) > 1:
        raise UserError(
            f'folder {listing.folder} has COCO files of a split and {by_split[None][0]}: remove it, or put train, val '
            'or test into its name'
        )
    return {names[0]: split for split, names in by_split.items()}


def _has_keypoints(annotations: object) -> bool:
    return isinstance(annotations, list) and any(isinstance(e, dict) and e.get('keypoints') for e in annotations)


def _read_file(listing: Listing, name: str, split: str | None, task: str, found: Found) -> Iterable[str]:
    """Add the images of a file; returns the names of its categories in the order of their ids."""
    path = listing.folder / name
    checked = read_coco(path, may_be_empty=True)  # with shortened masks
    check_keys(checked['annotations'], 'annotations', ('bbox',), path)
    check_annotations(checked, checked['annotations'], path)
    check_objects(checked['annotations'], path)
    if task == 'instance':
        check_masks(checked, checked['annotations'], path)
    content = listing.contents[name]
    categories = {category['id']: category['name'] for category in content['categories']}
    if len(set(categories.values())) < len(categories):
        repeated = sorted({name for name in categories.values() if list(categories.values()).count(name) > 1})
        raise UserError(f'{path}: several categories have the name {shorten(repeated)}: give each its own name')
    if task == 'pose':
        _read_keypoints(content['categories'], path, found)
    objects = defaultdict(list)
    for annotation in content.get('annotations') or ():
        entry = {key: annotation[key] for key in FIELDS if key in annotation}
        if task == 'pose' and entry.get('keypoints'):
            entry['keypoints'] = _flatten(entry['keypoints'])
            if len(entry['keypoints']) != 3 * len(found.keypoints):
                raise UserError(
                    f'{path}: annotation {annotation["id"]} has {len(entry["keypoints"])} keypoint values, but '
                    f'{len(found.keypoints)} keypoints need {3 * len(found.keypoints)}: correct it'
                )
        if task != 'pose' or entry.get('keypoints'):
            objects[annotation['image_id']].append(entry | {'category': categories[annotation['category_id']]})
    names = [image['file_name'] for image in content['images']]
    folder = _find_folder(listing, names, split, path)
    for image in content['images']:
        file = listing.find_image(image['file_name'], split) if folder is None else folder + image['file_name']
        if file is None:
            found.problems.add(
                f'{path}: image {image["file_name"]} is not below {listing.folder}, or several have this name: add it, '
                'or correct file_name'
            )
            continue
        size = (image['width'], image['height'])
        found.images.append(LabelledImage(file, split, str(path), size, objects[image['id']]))
    if split and folder is not None:
        found.ready[split] = name, folder
    return [categories[key] for key in sorted(categories, key=lambda key: (isinstance(key, str), key))]


def _find_folder(listing: Listing, names: list[str], split: str | None, path: object) -> str | None:
    """The folder, with a ``/`` at its end, below which all images of a file are; None if there is none.

    Of several, that of the split is used, and none with class maps.

    Raises:
        UserError: If several are left.
    """
    same = listing.by_file_name.get(names[0].rpartition('/')[2], [])
    folders = [image.removesuffix(names[0]) for image in same if f'/{image}'.endswith(f'/{names[0]}')]
    folders = [folder for folder in folders if all(folder + name in listing.known_images for name in names)]
    for is_better in (lambda folder: split_of(folder) == split, lambda folder: not masks.is_map_folder(folder)):
        folders = list(filter(is_better, folders)) or folders
    if len(folders) > 1:
        raise UserError(
            f'{path}: its images are in several folders ({shorten(folders)}): remove all but one, or put the folder '
            'into file_name'
        )
    return folders[0] if folders else None


def _flatten(points: list) -> list:
    """x, y, visibility of all keypoints, which may be nested as in [[x, y, v], ...]."""
    return [value for point in points for value in (point if isinstance(point, list) else [point])]


def _read_keypoints(categories: list[dict], path: object, found: Found) -> None:
    names = [category['keypoints'] for category in categories if category.get('keypoints')]
    if not names:
        raise UserError(f'{path}: no category has the list keypoints with their names: add it to categories')
    for given in names:
        if not isinstance(given, list) or not all(isinstance(name, str | int) for name in given):
            raise UserError(f'{path}: keypoints of a category is {show(given)}: use a list of names')
    for other in [*names, found.keypoints or names[0]]:
        if list(other) != list(names[0]):
            raise UserError(
                f'{path}: keypoints are {shorten(names[0])} in one category or file and {shorten(other)} in another: '
                'use the same ones'
            )
    found.keypoints = [str(name) for name in names[0]]
