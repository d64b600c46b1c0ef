"""Checks that every COCO file must pass: its lists, fields, ids, boxes and image files."""

from __future__ import annotations

import gc
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mogacore.errors import UserError
from mogacore.files import read_file
from mogacore.text import show

from .common import check_files, explain_swap, ignores_orientation, read_size, times
from .report import Faults, Problems, Sample

ENTRIES = {
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id'),
    'categories': ('id', 'name'),
}
OPTIONAL = {'annotations': ('iscrowd', 'ignore', 'num_keypoints')}
# Field -> whether a value is valid, and what to use otherwise.
TYPES = {
    **dict.fromkeys(
        ('id', 'image_id', 'category_id'),
        # NaN differs from itself.
        (lambda value: isinstance(value, int | float | str) and value == value, 'use a number or text'),
    ),
    'num_keypoints': (lambda value: value is None or is_number(value), 'use a number, or remove the field'),
    **dict.fromkeys(('iscrowd', 'ignore'), (lambda value: value in (0, 1, None), 'use 0 for single objects')),
    'file_name': (lambda value: isinstance(value, str) and bool(value), 'use the path of the image as text'),
    'name': (lambda value: isinstance(value, str), 'use text'),
    **dict.fromkeys(('width', 'height'), (lambda value: _is_positive(value), 'use the number of pixels')),
}
OUTSIDE = 0.3  # share of boxes that end outside their image from which two corners are suspected
MIN_POLYGON = 6  # numbers
MAX_RUN_BITS = 60  # of a run length


def read_json(ann_file: Path, object_hook: Callable[[dict], Any] | None = None) -> Any:
    """Content of a JSON file.

    Args:
        ann_file: The file.
        object_hook: As in :func:`json.loads`.

    Raises:
        UserError: If it is a folder, cannot be read, or is nested too deeply.
    """
    if ann_file.is_dir():
        raise UserError(f'annotation file {ann_file} is a folder: set ann_file of the data set to the JSON file')
    is_enabled = gc.isenabled()
    gc.disable()  # it would search the growing content for cycles, which takes a third of the time
    try:
        return json.loads(read_file(ann_file).decode(), object_hook=object_hook)
    except (OSError, ValueError) as error:
        raise UserError(f'annotation file {ann_file} cannot be read as JSON ({error}): recreate it') from error
    except RecursionError:
        raise UserError(f'annotation file {ann_file} is nested too deeply: recreate it') from None
    finally:
        if is_enabled:
            gc.enable()


def read_coco(ann_file: Path, kinds: Mapping[str, Sequence[str]] = ENTRIES, may_be_empty: bool = False) -> dict:
    """Read a COCO file and check its lists, the required fields, their types, and that ids are unique.

    Args:
        ann_file: The file.
        kinds: Required lists, each with the required fields of its entries.
        may_be_empty: The file may have no annotations.

    Returns:
        The content; of masks, only what the checks read.

    Raises:
        UserError: For the first problem.
    """
    content = read_json(ann_file, _shorten_masks)
    if may_be_empty and isinstance(content, dict) and not content.get('annotations'):
        content['annotations'] = []
        kinds = {key: kinds[key] for key in kinds if key != 'annotations'}
    for key, required in kinds.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(
                f'{ann_file} is not a COCO file: it lacks the list {key!r}, required are {", ".join(kinds)}'
            )
        if not entries:
            raise UserError(f'{ann_file}: list {key!r} is empty: use a file with {key}')
        check_keys(entries, key, required, ann_file)
        for field in (field for field in (*required, *OPTIONAL.get(key, ())) if field in TYPES):
            is_valid, remedy = TYPES[field]
            bad = [entry for entry in entries if field in entry and not is_valid(entry[field])]
            if bad:
                problem = f'have the {field} {show(bad[0][field])}'
                refuse(bad, entries, ann_file, key, problem, remedy)
        entry_id, count = Counter(entry['id'] for entry in entries).most_common(1)[0]
        if count > 1:
            raise UserError(f'{ann_file}: {count} of the {key} have id {show(entry_id)}: give each a unique id')
    return content


