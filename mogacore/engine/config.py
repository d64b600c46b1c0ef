"""From a config file and command-line flags to the config that a Runner is built from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict

from mogacore.errors import UserError

DATALOADERS = {'train': ('train_dataloader', 'val_dataloader'), 'test': ('test_dataloader',)}


def load_config(path: str | Path, cfg_options: dict | None = None) -> Config:
    """Read a config file and lay the user's ``--cfg-options`` over it.

    Raises:
        UserError: If there is no such file, it is no config, or an option names an index that is not there.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'config {path} is not there: give the path of a file such as those under configs/')
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


def prepare_for_device(cfg: Config, amp: bool = False) -> None:
    """Turn on mixed precision if asked for, and make the optimizer wrapper one that runs on this device.

    bfloat16 where the device has it, else float16 with a dynamic loss scale.
    """
    optim_wrapper = cfg.get('optim_wrapper')
    if optim_wrapper is None:
        return
    if amp:
        optim_wrapper.type = 'AmpOptimWrapper'
        optim_wrapper.setdefault('dtype', 'bfloat16')
    if optim_wrapper.get('type') != 'AmpOptimWrapper':
        return
    if not torch.cuda.is_available():
        optim_wrapper.type = 'CpuAmpOptimWrapper'
        for key in ('dtype', 'loss_scale', 'use_fsdp'):
            optim_wrapper.pop(key, None)
    elif optim_wrapper.get('dtype') == 'bfloat16' and not torch.cuda.is_bf16_supported():
        optim_wrapper.update(dtype='float16', loss_scale='dynamic')


def locate_data(cfg: Config, stage: str) -> None:
    """Make the data roots of a stage absolute, and say at once which is missing.

    A relative ``data_root`` is looked for below the current directory, then below the folder that holds ``configs/``.

    Args:
        cfg: Config with dataloaders; its ``data_help`` says how to get the data.
        stage: 'train' or 'test'.

    Raises:
        UserError: If a data folder or annotation file is not there.
    """
    bases = (Path.cwd(), project_root(cfg))
    help_text = cfg.get('data_help', 'see docs/data.md')
    for dataset in _datasets(cfg, stage):
        data_root = dataset.get('data_root')
        if not data_root:
            continue
        found = next((base / data_root for base in bases if (base / data_root).is_dir()), None)
        if found is None:
            raise UserError(f'data folder {data_root} is missing: {help_text}')
        dataset.data_root = str(found.resolve())
        ann_file = dataset.get('ann_file')
        if ann_file and not (found / ann_file).is_file():
            raise UserError(f'annotation file {found / ann_file} is missing: {help_text}')


def project_root(cfg: Config) -> Path:
    """Folder that holds the ``configs`` folder of a config file; the file's own folder if it lies in none."""
    path = Path(cfg.filename).resolve()
    return next((parent.parent for parent in path.parents if parent.name == 'configs'), path.parent)


def _datasets(cfg: Config, stage: str) -> Iterator[ConfigDict]:
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
    settings = {
        'VisualizationHook': dict(enable=True, interval=1, out_dir=show_dir),
        'DetVisualizationHook': dict(draw=True, interval=1, test_out_dir=show_dir),
        'SegVisualizationHook': dict(draw=True, interval=1),
        'PoseVisualizationHook': dict(enable=True, interval=1, out_dir=show_dir),
    }
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None or hook.type not in settings:
        raise UserError(f'--show-dir needs default_hooks.visualization of one of the types {", ".join(settings)}')
    hook.update(settings[hook.type])
    if hook.type == 'SegVisualizationHook':
        cfg.visualizer.save_dir = show_dir


def enable_tta(cfg: Config) -> None:
    """Test each image in the config's ``tta_views`` and merge the predictions with its ``tta_model``.

    ``tta_views`` are the ``transforms`` of mmcv's TestTimeAug, laid in before the last step of the test pipeline.

    Raises:
        UserError: If the config does not define them.
    """
    if 'tta_model' not in cfg or 'tta_views' not in cfg:
        raise UserError('--tta needs tta_model and tta_views, which the config does not define')
    dataset = cfg.test_dataloader.dataset
    *steps, pack = dataset.pipeline
    dataset.pipeline = [*steps, dict(type='TestTimeAug', transforms=[*cfg.tta_views, [pack]])]
    cfg.model = dict(cfg.tta_model, module=cfg.model)
