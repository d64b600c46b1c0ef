"""Label files that training reads, written from what was found: COCO JSON, list files and class maps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

import numpy as np

from mogacore.coco_eval import mask as run_lengths
from mogacore.files import write_json, write_png, write_text

from . import masks
from .clean import area
from .found import SPLITS, Found, LabelledImage
from .listing import stem

BACKGROUND = 'background'
DECIMALS = 3  # of coordinates in px
MAP_FOLDER = 'maps'


@dataclass(frozen=True)
class Labels:
    """Where the labels and images of a split are; paths below the folder of the data, or absolute.

    Args:
        ann_file: COCO file or list of images; '' for class folders.
        images: Folder of the images.
        maps: Folder of the class maps.
        suffix: Suffix of the images in a list of images and maps.
    """

    ann_file: str
    images: str = ''
    maps: str = ''
    suffix: str = ''

    def moved(self, old: str, new: str) -> Labels:
        """The same with paths in another folder."""
        paths = dict(ann_file=self.ann_file, maps=self.maps)
        return replace(self, **{key: new + path[len(old) :] for key, path in paths.items() if path.startswith(old)})


def is_ready(found: Found) -> bool:
    """Whether training can read the files of the data as they are."""
    return all(split in found.ready for split in SPLITS if found.of(split))


def write(found: Found, task: str, out: Path) -> dict[str, Labels]:
    """Write the label files of every split that has images, if the files of the data cannot be used as they are.

    Args:
        found: The data, with a split of every image.
        task: The task.
        out: Folder to write to; not created if nothing is to be written.

    Returns:
        Split to its labels.
    """
    splits = [split for split in SPLITS if found.of(split)]
    if is_ready(found):
        return {split: Labels(*found.ready[split]) for split in splits}
    if task == 'segmentation':
        return _write_maps(found, splits, out)
    if task == 'classification':
        numbers = {name: number for number, name in enumerate(found.classes)}
        lines = {split: [f'{image.name} {numbers[str(image.label)]}' for image in found.of(split)] for split in splits}
        return {split: Labels(str(_write_list(out, split, lines[split]))) for split in splits}
    for split in splits:
        write_json(out / f'{split}.json', to_coco(found, found.of(split), task), indent=None)
    return {split: Labels(str(out / f'{split}.json')) for split in splits}


def to_coco(found: Found, images: list[LabelledImage], task: str) -> dict:
    """Content of a COCO file; names of images are paths below the folder of the data."""
    categories: list[dict] = [dict(id=number, name=name) for number, name in enumerate(found.classes, 1)]
    if task == 'pose':
        for category in categories:
            category['keypoints'] = found.keypoints
    ids = {category['name']: category['id'] for category in categories}
    content: dict = dict(images=[], annotations=[], categories=categories)
    for number, image in enumerate(images, 1):
        width, height = image.size
        content['images'].append(dict(id=number, file_name=image.name, width=width, height=height))
        for entry in image.objects:
            annotation = dict(
                id=len(content['annotations']) + 1,
                image_id=number,
                category_id=ids[entry['category']],
                bbox=_rounded(entry['bbox']),
                area=round(area(entry, task), DECIMALS),
                iscrowd=int(bool(entry.get('iscrowd'))),
            )
            if task == 'instance':
                mask = entry['segmentation']
                annotation['segmentation'] = [_rounded(part) for part in mask] if isinstance(mask, list) else mask
            if task == 'pose':
                annotation['keypoints'] = _rounded(entry['keypoints'])
                annotation['num_keypoints'] = sum(map(bool, entry['keypoints'][2::3]))
            content['annotations'].append(annotation)
    return content


def _rounded(values: Iterable[float]) -> list[float]:
    return [int(value) if value == int(value) else round(value, DECIMALS) for value in values]


def _write_list(out: Path, split: str, lines: Iterable[str]) -> Path:
    path = out / f'{split}.txt'
    write_text(path, '\n'.join(lines) + '\n')
    return path


def _write_maps(found: Found, splits: list[str], out: Path) -> dict[str, Labels]:
    """Write a list of images per split; and the maps, if they cannot be read as they are."""
    in_place = {} if found.rewrites_maps else {split: _common_folders(found.of(split)) for split in splits}
    if in_place and None not in in_place.values():
        labels = {}
        for split, folders in in_place.items():
            images, maps, suffix = folders or ('', '', '')
            names = [image.name[len(images) : -len(suffix)] for image in found.of(split)]
            labels[split] = Labels(str(_write_list(out, split, names)), images, maps, suffix)
        return labels
    for image in found.images:
        values = masks.read_indices(found, image) if image.label_map else draw_map(found, image)
        write_png(out / MAP_FOLDER / f'{image.name}.png', values)
    lists = {split: _write_list(out, split, [image.name for image in found.of(split)]) for split in splits}
    return {split: Labels(str(path), '', str(out / MAP_FOLDER)) for split, path in lists.items()}


def _common_folders(images: list[LabelledImage]) -> tuple[str, str, str] | None:
    """Folder of the images, of the maps, and suffix of the images; None unless paths below the folders are the same."""
    found = set()
    for image in images:
        if image.label_map is None:
            return None
        paths = stem(image.name).split('/'), stem(image.label_map).split('/')
        pairs = zip(reversed(paths[0]), reversed(paths[1]), strict=False)
        num_common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        if not num_common:
            return None
        above, above_map = (''.join(f'{part}/' for part in path[:-num_common]) for path in paths)
        found.add((above, above_map, image.name[len(stem(image.name)) :]))
    return found.pop() if len(found) == 1 else None


def draw_map(found: Found, image: LabelledImage) -> np.ndarray:
    """Class indices of the polygons of an image, (H, W) uint8: 0 is the background, smaller objects are on top."""
    width, height = image.size
    values = np.zeros((height, width), np.uint8)
    labels = {name: number for number, name in enumerate(found.classes)}
    for entry in sorted(image.objects, key=lambda entry: -area(entry, 'instance')):
        encoded = entry['segmentation']
        if isinstance(encoded, list):
            encoded = run_lengths.merge(run_lengths.frPyObjects(encoded, height, width))
        elif isinstance(encoded['counts'], list):
            encoded = run_lengths.frPyObjects(encoded, height, width)
        values[run_lengths.decode(encoded).astype(bool)] = labels[entry['category']]
    return values
