"""Check of class maps, as mmseg's BaseSegDataset reads them."""

import os
from pathlib import Path

import numpy as np

from mogacore.errors import UserError

from . import common
from .common import check_files, check_num_classes, oriented_size, read_classes, read_image, spread, times

MAX_DECODED = 50
IGNORED = 255  # map value of pixels without a class


def check_segmentation(dataset, num_classes, is_ade):
    folders = dataset.get('data_prefix') or {'img_path': '', 'seg_map_path': ''}
    for key in ('img_path', 'seg_map_path'):
        if folders.get(key) is None:
            raise UserError(f'data_prefix of the data set has no {key}: set it to the folder below data_root')
    root = Path(dataset.get('data_root') or '')
    image_folder, map_folder = root / folders['img_path'], root / folders['seg_map_path']
    image_suffix, map_suffix = dataset.get('img_suffix', '.jpg'), dataset.get('seg_map_suffix', '.png')
    stems = _list_stems(dataset, image_folder, image_suffix)
    check_files([stem + image_suffix for stem in stems], image_folder, 'images', 'data_prefix.img_path')
    check_files([stem + map_suffix for stem in stems], map_folder, 'maps', 'data_prefix.seg_map_path, seg_map_suffix')
    for stem in spread(stems, common.MAX_OPENED):
        image, label_map = image_folder / f'{stem}{image_suffix}', map_folder / f'{stem}{map_suffix}'
        # The loader applies the EXIF orientation to the image, but not to the map.
        sizes = read_image(image, oriented_size), read_image(label_map, lambda opened: opened.size)
        if None not in sizes and sizes[0] != sizes[1]:
            problem = f'map {label_map} is {times(sizes[1])} px (width x height), but its image {times(sizes[0])}'
            raise UserError(f'{problem}: make each map the size of its image')
    classes = read_classes((dataset.get('metainfo') or {}).get('classes'))
    if classes is not None:
        check_num_classes(num_classes, len(classes))
        if is_ade:  # metainfo.classes may select some of the 150 classes, while the map values stay the same
            return
    maps = [map_folder / f'{stem}{map_suffix}' for stem in spread(stems, MAX_DECODED)]
    _check_map_values(maps, num_classes, dataset.get('reduce_zero_label', is_ade))


def _list_stems(dataset, folder, suffix):
    """Relative paths of the images without suffix: the lines of ``ann_file`` if given, else all files in ``folder``."""
    if not folder.is_dir():
        raise UserError(f'folder {folder} with the images not found: set data_root and data_prefix.img_path')
    ann_file = Path(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    if ann_file.is_file():
        if stems := [line.strip() for line in ann_file.read_text(encoding='utf-8').splitlines()]:
            return stems
        raise UserError(f'{ann_file} is empty: list one image per line, without {suffix}')
    walked = os.walk(folder, followlinks=True)
    names = sorted(os.path.relpath(os.path.join(at, name), folder) for at, _, names in walked for name in names)
    stems = [name[: -len(suffix)] for name in names if name.endswith(suffix) and os.path.basename(name)[0] != '.']
    if not stems:
        found = f'only {len(names)} other files, such as {names[0]}' if names else 'it is empty'
        raise UserError(f'folder {folder} has no images with suffix {suffix}, {found}: set img_suffix or data_prefix')
    return stems


def _check_map_values(maps, num_classes, reduce_zero_label):
    for path in maps:
        values = read_image(path, np.asarray)
        if values is None:
            continue
        if values.ndim != 2:
            raise UserError(f'map {path} is a color image: store the class index of each pixel in a single channel')
        if num_classes is None:
            continue
        num_values = num_classes + bool(reduce_zero_label)  # with it, 0 is ignored and 1 is the first class
        found = np.unique(values)
        bad = found[(found >= num_values) & (found != IGNORED)]
        if len(bad):
            zero = ' with reduce_zero_label' if reduce_zero_label else ''
            problem = f'map {path} has the value {bad[0]} ({len(bad)} of its {len(found)} values are too high)'
            allowed = f'0 to {num_values - 1} and {IGNORED} are allowed for num_classes={num_classes}{zero}'
            raise UserError(f'{problem}, but {allowed}: correct the maps, num_classes or reduce_zero_label')