def _shorten_masks(entry):
    """Keep what the checks read of the masks of an annotation, which would take most of the memory."""
    mask = entry.get('segmentation')
    if isinstance(mask, list):
        entry['segmentation'] = [_shorten_polygon(part) if isinstance(part, list) else part for part in mask]
    if isinstance(entry.get('counts'), list):  # of a run-length encoded mask
        entry['counts'] = _sum(entry['counts']) if all(map(_is_length, entry['counts'])) else math.nan
    return entry


def _shorten_polygon(part):
    """The first numbers of a polygon; None if it is not pairs of finite numbers."""
    return part[:MIN_POLYGON] if len(part) % 2 == 0 and is_number(_sum(part)) else None


def _is_length(value):
    return (isinstance(value, int) or (isinstance(value, float) and value.is_integer())) and value >= 0


def _sum(values):
    try:
        return sum(values)
    except (TypeError, OverflowError):  # the latter for a fraction and an integer beyond those of floats
        return math.nan


def check_keys(entries: Sequence[dict], kind: str, required: Iterable[str], ann_file: Path) -> None:
    """Raise UserError if entries of the list ``kind`` lack a required field."""
    for key in required:
        bad = [entry for entry in entries if key not in entry]
        refuse(bad, entries, ann_file, kind, f'lack {key!r}', 'add this field, the COCO format requires it')


def refuse(bad: Sequence[dict], entries: Sequence[dict], ann_file: Path, kind: str, problem: str, remedy: str) -> None:
    """Raise UserError if there are bad entries: names their number and the id of the first.

    Args:
        bad: Entries with the problem.
        entries: All entries of their list.
        ann_file: The file.
        kind: Name of the list, such as 'annotations'.
        problem: What is wrong, such as 'have a bbox that is not 4 numbers'.
        remedy: What to do.
    """
    if bad:
        first = f'the first has id {show(bad[0].get("id"))}'
        raise UserError(f'{ann_file}: {len(bad)} of {len(entries)} {kind} {problem}, {first}: {remedy}')


def check_annotations(content: dict, annotations: Sequence[dict], ann_file: Path) -> None:
    """Check the ids and boxes of annotations; categories and the sizes of images may be absent."""
    for key, kind, article in (('image_id', 'images', 'an'), ('category_id', 'categories', 'a')):
        if kind not in content:
            continue
        known = {entry['id'] for entry in content[kind]}
        bad = [annotation for annotation in content['annotations'] if annotation[key] not in known]
        if bad:
            problem = f'have {article} {key} that is not among the {kind} (such as {show(bad[0][key])})'
            remedy = f'add it to {kind}, or remove these annotations'
            refuse(bad, content['annotations'], ann_file, 'annotations', problem, remedy)
    bad = [annotation for annotation in annotations if not is_box(annotation['bbox'])]
    refuse(bad, annotations, ann_file, 'annotations', 'have a bbox that is not 4 numbers', 'use x, y, width, height')
    bad = [annotation for annotation in annotations if min(annotation['bbox'][2:]) < 0]
    problem, remedy = 'have a bbox of negative width or height', 'use x, y of the upper left corner, width, height'
    refuse(bad, annotations, ann_file, 'annotations', problem, remedy)
    if all('width' in image and 'height' in image for image in content['images']):
        _check_box_format(content, annotations, ann_file)


def _check_box_format(content, annotations, ann_file):
    """Recognize boxes of two corners: all are valid as such, while many end outside their image as x, y, w, h."""
    sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
    boxes = [(entry, entry['bbox'], sizes[entry['image_id']]) for entry in annotations]
    if not all(
        x <= third <= width + 1 and y <= fourth <= height + 1 for _, (x, y, third, fourth), (width, height) in boxes
    ):
        return
    bad = [entry for entry, (x, y, w, h), (width, height) in boxes if x + w > width + 1 or y + h > height + 1]
    if len(bad) > OUTSIDE * len(annotations):
        problem = f'have a bbox that ends outside the image, such as {show(bad[0]["bbox"])}'
        remedy = 'it looks like x1, y1, x2, y2, convert all boxes to x, y, width, height'
        refuse(bad, annotations, ann_file, 'annotations', problem, remedy)


