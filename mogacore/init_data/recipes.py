"""Which configs user data can start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mogacore.datasets.checks import Expected
from mogacore.engine.config import load_config
from mogacore.engine.dataset_meta import is_multi_label
from mogacore.errors import UserError
from mogacore.locations import config_names
from mogacore.text import type_name


@dataclass(frozen=True)
class Defaults:
    """What user data of a task start with.

    Args:
        recipe: Short name of the config.
        library: ``default_scope`` of a recipe for the task.
        batch_size: Images, or objects for keypoints, per batch.
        epochs: Shortest training, for many images.
        iterations: Shortest training, for few images.
        size: Largest sides of images, long and short; the shorter one for square crops.
    """

    recipe: str
    library: str
    batch_size: int
    epochs: int
    iterations: int
    size: tuple[int, int]


DEFAULTS = {
    'detection': Defaults('detection/retinanet_moganet-xtiny_fpn_1x_coco', 'mmdet', 4, 12, 2000, (1333, 800)),
    'instance': Defaults('detection/mask-rcnn_moganet-xtiny_fpn_1x_coco', 'mmdet', 4, 12, 2000, (1333, 800)),
    'segmentation': Defaults(
        'segmentation/semantic-fpn_moganet-xtiny_80k_ade20k-512x512', 'mmseg', 8, 30, 2000, (2048, 512)
    ),
    'classification': Defaults(
        'classification/moganet-xtiny_timm-recipe_8xb128_in1k-224', 'mmpretrain', 32, 30, 1000, (224, 224)
    ),
    'pose': Defaults('pose/td-hm_moganet-xtiny_210e_coco-256x192', 'mmpose', 32, 60, 2000, (256, 192)),
}
LIBRARIES = {defaults.library for defaults in DEFAULTS.values()}


@dataclass(frozen=True)
class Recipe:
    """A config to start from, and the paths of its heads with a number of classes."""

    name: str
    base: Config
    heads: tuple[str, ...]


def find_recipe(task: str, name: str | None = None) -> Recipe:
    """The config of a task.

    Args:
        task: The task.
        name: Path or short name; None for the default of the task.

    Raises:
        UserError: If it does not exist, or does not fit; the message names those that fit.
    """
    name = name or DEFAULTS[task].recipe
    base = load_config(name)
    if Path(name).is_file():  # the new config may be in another folder
        name = str(Path(name).resolve())
    if reason := _misfit(task, base):
        raise UserError(f'recipe {name} {reason}: {advice(task)}')
    return Recipe(name, base, tuple(Expected.of(base.model).num_classes))


def advice(task: str) -> str:
    """What to choose: the default of a task, and what the names of the other recipes that fit it begin with."""
    folder = DEFAULTS[task].recipe.partition('/')[0]
    kinds = []
    for name in config_names():
        if name.startswith(f'{folder}/') and name.count('/') == 1:
            try:
                base = load_config(name)
            except UserError:  # of the user's own folder configs
                continue
            if not _misfit(task, base):
                kinds.append(f'{name.partition("/")[2].partition("_")[0]}_*')
    return f'choose one such as {DEFAULTS[task].recipe}, or another of {folder}/{", ".join(dict.fromkeys(kinds))}'


def _misfit(task: str, base: Config) -> str | None:
    """Why a config cannot be used for user data of a task; None if it can."""
    scope, wanted = base.get('default_scope'), DEFAULTS[task].library
    if scope != wanted:
        return f'is one of {scope if scope in LIBRARIES else "another task"}, but --task {task} needs {wanted}'
    has_masks = any('mask' in key for key in _keys(base.model))
    if task == 'detection' and has_masks:
        return 'also predicts masks, which --task instance has'
    if task == 'instance' and not has_masks:
        return 'predicts no masks'
    if is_multi_label(base):
        return 'predicts any number of classes per image, but class folders give one'
    expected = Expected.of(base.model)
    if expected.in_channels == 1:
        return 'takes gray images, but own images are read in color'
    if task == 'pose' and expected.num_keypoints is None:
        return 'has no head with out_channels, the number of keypoints'
    return None


def _keys(value: object) -> list[str]:
    """Names of the heads of a model, and of those below them."""
    if not isinstance(value, Mapping):
        return []
    return [key for key, item in value.items() if key.endswith('head') for key in (key, *_keys(item))]


def replaced_hooks(base: Config) -> list[dict]:
    """Hooks of a recipe that suit a training of any length and its own pipelines."""
    unfit = ('EMAHook', 'PipelineSwitchHook')
    return [hook for hook in base.get('custom_hooks') or () if type_name(hook['type']) not in unfit]
