"""Made-up data of the size of ImageNet, COCO and ADE20K, to time pipelines where the data of a config are absent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import ConfigDict

from mogacore.files import write_json
from mogacore.libraries import find_class
from mogacore.text import type_name

QUALITY = 92
# Height and width of the median image of ImageNet and ADE20K, and of the usual one of COCO.
SIZES = {'mmpretrain': (375, 500), 'mmdet': (480, 640), 'mmpose': (480, 640), 'mmseg': (512, 683)}
NUM_OBJECTS = {'mmdet': 7, 'mmpose': 2}  # per image, about as many as in COCO
NUM_REGIONS = 10  # of a class map
NUM_VERTICES = 24  # of a polygon


def make_up(dataset: ConfigDict, scope: str, number: int, folder: Path) -> str:
    """Write images and annotations, and let a data set read them.

    Args:
        dataset: Config of a leaf data set, changed in place.
        scope: 'mmdet', 'mmseg' or 'mmpose'.
        number: Number of images.
        folder: Folder for the files.

    Returns:
        What was made up.
    """
    generator = np.random.default_rng(0)
    height, width = SIZES[scope]
    files = write_photos(folder / 'images', number, SIZES[scope])
    dataset.data_root = str(folder)
    if scope == 'mmseg':
        _write_maps(dataset, files, folder / 'maps', generator)
        return f'{number} made-up photos and class maps of {width} x {height} px'
    annotations = [
        _object(dataset, scope, len(files) * copy + image, image, generator)
        for image in range(len(files))
        for copy in range(NUM_OBJECTS[scope])
    ]
    names = _class_names(dataset, scope)
    content = dict(
        images=[dict(id=i, file_name=path.name, height=height, width=width) for i, path in enumerate(files)],
        annotations=annotations,
        categories=[dict(id=i, name=name) for i, name in enumerate(names)],
    )
    write_json(folder / 'annotations.json', content)
    dataset.update(ann_file='annotations.json', data_prefix=dict(img='images/'))
    return f'{number} made-up photos of {width} x {height} px with {NUM_OBJECTS[scope]} objects each'


def write_photos(folder: Path, number: int, size: tuple[int, int]) -> list[Path]:
    """Write JPEG files of smooth color fields with noise, about as large as photos of this size (height, width)."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    files = []
    for index in range(number):
        coarse = generator.integers(0, 256, (24, 32, 3), np.uint8)
        image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
        image = np.clip(image + generator.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
        files.append(folder / f'{index:06}.jpg')
        cv2.imwrite(str(files[-1]), image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return files


def _class_names(dataset: ConfigDict, scope: str) -> Sequence[str]:
    if scope == 'mmpose':
        return ['person']
    given = (dataset.get('metainfo') or {}).get('classes')
    found = [getattr(cls, 'METAINFO', {}).get('classes') for cls, _ in find_class(type_name(dataset.type), scope)]
    return given or next(names for names in found if names)


def _object(dataset: ConfigDict, scope: str, number: int, image: int, generator: np.random.Generator) -> dict:
    """An ellipse of about a sixth of the width, as COCO annotation."""
    height, width = SIZES[scope]
    radii = generator.uniform(0.04, 0.12, 2) * width
    center = generator.uniform(radii, np.array([width, height]) - radii)
    angles = np.arange(NUM_VERTICES) * 2 * math.pi / NUM_VERTICES
    points = center + radii * np.stack([np.cos(angles), np.sin(angles)], 1)
    left, top = center - radii
    found = dict(
        id=number, image_id=image, category_id=0, iscrowd=0, area=math.pi * radii.prod(),
        bbox=[left, top, *(2 * radii)], segmentation=[points.ravel().round(2).tolist()],
    )  # fmt: skip
    if scope == 'mmpose':
        num_points = len((dataset.get('metainfo') or {}).get('keypoint_info') or range(17))
        joints = generator.uniform(center - radii, center + radii, (num_points, 2)).round(1)
        found['keypoints'] = [value for x, y in joints.tolist() for value in (x, y, 2)]
        found['num_keypoints'] = num_points
    else:
        found['category_id'] = int(generator.integers(len(_class_names(dataset, scope))))
    return found


def _write_maps(dataset: ConfigDict, files: list[Path], folder: Path, generator: np.random.Generator) -> None:
    """Class maps of rectangles."""
    folder.mkdir()
    num_classes = len(_class_names(dataset, 'mmseg'))
    height, width = SIZES['mmseg']
    for file in files:
        values = np.full((height, width), generator.integers(num_classes), np.uint8)
        for _ in range(NUM_REGIONS):
            top, left = generator.integers(height * 3 // 4), generator.integers(width * 3 // 4)
            values[top : top + height // 3, left : left + width // 3] = generator.integers(num_classes)
        cv2.imwrite(str(folder / f'{file.stem}.png'), values)
    dataset.update(
        data_prefix=dict(img_path='images', seg_map_path='maps'), img_suffix='.jpg', seg_map_suffix='.png', ann_file=''
    )
