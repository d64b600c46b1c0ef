"""Reads a config file, applies command-line flags, and prepares the config that a Runner is built from."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from mmengine.utils import import_modules_from_strings
from torch import nn

from mogacore.checkpoint import register_safe_loader
from mogacore.errors import UserError
from mogacore.files import writable_folder
from mogacore.libraries import TASK_LIBRARIES, import_quietly, registries
from mogacore.locations import MIM, check_staged, find_config, staged
from mogacore.text import show, type_name

from .amp import set_precision

DATALOADERS = {'train': ('train_dataloader', 'val_dataloader'), 'test': ('test_dataloader',)}
ANNOTATION_FILES = ('ann_file', 'bbox_file', 'camera_param_file', 'joint_file')  # of a data set, below data_root
EVALUATORS = {'train': ('val_evaluator',), 'test': ('test_evaluator',)}


def load_config(name: str | Path, cfg_options: dict | None = None) -> Config:
    """Read a config and apply the user's ``--cfg-options`` to it.

    Its ``_base_`` may be a short name as well, see :func:`mogacore.locations.find_base`.

    Args:
        name: Path of a file, or a short name such as ``classification/moganet-xtiny_digits``, see
            :func:`mogacore.locations.find_config`.
        cfg_options: Dotted key to value.

    Raises:
        UserError: If the config does not exist or cannot be read, an option cannot be applied to it, or its
            ``default_scope`` is not a name.
    """
    import_module('mogacore.registry')  # as if every config named it in custom_imports
    path = find_config(name)
    if path.suffix != '.py':
        raise UserError(f'config {path} is not a Python config: give a .py file such as those under configs/')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program, and mmengine's reader raises errors of many types
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise UserError(f'config {path} cannot be read: {reason}') from error
    try:
        cfg.merge_from_dict(cfg_options or {})
    except Exception as error:  # mmengine raises errors of many types, such as for an item of a list that is no dict
        raise UserError(f'--cfg-options {show(cfg_options)} cannot be applied to {path}: {error}') from error
    if any(name.partition('.')[0] == 'custom_imports' for name in cfg_options or ()):
        _import_modules(cfg)
    scope = cfg.get('default_scope', 'mmengine')
    if not isinstance(scope, str) or not _is_scope(scope):
        raise UserError(
            f'config {path}: default_scope is {show(scope)}: use one of mmengine, {", ".join(TASK_LIBRARIES)}'
        )
    return cfg


def _is_scope(name: str) -> bool:
    """Whether a library or a registry of the user has a name; an installed library may not be imported yet."""
    if not name.isidentifier():
        return False
    known = name in ('mmengine', *TASK_LIBRARIES) or find_spec(name) is not None
    return known or any(name in registry.children for registry in registries('mmengine'))


def _import_modules(cfg: Config) -> None:
    """Import the modules of ``custom_imports``, which the reader does before options are applied."""
    settings = cfg.get('custom_imports') or {}
    try:
        import_modules_from_strings(**settings)
    except (ImportError, TypeError) as error:
        raise UserError(f'custom_imports={show(settings)} cannot be imported: {error}') from error


def build_model(cfg: Config) -> nn.Module:
    """Build the config's model in training mode; imports the config's library and makes it the default scope.

    Warnings of the library, such as those about losses, are not shown: a training, whose runner builds its model, does.
    """
    use_library(cfg)
    register_safe_loader()
    model = cfg.model.copy()
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return MODELS.build(model)


def use_library(cfg: Config) -> None:
    """Import the config's library and make it the default scope of the registries."""
    scope = cfg.get('default_scope', 'mmengine')
    import_quietly(scope)
    init_default_scope(scope)


@contextmanager
def restored_scope() -> Iterator[None]:
    """Give the registries back the default scope that they had before, as other libraries of the process need it.

    mmpretrain's inferencers, for example, do not find their transforms under the scope of a detector.
    """
    before = dict(DefaultScope._instance_dict)
    try:
        yield
    finally:
        DefaultScope._instance_dict.clear()
        DefaultScope._instance_dict.update(before)


def build_for_counting(cfg: Config) -> nn.Module:
    """Build the config's model in training mode on the meta device, where tensors have shapes but no values."""
    try:
        with torch.device('meta'):
            return build_model(cfg)
    except RuntimeError:  # some libraries' constructors read tensor values
        return build_model(cfg).to('meta')


def build_on_meta(cfg: Config) -> nn.Module:
    """As :func:`build_for_counting`, in eval mode and without gradients."""
    return build_for_counting(cfg).eval().requires_grad_(False)


def prepare_for_device(cfg: Config, precision: str | None = None) -> None:
    """Make a config run on this device: its precision, see :func:`mogacore.engine.amp.set_precision`, and its norms.

    Without a GPU, SyncBN becomes BN.
    """
    if not torch.cuda.is_available():
        replace_sync_bn(cfg.model)
        cfg.pop('sync_bn', None)
    set_precision(cfg, precision)


