"""From a config file and command-line flags to the config that a Runner is built from."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mogacore.checkpoint import register_safe_loader
from mogacore.datasets.checks import check_dataset
from mogacore.errors import UserError
from mogacore.libraries import import_quietly
from mogacore.locations import MIM, find_config

from .amp import CpuAmpOptimWrapper

DATALOADERS = {'train': ('train_dataloader', 'val_dataloader'), 'test': ('test_dataloader',)}
EVALUATORS = {'train': ('val_evaluator',), 'test': ('test_evaluator',)}


def load_config(name: str | Path, cfg_options: dict | None = None) -> Config:
    """Read a config and apply the user's ``--cfg-options`` to it.

    Args:
        name: Path of a file, or a short name such as ``classification/moganet-xtiny_digits``, see
            :func:`mogacore.locations.find_config`.
        cfg_options: Dotted key to value.

    Raises:
        UserError: If there is no such config, it cannot be read, or an option names an index that is not there.
    """
    import_module('mogacore.registry')  # as if every config named it in custom_imports
    path = find_config(name)
    if path.suffix != '.py':
        raise UserError(f'config {path} is no Python config: give a .py file such as those under configs/')
    try:
        cfg = Config.fromfile(path)
    except (FileNotFoundError, SyntaxError, KeyError, TypeError) as error:
        raise UserError(f'config {path} cannot be read: {" ".join(str(error).split())}') from error
    try:
        cfg.merge_from_dict(cfg_options or {})
    except (KeyError, TypeError) as error:
        raise UserError(f'--cfg-options {cfg_options} does not fit the config: {error}') from error
    return cfg


def build_model(cfg: Config) -> nn.Module:
    """The model of a config in training mode, with the library it is written for imported and its names in scope."""
    scope = cfg.get('default_scope', 'mmengine')
    import_quietly(scope)
    register_safe_loader()
    init_default_scope(scope)
    model = cfg.model.copy()
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return MODELS.build(model)


def build_on_meta(cfg: Config) -> nn.Module:
    """The config's model in eval mode on the meta device: shapes and names, no numbers."""
    try:
        with torch.device('meta'):
            model = build_model(cfg)
    except RuntimeError:  # some libraries' constructors read values of tensors, which the meta device has none of
        model = build_model(cfg).to('meta')
    return model.eval().requires_grad_(False)


def prepare_for_device(cfg: Config, amp: bool = False) -> None:
    """Turn on mixed precision if asked for, and make the optimizer wrapper one that runs on this device.

    bfloat16 where the device has it, else float16 with a dynamic loss scale. On a CPU SyncBN, which torch has for GPUs
    alone, becomes BN.
    """
    if not torch.cuda.is_available():
        replace_sync_bn(cfg.model)
    optim_wrapper = cfg.get('optim_wrapper')
    if optim_wrapper is None:
        return
    if amp:
        optim_wrapper.type = 'AmpOptimWrapper'
        optim_wrapper.setdefault('dtype', 'bfloat16')
    if optim_wrapper.get('type') != 'AmpOptimWrapper':
        return
    if not torch.cuda.is_available():
        optim_wrapper.type = CpuAmpOptimWrapper.__name__
        for key in ('dtype', 'loss_scale', 'use_fsdp'):
            optim_wrapper.pop(key, None)
    elif optim_wrapper.get('dtype') == 'bfloat16' and not torch.cuda.is_bf16_supported():
        optim_wrapper.update(dtype='float16', loss_scale='dynamic')


def replace_sync_bn(value: dict | list) -> None:
    """Turn every SyncBN of a model config into BN, in place: torch runs SyncBN on GPUs only."""
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, (dict, list)):
            replace_sync_bn(item)
    if isinstance(value, dict) and value.get('type') == 'SyncBN':
        value['type'] = 'BN'


def locate_data(cfg: Config, stage: str) -> None:
    """Make the data roots of a stage absolute, and say at once which is missing.

    A relative ``data_root`` is looked for below the current directory, then below the folder that holds ``configs/``,
    unless that is an installed package; so is the relative ``ann_file`` of an evaluator.

    Args:
        cfg: Config with dataloaders; its ``data_help`` says how to get the data.
        stage: 'train' or 'test'.

    Raises:
        UserError: If a data folder or annotation file is not there.
    """
    for dataset in leaf_datasets(cfg, stage):
        data_root = dataset.get('data_root')
        if not data_root:
            continue
        dataset.data_root = str(_locate(cfg, data_root, 'data folder').resolve())
        for key in ('ann_file', 'bbox_file', 'camera_param_file', 'joint_file'):
            if dataset.get(key):
                _locate(cfg, Path(dataset.data_root) / dataset[key], 'annotation file')
        if dataset.get('bbox_file'):  # mmpose alone has it, and does not look for it below data_root
            dataset.bbox_file = str(Path(dataset.data_root) / dataset.bbox_file)
    for name in EVALUATORS[stage]:
        evaluators = cfg.get(name) or []
        for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
            if evaluator.get('ann_file'):
                evaluator.ann_file = str(_locate(cfg, evaluator.ann_file, 'annotation file'))


