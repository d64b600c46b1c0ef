"""Counts and distributions of the records of a split, for each task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.registry import TRANSFORMS

from mogacore.datasets.checks import Sample
from mogacore.datasets.checks.coco_files import is_box, read_coco
from mogacore.datasets.checks.common import read_size
from mogacore.datasets.checks.maps import IGNORED
from mogacore.datasets.sequences import SequenceDataset
from mogacore.errors import UserError

from .records import Images, Records, walk

# Limits of the areas of COCO's small, medium and large objects, in square pixels.
SMALL, LARGE = 32**2, 96**2
QUANTILES = {'min': 0, '5%': 0.05, '25%': 0.25, 'median': 0.5, '75%': 0.75, '95%': 0.95, 'max': 1}
NUM_SIZES = 5  # most frequent image sizes that are listed
Arrays = dict[str, np.ndarray]


def collect(records: list[Records], images: Images, sample: Sample) -> tuple[dict, Arrays]:
    """Statistics of the records of a split as JSON values, and the arrays for its pictures.

    Args:
        records: See :func:`mogacore.analysis.stats.records.read_records`.
        images: The distinct images of these.
        sample: How many files to read, for the sizes of images and the pixels of class maps.
    """
    first = next(walk(records), {})
    if isinstance(records[0].dataset, SequenceDataset):
        return _sequences(records, sample), {}
    report: dict = {'images': len(images), 'left_out': sum(part.num_loaded - len(part.items) for part in records)}
    names = list(records[0].dataset.metainfo.get('classes') or ())
    arrays: Arrays = {}
    if 'instances' in first:
        report |= _objects(records, names, arrays)
    elif 'seg_map_path' in first:
        report |= _maps(records, names, sample)
    elif 'keypoints' in first:
        report |= _poses(records, images, arrays)
    elif 'gt_label' in first:
        report |= _labels(records, names)
    report['image_sizes'] = _image_sizes(images, sample, arrays)
    return report, arrays


def distribution(values: np.ndarray) -> dict[str, float]:
    """Quantiles and mean of values; empty without values."""
    if not len(values):
        return {}
    found = {name: float(np.quantile(values, share)) for name, share in QUANTILES.items()}
    return {name: round(value, 4) for name, value in (found | {'mean': float(np.mean(values))}).items()}


def _rows(names: Sequence[str], counts: Mapping[str, Sequence[int] | np.ndarray]) -> list[dict]:
    """One row per class, with the numbers of images, objects or pixels."""
    length = max([len(names), *map(len, counts.values())])
    return [
        dict(
            name=names[label] if label < len(names) else str(label),
            **{key: int(values[label]) for key, values in counts.items()},
        )
        for label in range(length)
    ]


def _labels(records: list[Records], names: Sequence[str]) -> dict:
    """Image classification; an image may have several labels."""
    labels = [np.atleast_1d(np.asarray(item['gt_label'], int)) for item in walk(records)]
    counts = np.bincount(np.concatenate(labels), minlength=len(names))
    report = dict(task='classification', classes=_rows(names, {'images': counts}))
    per_image = Counter(map(len, labels))
    return report if set(per_image) == {1} else report | dict(labels_per_image=_sorted(per_image))


def _sorted(counts: Counter) -> dict[str, int]:
    return {str(number): counts[number] for number in sorted(counts)}


def _objects(records: list[Records], names: Sequence[str], arrays: Arrays) -> dict:
    """Detection and instance segmentation; regions of crowds are counted apart."""
    boxes: list[list[float]] = []
    labels: list[int] = []
    images: Counter[int] = Counter()
    per_image: Counter[int] = Counter()
    crowd = 0
    for item in walk(records):
        objects = [entry for entry in item['instances'] if not entry.get('ignore_flag')]
        crowd += len(item['instances']) - len(objects)
        boxes += [entry['bbox'] for entry in objects]
        labels += [entry['bbox_label'] for entry in objects]
        images.update({entry['bbox_label'] for entry in objects})
        per_image[len(objects)] += 1
    counts = np.bincount(np.array(labels, int), minlength=len(names))
    rows = _rows(names, {'objects': counts, 'images': [images[label] for label in range(len(counts))]})
    report = dict(task='detection', objects=len(boxes), classes=rows, objects_per_image=_sorted(per_image))
    return report | dict(boxes=_boxes(boxes, arrays) | dict(crowd=crowd) | _dropped(records))


def _boxes(corners: Iterable, arrays: Arrays) -> dict:
    """Sizes of boxes x1, y1, x2, y2."""
    corners = np.array(list(corners), np.float64).reshape(-1, 4)
    width, height = (corners[:, 2:] - corners[:, :2]).T
    area = width * height
    arrays |= dict(box_width=width, box_height=height)
    aspect = width[height > 0] / height[height > 0]
    return dict(
        small=int((area < SMALL).sum()),
        medium=int(((area >= SMALL) & (area < LARGE)).sum()),
        large=int((area >= LARGE).sum()),
        width=distribution(width),
        height=distribution(height),
        side=distribution(np.sqrt(area)),
        aspect=distribution(aspect),
    )


def _dropped(records: list[Records]) -> dict[str, int]:
    """Boxes in the annotation files below 1 px, or completely outside their image; training ignores both."""
    below = outside = 0
    for part in records:
        if not part.settings.get('ann_file'):
            continue
        content = read_coco(part.root / part.settings['ann_file'], may_be_empty=True)
        sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
        for entry in content['annotations']:
            if not is_box(entry.get('bbox')) or entry['image_id'] not in sizes:
                continue
            x, y, width, height = entry['bbox']
            below += width < 1 or height < 1
            outside += (
                x >= sizes[entry['image_id']][0]
                or y >= sizes[entry['image_id']][1]
                or x + width <= 0
                or y + height <= 0
            )
    return dict(below_1px=below, outside=outside)


def _maps(records: list[Records], names: Sequence[str], sample: Sample) -> dict:
    """Semantic segmentation: pixels by class, as the loading step of the pipeline gives them."""
    pixels: np.ndarray = np.zeros(IGNORED + 1, int)
    images: Counter[int] = Counter()
    per_image: Counter[int] = Counter()
    read = ignored = 0
    for part in records:
        steps = part.settings.get('pipeline') or ()
        load = next((step for step in steps if 'LoadAnnotations' in str(step['type'])), dict(type='LoadAnnotations'))
        transform: Any = TRANSFORMS.build(load)
        for item in sample.of(part.items):
            values = transform(dict(item))['gt_seg_map']
            counts = np.bincount(values.ravel(), minlength=IGNORED + 1)
            found = [label for label in np.flatnonzero(counts).tolist() if label != IGNORED or len(names) > IGNORED]
            images.update(found)
            per_image[len(found)] += 1
            pixels = pixels + counts[: IGNORED + 1]
            read += 1
    if len(names) <= IGNORED:
        ignored, pixels[IGNORED] = int(pixels[IGNORED]), 0
    pixels = pixels[: max(len(names), int(np.flatnonzero(pixels).max(initial=-1)) + 1)]
    rows = _rows(names, {'pixels': pixels, 'images': [images[label] for label in range(len(pixels))]})
    return dict(
        task='segmentation', maps_read=read, classes=rows, classes_per_image=_sorted(per_image),
        ignored_pixels=ignored, ignored_share=round(ignored / max(ignored + int(pixels.sum()), 1), 4),
    )  # fmt: skip


def _poses(records: list[Records], images: Images, arrays: Arrays) -> dict:
    """Pose estimation, and 3D hands: labeled keypoints, objects per image, boxes."""
    names = records[0].dataset.metainfo['keypoint_id2name']
    labeled: np.ndarray = np.zeros(len(names), int)
    boxes: list[list[float]] = []
    hands: Counter[str] = Counter()
    per_image: Counter[str] = Counter()
    for item in walk(records):
        if 'keypoints' not in item:  # an image without objects
            continue
        visible = np.asarray(item['keypoints_visible']).reshape(len(item['keypoints']), len(names), -1)[..., 0] > 0
        labeled += visible.sum(0)
        boxes += np.asarray(item['bbox']).reshape(-1, 4).tolist()
        per_image[str(item.get('img_path'))] += len(visible)
        for right, left in np.asarray(item.get('hand_type', np.zeros((0, 2)))).reshape(-1, 2):
            hands['both' if right and left else 'right' if right else 'left'] += 1
    total = sum(per_image.values())
    report = dict(
        task='pose',
        objects=total,
        objects_per_image=_sorted(Counter(per_image[path] for path in images.files)),
        keypoints=[dict(name=names[number], labeled=int(count)) for number, count in enumerate(labeled)],
        boxes=_boxes(boxes, arrays),
    )
    return report | (dict(hands=dict(hands)) if hands else {})


def _sequences(records: list[Records], sample: Sample) -> dict:
    """Video prediction: number, length, size and values of the sequences."""
    data = records[0].dataset
    number = sum(len(part.items) for part in records)
    report = dict(
        task='video prediction',
        sequences=number,
        inputs=data.num_inputs,
        targets=data.num_targets,
        is_generated=data.is_generated,
    )
    means, stds = [], []
    shapes: Counter[tuple[int, ...]] = Counter()
    for part in records:
        items = part.items[:1] if part.dataset.is_generated else part.items
        for item in sample.of(items):
            frames = np.asarray(part.dataset.read_frames(item))
            frames = frames / 255 if frames.dtype == np.uint8 else frames
            means.append(frames.mean())
            stds.append(frames.std())
            shapes[frames.shape[1:]] += 1
    common = [
        dict(height=h, width=w, channels=c, sequences=count) for (h, w, c), count in shapes.most_common(NUM_SIZES)
    ]
    return report | dict(
        read=len(means), frame_sizes=common, mean=distribution(np.array(means)), std=distribution(np.array(stds))
    )


def _image_sizes(images: Images, sample: Sample, arrays: Arrays) -> dict:
    sizes = [(array.shape[1], array.shape[0]) for array in images.arrays]
    unreadable = 0
    for path, ignores in sample.of(list(images.files.items())):
        if path in images.sizes:
            sizes.append(images.sizes[path])
            continue
        try:
            sizes.append(read_size(path, ignores)[0])
        except UserError:  # the checks report it
            unreadable += 1
    width, height = np.array(sizes, np.float64).reshape(-1, 2).T
    arrays |= dict(width=width, height=height)
    common = [
        dict(width=int(w), height=int(h), images=count) for (w, h), count in Counter(sizes).most_common(NUM_SIZES)
    ]
    return dict(
        read=len(sizes), unreadable=unreadable, width=distribution(width), height=distribution(height),
        aspect=distribution(width / height), common=common,
    )  # fmt: skip
