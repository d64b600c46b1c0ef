"""The config of a run without what the run itself added to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

from mogacore.locations import checkout
from mogacore.text import type_name

# Added by make_resumable and by the Runner.
RUN_HOOKS = (
    'ExactResumeHook', 'RestoreSchedulesHook', 'StopOnSignalHook', 'MissedValidationHook', 'CheckSchedulesHook',
    'FiniteHook', 'ReduceLossHook', 'ChooseThreadsHook',
)  # fmt: skip
RUN_KEYS = ('work_dir', 'resume', 'launcher', 'experiment_name', 'model_wrapper_cfg')
TYPES = {
    'ResumableEpochLoop': 'EpochBasedTrainLoop',
    'ResumableIterLoop': 'IterBasedTrainLoop',
    'SafeCheckpointHook': 'CheckpointHook',
}
WRAPPERS = {'SeededDataset': 'dataset', 'ResumableSampler': 'sampler', 'SkippingBatchSampler': 'batch_sampler'}


def plain_config(cfg: Config) -> Config:
    """The config that a user would write for a run.

    Args:
        cfg: Config that a run wrote to its work dir.

    Returns:
        A config without the hooks, loops, samplers and data sets that make a run resumable, without trackers and
        without the folders of the run.
    """
    content = _plain(cfg.to_dict())
    if content.get('resume') or content.get('load_from') is None:  # a resumed run names its checkpoint there
        content.pop('load_from', None)
    for key in RUN_KEYS:
        content.pop(key, None)
    hooks = [hook for hook in content.pop('custom_hooks', []) if type_name(hook['type']) not in RUN_HOOKS]
    if hooks:
        content['custom_hooks'] = hooks
    backends = (content.get('visualizer') or {}).get('vis_backends')
    if backends:
        content['visualizer']['vis_backends'] = [b for b in backends if not type_name(b['type']).endswith('Tracker')]
    return Config(content, filename=cfg.filename)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        kind = type_name(value.get('type'))
        if kind in WRAPPERS and WRAPPERS[kind] in value:
            return _plain(value[WRAPPERS[kind]])
        value = {key: _plain(item) for key, item in value.items()}
        if kind in TYPES:
            value['type'] = TYPES[kind]
        return value
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value


def relative_paths(cfg: Config) -> Config:
    """A config whose absolute paths inside the current folder, or inside the checkout of mogacore, are relative."""
    folders = [folder for folder in (Path.cwd(), checkout()) if folder]
    return Config(_relative(cfg.to_dict(), folders), filename=cfg.filename)


def _relative(value: Any, folders: list[Path]) -> Any:
    if isinstance(value, dict):
        return {key: _relative(item, folders) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_relative(item, folders) for item in value)
    if isinstance(value, str) and value.startswith('/'):
        return next((str(Path(value).relative_to(f)) for f in folders if Path(value).is_relative_to(f)), value)
    return value


def foreign_paths(value: Any) -> list[str]:
    """Absolute paths in a config, which other machines lack."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return list(dict.fromkeys(path for item in value for path in foreign_paths(item)))
    return [value] if isinstance(value, str) and value.startswith('/') and Path(value).exists() else []
