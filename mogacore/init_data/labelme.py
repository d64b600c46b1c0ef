"""LabelMe JSON: a file of shapes per image."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from mogacore import images
from mogacore.coco_eval import mask as run_lengths
from mogacore.datasets.checks.coco_files import is_number
from mogacore.errors import UserError

from .found import Found, LabelledImage
from .listing import Listing, split_of, stem

NAME = 'LabelMe JSON'
WITHOUT_AREA = ('point', 'line', 'linestrip', 'points')
POSE_LAYOUT = (
    'a keypoint is a point whose label is its name, with the group_id of the rectangle or polygon of its object, in '
    'which each name occurs once'
)
CIRCLE_CORNERS = 32  # of the polygon that stands for a circle


def recognizes(listing: Listing, task: str) -> bool:
    """Whether the folder has files with shapes."""
    return any(_is_labelme(content) for content in listing.contents.values())


def _is_labelme(content: Any) -> bool:
    return isinstance(content, dict) and 'shapes' in content


def read(listing: Listing, task: str) -> Found:
    """Read the file of every image.

    For pose, a keypoint is a point whose label is its name; it belongs to the rectangle, polygon, circle or mask of the
    same ``group_id``, or to the only one of the image. A flag ``occluded`` makes it one that is not visible.

    Raises:
        UserError: If the task is pose, and there are no points.
    """
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
            read_objects = _read_poses if task == 'pose' else _read_shapes
            objects = read_objects(content['shapes'], path, found, recorded)
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
    if task == 'pose':
        _collect_keypoints(found)
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


def _read_shapes(shapes: Any, path: Any, found: Found, size: tuple[int, int] | None) -> list[dict]:
    """Annotations of the shapes; those with the same label and group become one."""
    groups: dict[Any, dict] = {}
    for number, kind, shape, what in _checked(shapes, path):
        if kind in WITHOUT_AREA:
            found.note(kind, f'{what} is a {kind}, which has no area, and is left out')
            continue
        group = shape.get('group_id')
        _join(groups, number if group is None else (shape['label'], group), kind, shape, what, size)
    return list(groups.values())


def _checked(shapes: Any, path: Any) -> Iterator[tuple[int, str, dict, str]]:
    """Number, kind and content of each shape, and how messages name it; the label and the points are valid."""
    if not isinstance(shapes, list):
        raise UserError(f'{path}: shapes is not a list: recreate the file')
    for number, shape in enumerate(shapes, 1):
        what = f'{path}: shape {number}'
        label = shape.get('label') if isinstance(shape, dict) else None
        if not isinstance(label, str) or not label:
            raise UserError(f'{what} has no label: correct it')
        points = shape.get('points')
        if not isinstance(points, list) or not all(_is_point(point) for point in points):
            raise UserError(f'{what} ({label}) has points that are not pairs of numbers: correct it')
        kind, group = shape.get('shape_type') or 'polygon', shape.get('group_id')
        if not isinstance(kind, str) or not isinstance(group, int | str | None):
            raise UserError(
                f'{what} ({label}) has a shape_type that is not text, or a group_id that is not a number: correct it'
            )
        yield number, kind, shape, f'{what} ({label})'


def _join(groups: dict, key: Any, kind: str, shape: dict, what: str, size: tuple[int, int] | None) -> None:
    """Add the area of a shape to the object ``key``, or start it."""
    annotation = _to_annotation(kind, shape, what, size)
    first = groups.setdefault(key, dict(annotation, category=shape['label']))
    if first['segmentation'] is annotation['segmentation']:
        return
    if not isinstance(first['segmentation'], list) or not isinstance(annotation['segmentation'], list):
        raise UserError(f'{what} joins a mask to a group: draw the object as polygons or one mask')
    first['segmentation'] = first['segmentation'] + annotation['segmentation']


def _read_poses(shapes: Any, path: Any, found: Found, size: tuple[int, int] | None) -> list[dict]:
    """Objects with their keypoints: name to x, y and visibility."""
    objects: dict[Any, dict] = {}
    points = []
    for number, kind, shape, what in _checked(shapes, path):
        group = shape.get('group_id')
        if kind == 'point' and len(shape['points']) == 1:
            points.append((group, shape, what))
        elif kind in WITHOUT_AREA:
            found.note(kind, f'{what} is a {kind}, neither a point nor an area, and is left out')
        else:
            key = f'shape {number}' if group is None else group
            if key in objects and objects[key]['category'] != shape['label']:
                other = objects[key]['category']
                raise UserError(f'{what} has the group_id {group} of object {other}: give each object its own')
            _join(objects, key, kind, shape, what, size)
    for entry in objects.values():
        entry['keypoints'] = {}
    for group, shape, what in points:
        if group is None and len(objects) != 1:
            raise UserError(f'{what} has no group_id, and the image has {len(objects)} objects: {POSE_LAYOUT}')
        if group is not None and group not in objects:
            raise UserError(f'{what} has group_id {group}, but no rectangle or polygon has it: {POSE_LAYOUT}')
        keypoints = (objects[group] if group is not None else next(iter(objects.values())))['keypoints']
        if shape['label'] in keypoints:
            raise UserError(f'{what} is there twice in an object: {POSE_LAYOUT}')
        flags = shape.get('flags')
        is_occluded = isinstance(flags, dict) and flags.get('occluded')
        keypoints[shape['label']] = [*shape['points'][0], 1 if is_occluded else 2]
    return list(objects.values())


def _collect_keypoints(found: Found) -> None:
    """Collect the names of the keypoints in the order of the files; make their coordinates lists in that order.

    Raises:
        UserError: If there are none.
    """
    objects = [entry for image in found.images for entry in image.objects]
    found.keypoints = list(dict.fromkeys(name for entry in objects for name in entry['keypoints']))
    if not found.keypoints and not found.problems:
        raise UserError(f'{NAME} files of {found.folder} have no points, which --task pose needs: {POSE_LAYOUT}')
    for entry in objects:
        named = entry['keypoints']
        entry['keypoints'] = [value for name in found.keypoints for value in named.get(name, (0, 0, 0))]


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(map(is_number, point))


def _to_annotation(kind: str, shape: dict, what: str, size: tuple[int, int] | None) -> dict:
    """Mask of a shape."""
    points = shape['points']
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
    raise UserError(f'{what} is a {kind} of {len(points)} points: use rectangle, polygon or circle')


def _decode_mask(points: list, shape: dict, what: str, size: tuple[int, int] | None) -> dict:
    """Run lengths of the mask in a file, which covers the box of its two points."""
    if size is None:
        raise UserError(f'{what} is a mask, but the file has no imageWidth and imageHeight: recreate it')
    try:
        images.check_size(*size)
        with images.open_header(io.BytesIO(base64.b64decode(shape.get('mask') or ''))) as image:
            images.check_size(*image.size)
            inner = np.asarray(image) > 0
        (left, top), _ = ([round(value) for value in point] for point in points)
        whole = np.zeros(size[::-1], np.uint8, order='F')
        whole[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    except Exception as error:  # PIL raises errors of many types for corrupt files
        raise UserError(f'{what} has a mask that cannot be read or leaves the image: draw it again') from error
    encoded = run_lengths.encode(whole)
    return dict(encoded, counts=encoded['counts'].decode())