def is_box(box: Any) -> bool:
    """Whether a value is a list of four finite numbers."""
    return isinstance(box, list) and len(box) == 4 and all(map(is_number, box))


def is_number(value: Any) -> bool:
    """Whether a value is a number that is finite as a float."""
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:
        return False


def _is_positive(value):
    return is_number(value) and value > 0


def loads_masks(value: Any) -> bool:
    """Whether a pipeline, or one that a step of it holds, loads masks."""
    if isinstance(value, Mapping):
        return bool(value.get('with_mask')) or loads_masks(value.values())
    return not isinstance(value, str) and isinstance(value, Iterable) and any(map(loads_masks, value))


def check_masks(content: dict, annotations: Sequence[dict], ann_file: Path) -> None:
    """Check that every annotation has a mask: polygons, or run lengths of the size of its image, not decoded."""
    sizes = {image['id']: [image['height'], image['width']] for image in content['images']}
    faults = [_find_mask_fault(entry.get('segmentation'), sizes[entry['image_id']]) for entry in annotations]
    if first := next(filter(None, faults), None):
        bad = [entry for entry, fault in zip(annotations, faults, strict=True) if fault == first]
        refuse(bad, annotations, ann_file, 'annotations', *first)


def check_encoded_masks(annotations: Sequence[dict], ann_file: Path, sample: Sample) -> None:
    """Decode compressed run lengths, which takes longer than the other checks of masks."""
    masks = [(index, entry.get('segmentation')) for index, entry in enumerate(annotations)]
    encoded = [(index, mask) for index, mask in masks if _is_encoded(mask)]
    bad = sorted(
        index for index, mask in sample.of(encoded) if _count_pixels(mask['counts']) != math.prod(mask['size'])
    )
    problem = 'have a mask that is not a valid run-length encoding of its size'
    remedy = 'recreate it, for example with pycocotools.mask.encode'
    refuse([annotations[index] for index in bad], annotations, ann_file, 'annotations', problem, remedy)


def _is_encoded(mask):
    """Whether a mask has compressed run lengths and a size, which check_masks compares with that of the image."""
    if not isinstance(mask, dict) or not isinstance(mask.get('counts'), str):
        return False
    return isinstance(mask.get('size'), list) and all(map(is_number, mask['size']))


def _count_pixels(counts):
    """Sum of compressed run lengths; None if they are malformed.

    A character holds five bits, and a sixth that is set if more characters of the number follow. From the fourth
    number on, each is the difference to the one two before it.

    Source: rleFrString of pycocotools.
    """
    runs: list[int] = []
    number = shift = 0
    for code in map(ord, counts):
        bits = code - 48
        if not 0 <= bits < 64 or shift > MAX_RUN_BITS:
            return None
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    return None if shift or min(runs, default=0) < 0 else sum(runs)


def check_scored_images(ann_files: Sequence[Path], scored: Path) -> None:
    """Check that the annotation file of an evaluator has every image of the data sets that it scores."""
    if all(os.path.samefile(ann_file, scored) for ann_file in ann_files):
        return
    known = {image['id'] for image in read_coco(scored)['images']}
    for ann_file in ann_files:
        images = read_coco(ann_file, may_be_empty=True)['images']
        bad = [image for image in images if image['id'] not in known]
        problem = f'are absent from {scored}, the ann_file of the evaluator'
        refuse(bad, images, ann_file, 'images', problem, 'set both to the same file, or omit that of the evaluator')


def check_ids(content: dict, ann_file: Path) -> None:
    """COCO's classes need whole numbers: they convert ids of images, but not those in annotations."""
    for kind in ('images', 'annotations'):
        bad = [entry for entry in content[kind] if entry['id'] != _whole(entry['id'])]
        refuse(bad, content[kind], ann_file, kind, 'have an id that is not a whole number', f'number the {kind}')


