"""Check of class folders and list files, as mmpretrain's CustomDataset and ``ClassFolders`` read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from mogacore.datasets.arrays import open_image
from mogacore.datasets.class_folders import EXTENSIONS, order_classes
from mogacore.errors import UserError
from mogacore.packs import check_indexed, is_folder, list_classes, list_files
from mogacore.text import shorten, type_name

from .common import IMAGE_SUFFIXES, check_files, check_num_classes, image_prefix, read_classes, read_list, read_size
from .report import Expected, Faults, Problems, Sample


def check_class_folders(dataset: Mapping, expected: Expected, sample: Sample, problems: Problems) -> None:
    """Check a data set for classification: folders, labels, number of classes, suffixes and images."""
    root = Path(dataset.get('data_root') or '')
    folder = root / image_prefix(dataset)
    for path, number in expected.num_classes.items():
        if number == 1:
            problem = f'{path}.num_classes=1: with a single class every prediction is right and nothing is learned'
            problems.add(f'{problem}; use at least 2 classes, for example with a folder of other images')
    check_indexed(folder)
    if not is_folder(folder):
        raise UserError(f'folder {folder} with the images not found: create it, or set data_root and data_prefix')
    extensions = tuple(suffix.lower() for suffix in dataset.get('extensions') or EXTENSIONS)
    if dataset.get('ann_file'):
        names = _check_list(dataset, root / dataset['ann_file'], expected, problems)
        check_files(names, folder, f'images of {root / dataset["ann_file"]}', 'data_prefix')
    elif dataset.get('with_label', True):
        names = _check_folders(dataset, folder, extensions, expected, problems)
    else:
        return
    _check_images(dataset, folder, names, expected.in_channels, sample, problems)


def _check_folders(dataset, folder, extensions, expected, problems):
    found = list_classes(folder)
    if not found:
        flat = list_files(folder)
        problem = f'only {len(flat)} files, such as {flat[0]}' if flat else 'it is empty'
        raise UserError(f'folder {folder} has no class folders, {problem}: sort the images into one folder per class')
    classes = read_classes((dataset.get('metainfo') or {}).get('classes') or dataset.get('classes'))
    names = order_classes(found, dataset.get('folders'), classes, folder)
    if classes is not None and len(classes) != len(names):
        problem = f'metainfo.classes has {len(classes)} classes, but there are {len(names)} class folders'
        problems.add(f'{problem} ({shorten(names)}): give one name for each')
    where = f'folder {folder}' if dataset.get('folders') is None else expected.labels_from or 'the training set'
    with problems.collect():
        check_num_classes(expected.num_classes, len(names), f'{where} ({shorten(names)})', 'the class folders')
    files = [f'{name}/{path}' for name in found for path in list_files(folder / name)]
    images = [name for name in files if name.lower().endswith(extensions)]
    left_out = [
        name for name in files if name.lower().endswith(IMAGE_SUFFIXES) and not name.lower().endswith(extensions)
    ]
    setting = f'set extensions of the data set, now {", ".join(extensions)}'
    if not images:
        others = f'only {len(files)} other files, such as {files[0]}' if files else 'they are empty'
        raise UserError(f'class folders of {folder} have no images that are loaded, {others}: add images, or {setting}')
    if left_out:
        problem = f'{len(left_out)} of {len(images) + len(left_out)} images in {folder} would be left out'
        problems.add(f'{problem}, the first is {left_out[0]}: convert them, or {setting}')
    return images


def _check_list(dataset, ann_file, expected, problems):
    """Check the lines of a list file; returns the names of the images."""
    with_label = dataset.get('with_label', True)
    if not ann_file.is_file():
        raise UserError(f'list file {ann_file} not found: set data_root and ann_file')
    lines = read_list(ann_file, f'one image per line{", with its label" if with_label else ""}')
    if not with_label:
        return [line.strip() for line in lines]
    names: list[str] = []
    labels: Counter[int] = Counter()
    for number, line in enumerate(lines, 1):
        name, _, label = line.strip().rpartition(' ')
        if not name or not label.isdecimal():
            problem = f'line {number} of {ann_file} is {line!r}, not a file name, a space and a label from 0'
            raise UserError(f'{problem}: correct it')
        names.append(name)
        labels[int(label)] += 1
    for path, num_classes in expected.num_classes.items():
        bad = sorted(label for label in labels if label >= num_classes)
        if bad:
            problem = f'{ann_file} has the label {bad[0]} ({sum(labels[label] for label in bad)} lines are too high)'
            allowed = f'0 to {num_classes - 1} are allowed for {path}.num_classes={num_classes}'
            problems.add(f'{problem}, but {allowed}: correct the labels or num_classes')
    classes = read_classes((dataset.get('metainfo') or {}).get('classes') or dataset.get('classes'))
    if classes is not None:
        with problems.collect():
            check_num_classes(expected.num_classes, len(classes))
    elif expected.builtin_classes is not None:
        kind, remedy = type_name(dataset['type']), "the type of the data set to 'CustomDataset'"
        with problems.collect():
            check_num_classes(expected.num_classes, len(expected.builtin_classes), kind, remedy)
    elif expected.for_training and (count := max(labels) + 1) < max(expected.num_classes.values(), default=0):
        with problems.collect():
            check_num_classes(expected.num_classes, count, str(ann_file), 'the labels')
    return names


def _check_images(dataset, folder, names, in_channels, sample, problems):
    arrays = [name for name in names if name.lower().endswith('.npy')]
    if arrays and any(type_name(step.get('type')) == 'LoadImageFromFile' for step in dataset.get('pipeline') or ()):
        problem = f'{folder} has {len(arrays)} arrays, such as {arrays[0]}, which LoadImageFromFile cannot read'
        problems.add(f"{problem}: replace it by dict(type='LoadArray') in the pipeline")
    faults = Faults()
    for index, name in sample.of(list(enumerate(names))):
        try:
            if not name.lower().endswith('.npy'):
                read_size(folder / name, ignore_orientation=True)
                continue
            shape = open_image(folder / name).shape
        except UserError as error:
            faults.add('unreadable', index, str(error))
            continue
        channels = shape[2] if len(shape) == 3 else 1
        if in_channels is not None and channels != in_channels:
            problem = f'array {folder / name} of shape {shape} has {channels} channels'
            remedy = f'set in_channels={channels}, or store (height, width, channels)'
            faults.add('channels', index, f'{problem}, but the backbone has in_channels={in_channels}: {remedy}')
    faults.report(problems)
