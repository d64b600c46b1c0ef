"""LabelMe JSON: a file of shapes per image."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
from PIL import Image

from mogacore.coco_eval import mask as run_lengths
from mogacore.datasets.checks.coco_files import is_number
from mogacore.errors import UserError

from .found import Found, LabelledImage
from .listing import Listing, split_of, stem

NAME = 'LabelMe JSON'
CIRCLE_CORNERS = 32  # of the polygon that stands for a circle


def recognizes(listing: Listing, task: str) -> bool:
    """Whether the folder has files with shapes."""
    return any(_is_labelme(content) for content in listing.contents.values())


def _is_labelme(content: Any) -> bool:
    return isinstance(content, dict) and 'shapes' in content


def read(listing: Listing, task: str) -> Found:
    """Read the file of every image.

    Raises:
        UserError: If the task is pose.
    """
    if task == 'pose':
        raise UserError(f'{NAME} is not read for --task pose: export keypoints as COCO JSON or YOLO text files')
    found = Found(NAME, listing.folder)
    labelled: dict[str, LabelledImage] = {}
    for name, content in listing.contents.items():
        path = listing.folder / name
        if isinstance(content, UserError):
            found.problems.add(str(content))
        if not _is_labelme(content):
            continue
        try:
            image = _find_image(listing, name, content)
            size = content.get('imageWidth'), content.get('imageHeight')
            recorded = (int(size[0]), int(size[1])) if all(map(is_number, size)) else None
            objects = _read_shapes(content['shapes'], path, task, found, recorded)
        except UserError as error:
            found.problems.add(str(error))
            continue
        if image in labelled:
            found.problems.add(f'{path} and {labelled[image].source} both belong to image {image}: keep one')
        labelled[image] = LabelledImage(image, split_of(image), str(path), recorded, objects)
    for image in listing.images:
        labelled.setdefault(image, LabelledImage(image, split_of(image)))
    found.images = [labelled[image] for image in sorted(labelled)]
    found.classes = sorted({entry['category'] for image in found.images for entry in image.objects})
    return found


def _find_image(listing: Listing, name: str, content: dict) -> str:
    """The image of a file: its ``imagePath``, or else the image of the same name beside it."""
    given = str(content.get('imagePath') or '').replace('\\', '/')
    beside = f'{name.rpartition("/")[0]}/{given}'.lstrip('/')
    same = listing.by_stem.get(stem(name), [])
    image = (
        beside if beside in listing.known_images else same[0] if same else listing.find_image(given) if given else None
    )
    if image is None:
        raise UserError(f'{listing.folder / name}: its image {given or stem(name)} does not exist: add it beside it')
    return image


def _read_shapes(shapes: Any, path: Any, task: str, found: Found, size: tuple[int, int] | None) -> list[dict]:
    """Annotations of the shapes; those with the same label and group become one."""
    if not isinstance(shapes, list):
        raise UserError(f'{path}: shapes is not a list: recreate the file')
    groups: dict[Any, dict] = {}
    for number, shape in enumerate(shapes, 1):
        what = f'{path}: shape {number}'
        label = shape.get('label') if isinstance(shape, dict) else None
        if not isinstance(label, str) or not label:
            raise UserError(f'{what} has no label: correct it')
        kind = shape.get('shape_type') or 'polygon'
        if kind in ('point', 'line', 'linestrip', 'points'):
            found.note(kind, f'{what} ({label}) is a {kind}, which has no area, and is left out')
            continue
        points = shape.get('points')
        if not isinstance(points, list) or not all(_is_point(point) for point in points):
            raise UserError(f'{what} ({label}) has points that are not pairs of numbers: correct it')
        annotation = _to_annotation(kind, points, shape, what, size)
        group = shape.get('group_id')
        first = groups.setdefault(number if group is None else (label, group), dict(annotation, category=label))
        if first.get('segmentation') is not annotation.get('segmentation'):
            if not isinstance(first['segmentation'], list) or not isinstance(annotation['segmentation'], list):
                raise UserError(f'{what} ({label}) joins a mask to a group: draw the object as polygons or one mask')
            first['segmentation'] = first['segmentation'] + annotation['segmentation']
    return list(groups.values())


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(map(is_number, point))


def _to_annotation(kind: str, points: list, shape: dict, what: str, size: tuple[int, int] | None) -> dict:
    """Mask of a shape."""
    if kind == 'mask':
        return dict(segmentation=_decode_mask(points, shape, what, size))
    if kind == 'rectangle' and len(points) in (2, 4):
        xs, ys = zip(*points, strict=True)
        left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
        return dict(segmentation=[[left, top, right, top, right, bottom, left, bottom]])
    if kind == 'circle' and len(points) == 2:
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        angles = [2 * math.pi * i / CIRCLE_CORNERS for i in range(CIRCLE_CORNERS)]
        return dict(segmentation=[[v for a in angles for v in (x + radius * math.cos(a), y + radius * math.sin(a))]])
    if kind in ('polygon', 'oriented_rectangle') and len(points) >= 3:
        return dict(segmentation=[[value for point in points for value in point]])
    raise UserError(f'{what} ({shape["label"]}) is a {kind} of {len(points)} points: use rectangle, polygon or circle')


def _decode_mask(points: list, shape: dict, what: str, size: tuple[int, int] | None) -> dict:
    """Run lengths of the mask in a file, which covers the box of its two points."""
    if size is None:
        raise UserError(f'{what} is a mask, but the file has no imageWidth and imageHeight: recreate it')
    try:
        with Image.open(io.BytesIO(base64.b64decode(shape.get('mask') or ''))) as image:
            inner = np.asarray(image) > 0
        (left, top), _ = ([round(value) for value in point] for point in points)
        whole = np.zeros(size[::-1], np.uint8, order='F')
        whole[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f'{what} has a mask that cannot be read or leaves the image: draw it again') from error
    encoded = run_lengths.encode(whole)
    return dict(encoded, counts=encoded['counts'].decode())