def _whole(value):
    return int(value) if isinstance(value, int | float) and is_number(value) else None


def check_image_prefix(prefix: Mapping | None) -> None:
    """Raise UserError if the ``data_prefix`` of a data set has no folder of images."""
    if not prefix or prefix.get('img') is None:
        raise UserError(
            "data_prefix of the data set has no img: set data_prefix=dict(img='FOLDER/') to the folder of the images "
            'below data_root'
        )


def check_objects(annotations: Sequence[dict], ann_file: Path) -> None:
    """Check the areas, and that some objects can be learned: others are ignored in training."""
    bad = [entry for entry in annotations if 'area' in entry and not is_number(entry['area'])]
    if bad:
        problem = f'have the area {show(bad[0]["area"])}'
        refuse(bad, annotations, ann_file, 'annotations', problem, 'use the number of pixels, or remove the field')
    if not annotations:
        return
    if all(entry.get('iscrowd') or entry.get('ignore') for entry in annotations):
        raise UserError(
            f'{ann_file}: all {len(annotations)} annotations have iscrowd or ignore, so that all are ignored: set both '
            'to 0 for single objects'
        )
    if not any(min(entry['bbox'][2:]) >= 1 for entry in annotations):
        raise UserError(
            f'{ann_file}: no annotation has a bbox of 1 px or more, so that all are ignored: use x, y, width, height '
            'in pixels, not as fractions of the image'
        )


def _find_mask_fault(segmentation, size):
    """Problem of a mask and its fix, or None if the mask is valid."""
    if not segmentation:
        remedy = "add it, or use a model without masks; to test only boxes, set with_mask=False and metric='bbox'"
        return 'lack the segmentation that the pipeline loads (with_mask)', remedy
    if isinstance(segmentation, dict):
        if segmentation.get('size') != size:
            return (
                'have a mask whose size differs from that of the image',
                'set its size to [height, width] of the image',
            )
        counts = segmentation.get('counts')
        if isinstance(counts, str) or counts == size[0] * size[1]:
            return None
        return 'have a mask whose counts do not add up to its pixels', 'use run lengths of all pixels, column by column'
    if not isinstance(segmentation, list):
        return 'have a segmentation that is not a list or object', 'use polygons, or run lengths with their size'
    if None in segmentation:
        return 'have a polygon that is not pairs of numbers', 'use x1, y1, x2, y2, x3, y3, ...'
    # mmdet drops shorter polygons, and ignores the object if none is left.
    fault = 'have no polygon of 6 or more numbers', 'use x1, y1, x2, y2, x3, y3, ... or remove these annotations'
    return None if any(isinstance(part, list) and len(part) >= MIN_POLYGON for part in segmentation) else fault


def check_images(
    dataset: Mapping, images: Sequence[dict], folder: Path, ann_file: Path, sample: Sample, problems: Problems
) -> None:
    """Check that the images exist, and that those of a sample can be read and have the size that the file states.

    Args:
        dataset: Config of the data set.
        images: Entries of the list of images.
        folder: Folder of the images.
        ann_file: The file that lists them.
        sample: Which images to read.
        problems: Gets the problems of the images that are read.

    Raises:
        UserError: If an image is missing.
    """
    check_files([image['file_name'] for image in images], folder, f'images of {ann_file}', 'data_prefix.img')
    faults, ignores = Faults(), ignores_orientation(dataset)
    for index, image in sample.of(list(enumerate(images))):
        path, size = folder / image['file_name'], (image['width'], image['height'])
        try:
            actual, orientation = read_size(path, ignores)
        except UserError as error:
            faults.add('unreadable', index, str(error))
            continue
        if actual != size:
            problem = f'image {path} is {times(actual)} px (width x height), but {times(size)} in {ann_file}'
            swap = explain_swap(actual, size, orientation, ignores)
            faults.add('size', index, f'{problem}: {swap}correct the annotation file, including boxes and masks')
    faults.report(problems)
