"""Labels of class folders, and checks of a run's data against its model."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mmengine.config import Config

from mogacore.checkpoint import read
from mogacore.datasets.checks import Expected, Problems, Sample, find_problems
from mogacore.datasets.checks.coco_files import check_scored_images
from mogacore.datasets.checks.common import image_prefix, read_classes
from mogacore.datasets.class_folders import EXTENSIONS, order_classes
from mogacore.errors import UserError
from mogacore.libraries import find_class, import_quietly
from mogacore.packs import is_folder, list_classes
from mogacore.text import shorten, type_name

from .check_classes import check_mean
from .config import DATALOADERS, EVALUATORS, as_list, find_data, leaf_datasets, leaves
from .launch import process_environment

SECONDS = {'sample': 20.0, 'full': math.inf}  # for all data sets, by the choices of --check
# mmpretrain's data sets of class folders or list files; all but the first also have a setting split.
FOLDER_TYPES = ('CustomDataset', 'ImageNet', 'ImageNet21k')


def prepare_data(
    cfg: Config,
    stage: str,
    check: str = 'sample',
    launcher: str = 'none',
    training: Mapping | None = None,
    checkpoint: str | None = None,
) -> None:
    """Label a stage's class folders, see :func:`label_class_folders`, and check its data in the first process.

    Args:
        cfg: Config with absolute data roots.
        stage: 'train' or 'test'.
        check: As in :func:`check_data`.
        launcher: What started the processes.
        training: Data loader of the training set of a test.
        checkpoint: Weight file of a test.

    Raises:
        UserError: For all problems found.
    """
    labels_from = label_class_folders(cfg, stage, cfg.get('train_dataloader', training), checkpoint)
    if launcher == 'none' or process_environment(launcher, os.environ)['RANK'] == '0':
        check_data(cfg, stage, check, labels_from)


def label_class_folders(cfg: Config, stage: str, training: Mapping | None, checkpoint: str | None = None) -> str | None:
    """Make a stage's class folders have the labels of the training set, where some of its folders may be absent.

    Every CustomDataset, ImageNet or ImageNet21k of class folders becomes a :class:`mogacore.datasets.ClassFolders`.

    Args:
        cfg: Config with absolute data roots.
        stage: 'train' or 'test'.
        training: Data loader of the training set, which may be absent.
        checkpoint: Weight file to test; the class names that it holds have precedence.

    Returns:
        Where the labels come from, with the path; None if neither is known.
    """
    for dataset in leaf_datasets(cfg, stage):
        _resolve_split(dataset)
    datasets = [dataset for dataset in leaf_datasets(cfg, stage) if _has_class_folders(dataset)]
    if not datasets:
        return None
    displayed = _builtin_names(datasets)
    for dataset in datasets:
        dataset.type = 'ClassFolders'
        dataset.extensions = [*dataset.get('extensions', EXTENSIONS)]
        for key in ('with_label', 'ann_file', 'multi_label'):
            dataset.pop(key, None)
        if classes := dataset.pop('classes', None):
            dataset.metainfo = dict(dataset.get('metainfo') or {}, classes=classes)
    class_names = None if checkpoint is None else _checkpoint_classes(checkpoint)
    folders, roots = _training_folders(cfg, training)
    labels_from = None if folders is None else f'the training set {shorten(roots)}'
    found = {name for dataset in datasets for name in _list_folders(dataset)}
    named = found & set(class_names or ())
    if class_names and named and (named == found or not cfg.get('load_allow_other_classes')):
        folders, labels_from = list(class_names), f'checkpoint {checkpoint}'
    for dataset in datasets:
        classes = None
        if folders is not None:
            dataset.folders = folders
            if set(_class_names(dataset) or ()) == set(folders):
                classes = folders
        elif _class_names(dataset) is None:
            classes = class_names
        if (
            _class_names(dataset) is None
            and len(folders or found) == len(displayed)
            and class_names in (None, displayed)
        ):
            classes = displayed
        if classes is not None:
            dataset.metainfo = dict(dataset.get('metainfo') or {}, classes=list(classes))
    return labels_from


def check_data(cfg: Config, stage: str, check: str = 'sample', labels_from: str | None = None) -> None:
    """Check the annotations and files of a stage's data against the model.

    Args:
        cfg: Config with absolute data roots.
        stage: 'train' or 'test'.
        check: 'sample' reads as many files as 20 seconds allow, 'full' all.
        labels_from: Where the labels of class folders come from, see :func:`label_class_folders`.

    Raises:
        UserError: For all problems found, see :func:`data_problems`.
    """
    data_problems(cfg, stage, check, labels_from).refuse()


def data_problems(cfg: Config, stage: str, check: str = 'sample', labels_from: str | None = None) -> Problems:
    """Find the problems that :func:`check_data` refuses, see :func:`mogacore.datasets.checks.find_problems`."""
    scope = cfg.get('default_scope', 'mmengine')
    import_quietly(scope)
    expected = Expected.of(cfg.model)
    problems = Problems()
    with problems.collect():
        check_mean(cfg, expected.in_channels)
    datasets = [(name, dataset) for name in DATALOADERS[stage] for dataset in leaves(cfg.get(name))]
    evaluators = [item for key in EVALUATORS[stage] for item in as_list(cfg.get(key))]
    is_scored = not any(evaluator.get('format_only') for evaluator in evaluators)
    for name, dataset in datasets:
        has_others = sum(loader == name for loader, _ in datasets) > 1
        classes = [getattr(cls, 'METAINFO', {}) for cls, _ in find_class(type_name(dataset.type), scope)]
        builtin = next((meta['classes'] for meta in classes if meta.get('classes')), None)
        wanted = replace(
            expected,
            for_training=name == 'train_dataloader',
            builtin_classes=builtin,
            labels_from=labels_from,
            may_be_empty=has_others or (not is_scored and name != 'train_dataloader'),
        )
        for line in find_problems(dataset, wanted, Sample(SECONDS[check] / len(datasets))):
            problems.add(line)
    if not problems:
        with problems.collect():
            _check_evaluators(cfg, stage)
    return problems


def _check_evaluators(cfg: Config, stage: str) -> None:
    for name in EVALUATORS[stage]:
        datasets = leaves(cfg.get(name.replace('evaluator', 'dataloader')))
        files = [
            Path(dataset.get('data_root') or '', dataset.ann_file) for dataset in datasets if 'ann_file' in dataset
        ]
        for evaluator in as_list(cfg.get(name)):
            if type_name(evaluator.type) == 'CocoMetric' and evaluator.get('ann_file'):
                check_scored_images(files, Path(evaluator.ann_file))


def _checkpoint_classes(checkpoint: str) -> list[str] | None:
    """Class names of a local weight file; None for an address, since no published file holds any."""
    path = Path(checkpoint).expanduser()
    meta = read(path, mmap=True).get('meta') if path.is_file() else None
    saved = meta.get('dataset_meta') if isinstance(meta, dict) else None
    names = saved.get('classes') if isinstance(saved, dict) else None
    return list(names) if isinstance(names, list | tuple) else None


def _builtin_names(datasets: Sequence[Mapping]) -> list[str]:
    """The 1000 names of ImageNet's folders if a data set is an ImageNet."""
    if all(type_name(dataset['type']) != 'ImageNet' for dataset in datasets):
        return []
    return [name for cls, _ in find_class('ImageNet', 'mmpretrain') for name in getattr(cls, 'METAINFO', {})['classes']]


