"""Pascal VOC XML: a file with boxes per image, and lists of the splits."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path

from mogacore.datasets.checks.common import read_lines
from mogacore.errors import UserError
from mogacore.files import read_file

from .found import Found, LabelledImage
from .listing import SPLIT_NAMES, Listing, read_start, split_of, stem

NAME = 'Pascal VOC XML'
MAP_FOLDERS = ('SegmentationClass', 'SegmentationObject')
CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


class _WithoutDoctype(ET.TreeBuilder):
    """Refuses a document type, in which entities could expand to gigabytes or name other files."""

    def doctype(self, *args):
        raise UserError('has a document type, which may define entities: remove the line <!DOCTYPE ...>')


def recognizes(listing: Listing, task: str) -> bool:
    """Whether the folder has XML files of annotations."""
    files = listing.with_suffix('.xml')
    return any(b'<annotation' in read_start(listing.folder / name, 1000) for name in files)


def read(listing: Listing, task: str) -> Found:
    """Read the XML file of every image.

    Raises:
        UserError: If the task needs more than boxes.
    """
    if task != 'detection':
        raise UserError(
            f'{NAME} files of {listing.folder} have boxes only, but --task {task} needs more: use --task detection'
            + ('; class maps such as SegmentationClass are read with --format masks' if task == 'segmentation' else '')
        )
    found = Found(NAME, listing.folder)
    splits = read_splits(listing)
    labelled: dict[str, LabelledImage] = {}
    names: set[str] = set()
    corners: list[float] = []
    for name in listing.with_suffix('.xml'):
        path = listing.folder / name
        try:
            root = _parse(path)
            if root.tag != 'annotation':
                continue
            image = _find_image(listing, name, root.findtext('filename'))
            split = splits.get(stem(name).rpartition('/')[2]) if splits else split_of(image)
            entry = LabelledImage(image, split, str(path), _read_size(root), _read_objects(root, path))
        except UserError as error:
            found.problems.add(str(error))
            continue
        if image in labelled:
            found.problems.add(f'{path} and {labelled[image].source} both belong to image {image}: keep one')
        labelled[image] = entry
        names |= {annotation['category'] for annotation in entry.objects}
        corners += [value for annotation in entry.objects for value in annotation['corners']]
    for image in listing.images:
        in_split = not splits or stem(image).rpartition('/')[2] in splits
        if image not in labelled and in_split and not set(MAP_FOLDERS) & set(image.split('/')):
            split = splits.get(stem(image).rpartition('/')[2]) if splits else split_of(image)
            labelled[image] = LabelledImage(image, split)
    found.images = [labelled[image] for image in sorted(labelled) if not splits or labelled[image].split]
    found.classes = sorted(names)
    if left_out := len(labelled) - len(found.images):
        found.note('lists', f'images in no list of ImageSets/Main: {left_out}; they are left out')
    _to_boxes(found, from_one=min(corners, default=1) >= 1 and all(value == int(value) for value in corners))
    return found


def _parse(path: Path) -> ET.Element:
    try:
        return ET.fromstring(read_file(path), ET.XMLParser(target=_WithoutDoctype()))
    except UserError as error:
        raise UserError(f'{path} {error}') from None
    except (ET.ParseError, OSError, ValueError) as error:  # ValueError for an encoding that Python does not know
        raise UserError(f'{path} cannot be read as XML ({error}): recreate it') from error


def _find_image(listing: Listing, name: str, file_name: str | None) -> str:
    """The image of an XML file: of the same name beside it or in JPEGImages or images, or else its ``filename``."""
    path = stem(name)
    same = [path, *(path.replace('Annotations/', f'{folder}/') for folder in ('JPEGImages', 'images')),
            *(path.replace('annotations/', f'{folder}/') for folder in ('images', 'JPEGImages'))]  # fmt: skip
    found = [image for candidate in dict.fromkeys(same) for image in listing.by_stem.get(candidate, [])]
    image = found[0] if found else listing.find_image(file_name, split_of(name)) if file_name else None
    if image is None:
        raise UserError(f'{listing.folder / name}: its image {file_name or path} does not exist: add it, or remove it')
    return image


def _read_size(root: ET.Element) -> tuple[int, int] | None:
    try:
        size = int(root.findtext('size/width') or 0), int(root.findtext('size/height') or 0)
    except ValueError:
        return None
    return size if min(size) > 0 else None


def _read_objects(root: ET.Element, path: Path) -> list[dict]:
    objects = []
    for number, entry in enumerate(root.findall('object'), 1):
        name = (entry.findtext('name') or '').strip()
        if not name:
            raise UserError(f'{path}: object {number} has no name: correct it')
        try:
            corners = [float(entry.findtext(f'bndbox/{key}') or 'missing') for key in CORNERS]
        except ValueError:
            raise UserError(
                f'{path}: object {number} ({name}) has no bndbox of numbers {", ".join(CORNERS)}: correct it'
            ) from None
        if not (all(map(math.isfinite, corners)) and corners[0] <= corners[2] and corners[1] <= corners[3]):
            raise UserError(
                f'{path}: object {number} ({name}) has the corners {corners}, not xmin <= xmax and ymin <= ymax: '
                'correct it'
            )
        is_difficult = (entry.findtext('difficult') or '0').strip() == '1'
        objects.append(dict(category=name, corners=corners, iscrowd=int(is_difficult)))
    return objects


def _to_boxes(found: Found, from_one: bool) -> None:
    """Replace the corners of all objects by boxes, in place.

    Args:
        found: The data.
        from_one: Corners are numbers of pixels, counted from 1, and the last pixel belongs to the box, as in the format
            of VOC. Otherwise, with fractions or a 0, they are coordinates from 0.
    """
    for image in found.images:
        for entry in image.objects:
            left, top, right, bottom = entry.pop('corners')
            first = int(from_one)
            entry['bbox'] = [left - first, top - first, right - left + first, bottom - top + first]
            if entry['iscrowd']:
                found.note('difficult', f'{image.source}: a difficult object becomes iscrowd, which is not scored')
    rule = 'numbers of pixels from 1, the last one included' if from_one else 'coordinates from 0'
    found.notes.add(f'corners of boxes are taken as {rule}')


def read_splits(listing: Listing, folder: str = 'Main') -> dict[str, str]:
    """Split of each image, by its name without folder and suffix, from the lists in ImageSets/FOLDER; or else empty."""
    found: dict[str, str] = {}
    for name in listing.with_suffix('.txt'):
        parts = name.split('/')
        split = SPLIT_NAMES.get(stem(parts[-1]))
        if split and 'ImageSets' in parts[:-1] and parts[-2] in (folder, 'ImageSets'):
            for line in read_lines(listing.folder / name):
                if line.strip():
                    found.setdefault(line.strip(), split)
    return found