def check_data(cfg: Config) -> None:
    """Hold the annotations of the training and validation data against the pictures and the heads of the model.

    Raises:
        UserError: At the first thing that would break the training, see :func:`mogacore.datasets.checks.check_dataset`.
    """
    model = cfg.model
    roi_head = model.get('roi_head', {}).get('bbox_head', {})
    class_head = model.get('bbox_head') or model.get('decode_head') or roi_head or {}
    if isinstance(class_head, list):
        class_head = class_head[0]
    num_keypoints = model.get('head', {}).get('out_channels')
    for dataset in leaf_datasets(cfg, 'train'):
        check_dataset(dataset, class_head.get('num_classes'), num_keypoints)


def _locate(cfg: Config, path: str | Path, what: str) -> Path:
    bases = [Path.cwd(), project_root(cfg)]
    for base in bases if bases[1].name != MIM else bases[:1]:
        if (base / path).exists():
            return base / path
    raise UserError(f'{what} {path} is missing: {cfg.get("data_help", "see docs/data.md")}')


def project_root(cfg: Config) -> Path:
    """Folder that holds the ``configs`` folder of a config file; the file's own folder if it lies in none."""
    path = Path(cfg.filename).resolve()
    return next((parent.parent for parent in path.parents if parent.name == 'configs'), path.parent)


def leaf_datasets(cfg: Config, stage: str) -> Iterator[ConfigDict]:
    """Every leaf data set of a stage, out of wrappers such as RepeatDataset and ConcatDataset."""
    pending = [cfg[name].dataset for name in DATALOADERS[stage] if cfg.get(name)]
    while pending:
        dataset = pending.pop()
        if 'dataset' in dataset:
            pending.append(dataset.dataset)
        elif 'datasets' in dataset:
            pending.extend(dataset.datasets)
        else:
            yield dataset


def show_predictions(cfg: Config, show_dir: str) -> None:
    """Let the visualisation hook of the config draw every test image into ``show_dir``.

    Raises:
        UserError: If the config has no such hook.
    """
    show_dir = str(Path(show_dir).resolve())  # the hooks would lay a relative one below the work dir
    settings = {
        'VisualizationHook': dict(enable=True, interval=1, out_dir=show_dir),
        'DetVisualizationHook': dict(draw=True, interval=1, test_out_dir=show_dir),
        'SegVisualizationHook': dict(draw=True, interval=1),
        'PoseVisualizationHook': dict(enable=True, interval=1, out_dir=show_dir),
        'SequenceVisualizationHook': dict(enable=True, interval=1, out_dir=show_dir),
    }
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None or hook.type not in settings:
        raise UserError(f'--show-dir needs default_hooks.visualization of one of the types {", ".join(settings)}')
    hook.update(settings[hook.type])
    if hook.type == 'SegVisualizationHook':
        cfg.visualizer.save_dir = show_dir


def enable_tta(cfg: Config) -> None:
    """Test each image in several views and merge the predictions.

    A config either sets ``tta_model`` and ``tta_views``, the ``transforms`` of mmcv's TestTimeAug, which are laid into
    the test pipeline before annotations are loaded or, where none are, before its last step; or its model has the
    ``flip_test`` of mmpose.

    Raises:
        UserError: If the config has neither.
    """
    if 'flip_test' in cfg.model.get('test_cfg', {}):
        cfg.model.test_cfg.flip_test = True
        return
    if 'tta_model' not in cfg or 'tta_views' not in cfg:
        raise UserError('--tta needs tta_model and tta_views, or a model with test_cfg.flip_test: the config has none')
    dataset = cfg.test_dataloader.dataset
    steps = list(dataset.pipeline)
    names = [step['type'] for step in steps]
    start = names.index('LoadAnnotations') if 'LoadAnnotations' in names else len(steps) - 1
    views = [*cfg.tta_views, *([step] for step in steps[start:])]
    dataset.pipeline = [*steps[:start], dict(type='TestTimeAug', transforms=views)]
    cfg.model = dict(cfg.tta_model, module=cfg.model)
