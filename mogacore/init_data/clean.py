"""Checks of the images and objects that were found, in pixels of the images as they are shown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mogacore.coco_eval import mask as run_lengths
from mogacore.datasets.checks.common import read_size, times
from mogacore.errors import UserError
from mogacore.text import shorten

from . import masks, yolo
from .found import Found, LabelledImage, progress

MIN_SIDE = 1e-3  # px, below which a box has no area
MAX_OUTSIDE = 1.0  # px, which rounding explains
MIN_POLYGON = 6  # numbers
# Share of the box of COCO's persons that their mask covers, which scales the tolerance of keypoints.
KEYPOINT_AREA = 0.53


def clean(found: Found, task: str, classes: Sequence[str] | None = None) -> None:
    """Read the size of every image; check, clip and select its objects. Changes ``found``.

    Coordinates belong to the image as viewers, label tools and mogacore show it, after its EXIF orientation. Boxes and
    polygons are clipped to the image; objects without area, repeated ones and those of unused classes are left out.

    Args:
        found: What a reader found.
        task: The task.
        classes: Names of the classes to use; None for all that have objects.
    """
    kept = []
    for image in progress(found.images, 'reading images'):
        try:
            image.size, orientation = read_size(found.folder / image.name, ignore_orientation=False)
        except UserError as error:
            found.problems.add(str(error))
            continue
        kept.append(image)
        if image.recorded not in (None, image.size):
            _report_size(found, image, orientation)
    found.images = kept
    _select_classes(found, task, classes)
    if task in ('detection', 'instance', 'segmentation', 'pose') and found.format == yolo.NAME:
        for image in found.images:
            yolo.to_pixels(image)
    changed = set()
    for image in found.images:
        before = len(image.objects)
        is_clipped = [_clean_object(found, image, entry, task) for entry in image.objects]
        image.objects = _distinct(found, image, task)
        if any(is_clipped) or len(image.objects) != before:
            changed.add(image.split)
    if changed:
        found.ready = {}
    if task in ('detection', 'instance', 'pose') and not found.problems:
        _count_objects(found)


def _report_size(found: Found, image: LabelledImage, orientation: int) -> None:
    assert image.recorded is not None
    where = found.folder / image.name
    swapped = image.recorded == image.size[::-1] and orientation >= 5
    shown = f' as it is shown (EXIF orientation {orientation})' if swapped else ''
    remedy = (
        'label it as it is shown, or remove the orientation from the image'
        if swapped
        else 'correct the labels or replace the image'
    )
    found.problems.add(
        f'image {where} is {times(image.size)} px (width x height){shown}, but {times(image.recorded)} in '
        f'{image.source}: {remedy}'
    )


def _select_classes(found: Found, task: str, classes: Sequence[str] | None) -> None:
    """Keep the objects of the wanted classes only."""
    if found.format == masks.NAME:
        if classes is not None and len(classes) < len(found.classes):
            raise UserError(
                f'--classes has {len(classes)} names, but the maps have {len(found.classes)} values: name all'
            )
        found.classes = list(classes or found.classes)
        return
    counts = found.count()
    if classes is None:
        unused = [name for name in found.classes if not counts.get(name)]
        found.classes = [name for name in found.classes if counts.get(name)]
        if unused and found.classes:
            found.notes.add(f'class {shorten(unused)} has no objects and is left out (--classes keeps it)')
        return
    if unknown := [name for name in classes if name not in found.classes]:
        raise UserError(f'--classes has {shorten(unknown)}, but the data have {shorten(found.classes)}: correct it')
    if others := [name for name in found.classes if name not in classes and counts.get(name)]:
        found.notes.add(f'class {shorten(others)} is left out, since --classes does not have it')
        found.ready = {}
    found.classes = list(classes)
    if task == 'classification':
        found.images = [image for image in found.images if image.label in classes]
    for image in found.images:
        image.objects = [entry for entry in image.objects if entry['category'] in classes]


def _clean_object(found: Found, image: LabelledImage, entry: dict, task: str) -> bool:
    """Clip an object to its image, add what COCO files need, and return whether it is clipped by more than rounding."""
    width, height = image.size
    mask = entry.get('segmentation')
    outside = 0.0
    if isinstance(mask, list) and task not in ('detection', 'pose'):
        polygons = [part for part in mask if len(part) >= MIN_POLYGON]
        clipped = [_clip_points(part, image.size) for part in polygons]
        outside = max((abs(a - b) for new, old in zip(clipped, polygons, strict=True)
                       for a, b in zip(new, old, strict=True)), default=0.0)  # fmt: skip
        entry['segmentation'] = clipped
        if 'bbox' not in entry or outside > MAX_OUTSIDE:
            entry['bbox'] = _box_around(clipped)
    elif 'bbox' not in entry:
        entry['bbox'] = _box_of_mask(mask)
    x, y, box_width, box_height = entry['bbox']
    left, top = min(max(x, 0), width), min(max(y, 0), height)
    right, bottom = min(max(x + box_width, 0), width), min(max(y + box_height, 0), height)
    outside = max(outside, left - x, top - y, x + box_width - right, y + box_height - bottom)
    if outside > MAX_OUTSIDE:
        found.note(
            'outside',
            f'{image.source}: object {entry["category"]} leaves image {image.name} by {outside:.0f} px and is clipped',
        )
    if outside > 0:
        entry['bbox'] = [left, top, right - left, bottom - top]
    return outside > MAX_OUTSIDE


def _clip_points(part: list[float], size: tuple[int, int]) -> list[float]:
    return [min(max(value, 0), size[index % 2]) for index, value in enumerate(part)]


def _box_around(polygons: list[list[float]]) -> list[float]:
    xs = [value for part in polygons for value in part[::2]]
    ys = [value for part in polygons for value in part[1::2]]
    if not xs:
        return [0, 0, 0, 0]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _box_of_mask(mask: dict | list | None) -> list[float]:
    if isinstance(mask, list):
        return _box_around(mask)
    if mask is None:
        return [0, 0, 0, 0]
    return [float(value) for value in run_lengths.toBbox(dict(mask, counts=mask['counts'].encode()))]


def _distinct(found: Found, image: LabelledImage, task: str) -> list[dict]:
    """The objects of an image that have an area, each once."""
    kept: list[dict] = []
    for entry in image.objects:
        if min(entry['bbox'][2:]) < MIN_SIDE:
            found.note('area', f'{image.source}: object {entry["category"]} has no area in the image and is left out')
        elif task == 'pose' and not any(entry['keypoints'][2::3]):
            found.note('no point', f'{image.source}: object {entry["category"]} has no labeled keypoint, left out')
        elif entry in kept:
            found.note('repeated', f'{image.source}: object {entry["category"]} is there twice and is left out once')
        else:
            kept.append(entry)
    return kept


def _count_objects(found: Found) -> None:
    total = sum(len(image.objects) for image in found.images)
    if not total:
        found.problems.add(f'folder {found.folder}: no image has a labeled object: label some')
    if empty := [image.name for image in found.images if not image.objects]:
        found.notes.add(f'images without objects: {len(empty)}, the first is {empty[0]}; they are used as background')


def area(entry: dict, task: str) -> float:
    """Area of an object in px: of its mask if the task has masks, or else of its box; for keypoints, 0.53 times it."""
    if 'area' in entry:
        return entry['area']
    mask = entry.get('segmentation')
    if task == 'instance' and isinstance(mask, list):
        return sum(abs(_signed_area(part)) for part in mask)
    width, height = entry['bbox'][2:]
    if task == 'instance' and isinstance(mask, dict):
        if isinstance(mask['counts'], list):
            return float(sum(mask['counts'][1::2]))
        return float(run_lengths.area(dict(mask, counts=mask['counts'].encode())))
    return width * height * (KEYPOINT_AREA if task == 'pose' else 1)


def _signed_area(part: list[float]) -> float:
    xs, ys = part[::2], part[1::2]
    return math.fsum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs))) / 2