def _class_names(dataset: Mapping) -> list[str] | None:
    return read_classes((dataset.get('metainfo') or {}).get('classes'))


def _resolve_split(dataset: dict) -> None:
    """Replace ``split`` by the folder, list file and labels that mmpretrain's ImageNet derives from it, in place."""
    split = dataset.pop('split', '') if type_name(dataset['type']) in FOLDER_TYPES[1:] else ''
    if not split:
        return
    dataset['data_prefix'] = dataset.get('data_prefix') or split
    listed = Path(dataset.get('data_root') or '', 'meta', f'{split}.txt')
    if not dataset.get('ann_file') and listed.is_file():
        dataset['ann_file'] = f'meta/{split}.txt'
    if split == 'test':
        dataset['with_label'] = False


def _has_class_folders(dataset: Mapping) -> bool:
    library, _, kind = str(dataset['type']).rpartition('.')
    if kind == 'ClassFolders':
        return True
    is_known = kind in FOLDER_TYPES and library in ('', 'mmpretrain')
    return is_known and not dataset.get('ann_file') and dataset.get('with_label', True)


def _training_folders(cfg: Config, training: Mapping | None) -> tuple[list[str] | None, list[str]]:
    """Class folders of the training set in the order of their labels, None if it is absent; and where they are."""
    datasets = []
    found = set()
    for dataset in leaves(training):
        try:
            root = find_data(cfg, dataset.get('data_root') or '.', 'data folder')
        except UserError:  # a test needs no training data
            return None, []
        dataset = dict(dataset, data_root=str(root.resolve()))
        _resolve_split(dataset)
        if _has_class_folders(dataset):
            datasets.append(dataset)
            found.update(_list_folders(dataset))
    if not found:
        return None, []
    roots = list(dict.fromkeys(str(_image_folder(dataset)) for dataset in datasets))
    try:
        return order_classes(sorted(found), None, _class_names(datasets[0]), 'of the training set'), roots
    except UserError:  # the check reports it
        return None, []


def _image_folder(dataset: Mapping) -> Path:
    return Path(dataset.get('data_root') or '', image_prefix(dataset))


def _list_folders(dataset: Mapping) -> list[str]:
    folder = _image_folder(dataset)
    return list_classes(folder) if is_folder(folder) else []