def prepare_loaders(cfg: Config) -> None:
    """Remove settings of data loader workers from loaders without workers, where torch refuses them."""
    for stage in ('train', 'val', 'test'):
        loader = cfg.get(f'{stage}_dataloader')
        if loader and not loader.get('num_workers'):
            for key in ('persistent_workers', 'prefetch_factor', 'multiprocessing_context', 'timeout'):
                loader.pop(key, None)


def replace_sync_bn(value: dict | list) -> None:
    """Replace every SyncBN in a model config with BN, in place: torch runs SyncBN on GPUs only."""
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        if isinstance(item, (dict, list)):
            replace_sync_bn(item)
        elif item == 'SyncBN':
            value[key] = 'BN'


def locate_data(cfg: Config, stage: str) -> None:
    """Make the data roots of a stage absolute, and fail early if data is missing.

    A relative ``data_root`` is resolved as :func:`find_data` does, and so is a relative ``ann_file`` of an evaluator; a
    CocoMetric without one gets that of its data set. A folder without the annotation files of the data set is not
    chosen if the other place has them. Data that were copied to the local disk are read there.

    Args:
        cfg: Config with dataloaders; its ``data_help`` explains how to get the data.
        stage: 'train' or 'test'.

    Raises:
        UserError: If a data folder or annotation file does not exist.
    """
    for dataset in leaf_datasets(cfg, stage):
        data_root = dataset.get('data_root')
        if not data_root:
            continue
        files = [dataset[key] for key in ANNOTATION_FILES if dataset.get(key)]
        dataset.data_root = str(find_data(cfg, data_root, 'data folder', files).resolve())
        for file in files:
            find_data(cfg, Path(dataset.data_root) / file, 'annotation file')
        if dataset.get('reference_root'):  # of ImageNetSubset
            dataset.reference_root = str(find_data(cfg, dataset.reference_root, 'folder of all classes').resolve())
        if dataset.get('bbox_file'):  # only mmpose has it, and does not resolve it against data_root
            dataset.bbox_file = str(Path(dataset.data_root) / dataset.bbox_file)
    check_staged([dataset.data_root for dataset in leaf_datasets(cfg, stage) if dataset.get('data_root')])
    for name in EVALUATORS[stage]:
        for evaluator in as_list(cfg.get(name)):
            if evaluator.get('ann_file'):
                evaluator.ann_file = str(find_data(cfg, evaluator.ann_file, 'annotation file'))
            elif type_name(evaluator.type) == 'CocoMetric':
                _set_annotation_file(evaluator, name, list(leaves(cfg[name.replace('evaluator', 'dataloader')])))


def _set_annotation_file(evaluator: ConfigDict, name: str, datasets: list[ConfigDict]) -> None:
    """Make a CocoMetric without ``ann_file`` use that of its data set, unless the pipeline passes the annotations."""
    steps = [step for dataset in datasets for step in dataset.get('pipeline') or ()]
    if any('instances' in step.get('meta_keys', ()) for step in steps):
        return
    if len(datasets) > 1:
        raise UserError(
            f'{name} has no ann_file, but its data loader reads {len(datasets)} data sets: set it to one annotation '
            'file with the images of all'
        )
    if datasets[0].get('ann_file'):
        evaluator.ann_file = str(Path(datasets[0].get('data_root') or '', datasets[0].ann_file))


def find_data(cfg: Config, path: str | Path, what: str, files: Sequence[str] = ()) -> Path:
    """Find a relative path below the current directory or the folder of the config.

    A config below a folder ``configs`` is shared by many data: its path is that of the current directory, or else of
    the folder that contains ``configs``, unless that is an installed package. Any other config belongs to the data
    beside it: its path is that of its own folder, or else of the current directory, so that data of the same name in
    the current directory are not taken for its own.

    Args:
        cfg: The config; its ``data_help`` explains how to get the data.
        path: A relative path, or an absolute one, which is returned.
        what: What it is, for the message.
        files: Paths below it. A place that has all of them comes before one that does not.

    Raises:
        UserError: If it does not exist.
    """
    bases = [Path.cwd(), project_root(cfg.filename)]
    if bases[1].name == MIM:
        bases.pop()
    elif not _configs_folder(cfg.filename):
        bases.reverse()
    found = [base / path for base in bases if (base / path).exists()]
    if found:
        return staged(next((place for place in found if all((place / file).exists() for file in files)), found[0]))
    raise UserError(f'{what} {path} is missing: {cfg.get("data_help", "see docs/data.md")}')


def project_root(filename: str | Path) -> Path:
    """Parent of the ``configs`` folder that contains a config file; the file's own folder if there is none."""
    folder = _configs_folder(filename)
    return folder.parent if folder else Path(filename).resolve().parent


def _configs_folder(filename: str | Path) -> Path | None:
    """The ``configs`` folder that contains a config file."""
    return next((parent for parent in Path(filename).resolve().parents if parent.name == 'configs'), None)


def as_list(evaluators: Mapping | list | tuple | None) -> list:
    """The configs of an evaluator that may be a single one, several or none."""
    return list(evaluators) if isinstance(evaluators, list | tuple) else [evaluators] if evaluators else []


def leaf_datasets(cfg: Config, stage: str) -> Iterator[ConfigDict]:
    """Yield every leaf data set of a stage, see :func:`leaves`."""
    for name in DATALOADERS[stage]:
        yield from leaves(cfg.get(name))


def leaves(dataloader: Mapping | None) -> Iterator[ConfigDict]:
    """Yield every leaf data set of a data loader, inside wrappers such as RepeatDataset and ConcatDataset."""
    pending = [dataloader['dataset']] if dataloader else []
    while pending:
        dataset = pending.pop()
        if 'dataset' in dataset:
            pending.append(dataset['dataset'])
        elif 'datasets' in dataset:
            pending.extend(reversed(dataset['datasets']))
        else:
            yield dataset


def show_predictions(cfg: Config, show_dir: str) -> None:
    """Make the config's visualization hook draw every test image into ``show_dir``, each to a file of its own.

    Raises:
        UserError: If the config has no supported visualization hook.
    """
    show_dir = str(Path(show_dir).resolve())  # the hooks would resolve a relative path against the work dir
    settings = {
        'VisualizationHook': dict(enable=True, interval=1),
        'DetVisualizationHook': dict(draw=True),
        'SegVisualizationHook': dict(draw=True, interval=1),
        'PoseVisualizationHook': dict(enable=True),
        'SequenceVisualizationHook': dict(enable=True, interval=1, out_dir=show_dir),
    }
    hooks = cfg.get('default_hooks', {})
    hook = hooks.get('visualization')
    kind = '' if hook is None else type_name(hook.type)
    if kind not in settings:
        raise UserError(f'--show-dir needs default_hooks.visualization: set its type to one of {", ".join(settings)}')
    hook.update(settings[kind])
    if kind != 'SequenceVisualizationHook':
        hooks['visualization'] = dict(type='ShowPredictionsHook', hook=hook, out_dir=show_dir)


def save_predictions(cfg: Config, path: str, header: dict) -> None:
    """Make a test write its predictions to a file, see :mod:`mogacore.inference.prediction_files`.

    Args:
        cfg: Config of the test; changed in place.
        path: File to write.
        header: Further fields of its first line.

    Raises:
        UserError: If the config has another kind of task, or the path is not that of such a file.
    """
    if cfg.get('default_scope') not in TASK_LIBRARIES:
        raise UserError(
            f'--save-predictions needs a config with default_scope {", ".join(TASK_LIBRARIES)}, not '
            f'{cfg.get("default_scope")}: omit it'
        )
    if not path.endswith(('.jsonl', '.jsonl.gz')) or Path(path).is_dir():
        raise UserError(f'--save-predictions {path}: give the name of a file that ends in .jsonl or .jsonl.gz')
    writable_folder(Path(path).parent)
    hook = dict(type='SavePredictionsHook', path=str(Path(path).resolve()), header=header)
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), hook]


def enable_tta(cfg: Config) -> None:
    """Test each image in several views and merge the predictions.

    A config supports this in one of two ways:

    - it sets ``tta_model`` and ``tta_views``, the ``transforms`` of mmcv's TestTimeAug. They replace the steps of the
      same types in the test pipeline, for example several sizes the ``Resize`` to one size, at the place of the first.
      If there is none, they are inserted before the step that loads annotations, or before the last step, and for
      boxes before padding: boxes are mirrored within the original image. The samples' metadata records the flips;
    - its model has mmpose's ``flip_test``.

    Raises:
        UserError: If the config supports neither.
    """
    if 'flip_test' in cfg.model.get('test_cfg', {}):
        cfg.model.test_cfg.flip_test = True
        return
    if 'tta_model' not in cfg or 'tta_views' not in cfg:
        raise UserError(
            '--tta needs tta_model and tta_views, or model.test_cfg.flip_test: add them to the config, or omit --tta'
        )
    dataset = cfg.test_dataloader.dataset
    steps = list(dataset.pipeline)
    replaced = {step['type'] for choices in cfg.tta_views for step in choices}
    ends = {'LoadAnnotations', *replaced, *(['Pad'] if cfg.tta_model['type'] == 'InstanceTTAModel' else [])}
    starts = [i for i, step in enumerate(steps) if step['type'] in ends]
    start = min([*starts, len(steps) - 1])
    rest = [[_packing_flips(step)] for step in steps[start:] if step['type'] not in replaced]
    dataset.pipeline = [*steps[:start], dict(type='TestTimeAug', transforms=[*cfg.tta_views, *rest])]
    cfg.model = dict(cfg.tta_model, module=cfg.model)


def _packing_flips(step: dict) -> dict:
    """A step whose ``meta_keys``, if it lists them, include those that record a flip."""
    keys = step.get('meta_keys')
    return step if keys is None else dict(step, meta_keys=tuple(dict.fromkeys((*keys, 'flip', 'flip_direction'))))
