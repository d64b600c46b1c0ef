"""Choices for a training on own data: recipe, image size, batch size, rate and length."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from mmengine.config import Config

from mogacore.datasets.checks import Expected
from mogacore.engine.config import leaves, load_config
from mogacore.errors import UserError
from mogacore.text import type_name

from .found import Found
from .labels import Labels


@dataclass(frozen=True)
class Defaults:
    """What own data of a task start with.

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
MAX_EPOCHS = 300
NUM_VALIDATIONS = 20
MAX_WARM_UP = 500  # iterations
MIN_OBJECT = 32  # px, side of the smallest anchors
MAX_ENLARGED = 2.0
DIVISOR = 32  # of image sides, the stride of the backbone
TEST_CROP = 0.9  # share of the short side that a test of a classifier sees
WIDE = 1.25  # aspect ratio from which boxes of objects with keypoints are wide or high instead of square


@dataclass(frozen=True)
class Recipe:
    """A config to start from, and the paths of its heads with a number of classes."""

    name: str
    base: Config
    heads: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """All that a written config contains beside names and paths; lengths are in iterations if ``epochs`` is None."""

    recipe: Recipe
    weights: str | None
    batch_size: int
    base_batch_size: int
    base_rate: float
    rate: float
    per_epoch: int
    epochs: int | None
    iterations: int
    val_interval: int
    warm_up: int
    size: tuple[int, int]
    median_size: tuple[int, int]
    median_object: int | None
    num_images: dict[str, int]
    labels: dict[str, Labels]


def make_plan(
    found: Found,
    task: str,
    labels: dict[str, Labels],
    recipe: Recipe,
    batch_size: int | None = None,
    weights: str | None = None,
) -> Plan:
    """Choose the settings.

    Args:
        found: The data, with the split and size of every image.
        task: The task.
        labels: Label files of each split.
        recipe: The config to start from.
        batch_size: Images per batch, or objects for keypoints; None for that of the task.
        weights: File or name of the pretrained weights of the backbone, 'none' for random ones; None for the recipe's.
    """
    defaults, base = DEFAULTS[task], recipe.base
    counts = {split: len(found.of(split)) for split in labels}
    num = counts['train']
    if task == 'pose':
        num = sum(len(image.objects) for image in found.of('train'))
    batch = min(batch_size or defaults.batch_size, num)
    loader = base.train_dataloader
    base_batch = base.get('auto_scale_lr', {}).get('base_batch_size') or loader.get('batch_size', batch)
    base_rate = base.optim_wrapper.optimizer.lr
    per_epoch = math.ceil(num / batch)
    epochs = min(max(math.ceil(defaults.iterations / per_epoch), defaults.epochs), MAX_EPOCHS)
    by_epoch = 'max_iters' not in base.train_cfg
    iterations = epochs * per_epoch
    length = epochs if by_epoch else iterations
    median_size, median_object = _medians(found)
    return Plan(
        recipe=recipe,
        weights=_find_weights(base, task, weights),
        batch_size=batch,
        base_batch_size=base_batch,
        base_rate=base_rate,
        rate=_round(base_rate * math.sqrt(batch / base_batch)),
        per_epoch=per_epoch,
        epochs=epochs if by_epoch else None,
        iterations=iterations,
        val_interval=max(length // NUM_VALIDATIONS, 1),
        warm_up=max(min(iterations // 10, MAX_WARM_UP), 1),
        size=_choose_size(task, defaults, median_size, median_object, found),
        median_size=median_size,
        median_object=median_object,
        num_images=counts,
        labels=labels,
    )


def find_recipe(task: str, name: str | None = None) -> Recipe:
    """The config of a task.

    Args:
        task: The task.
        name: Path or short name; None for the default of the task.

    Raises:
        UserError: If it does not exist, or is one of another task.
    """
    defaults = DEFAULTS[task]
    name = name or defaults.recipe
    base = load_config(name)
    scope = base.get('default_scope')
    has_masks = any('mask' in key for key in _keys(base.model))
    advice = f'choose one such as {defaults.recipe}'
    if scope != defaults.library:
        raise UserError(f'recipe {name} is one of {scope}, but --task {task} needs {defaults.library}: {advice}')
    if task == 'detection' and has_masks:
        raise UserError(f'recipe {name} also predicts masks: use --task instance, or {advice}')
    if task == 'instance' and not has_masks:
        raise UserError(f'recipe {name} predicts no masks: {advice}')
    expected = Expected.of(base.model)
    if expected.in_channels == 1:
        raise UserError(f'recipe {name} takes gray images, but own images are read in color: {advice}')
    if task == 'pose' and expected.num_keypoints is None:
        raise UserError(f'recipe {name} has no head with out_channels, the number of keypoints: {advice}')
    return Recipe(name, base, tuple(expected.num_classes))


def _keys(value: object) -> list[str]:
    """Names of the heads of a model, and of those below them."""
    if not isinstance(value, Mapping):
        return []
    return [key for key, item in value.items() if key.endswith('head') for key in (key, *_keys(item))]


def _find_weights(base: Config, task: str, weights: str | None) -> str | None:
    """Pretrained weights of the backbone, None for random ones.

    Recipes of classifiers train the backbone on ImageNet; they start from the result of that. Recipes of bundled data,
    which have small images, start from random weights.
    """
    backbone = base.model.backbone
    given = (backbone.get('init_cfg') or {}).get('checkpoint')
    if weights is not None or given:
        return None if weights == 'none' else weights or given
    roots = [str(leaf.get('data_root')) for leaf in leaves(base.train_dataloader)]
    is_published = task == 'classification' and backbone.type == 'MogaNet' and 'imagenet' in ' '.join(roots)
    return f'mogacore://moganet_{backbone.arch}' if is_published and isinstance(backbone.get('arch'), str) else None


def _medians(found: Found) -> tuple[tuple[int, int], int | None]:
    """Median long and short side of the images, and median side of the objects: the root of the area of the box."""
    sizes = [image.size for image in found.images]
    sides = [math.sqrt(entry['bbox'][2] * entry['bbox'][3]) for image in found.images for entry in image.objects
             if 'bbox' in entry]  # fmt: skip
    size = round(median(map(max, sizes))), round(median(map(min, sizes)))
    return size, round(median(sides)) if sides else None


def _choose_size(
    task: str, defaults: Defaults, median_size: tuple[int, int], median_object: int | None, found: Found
) -> tuple[int, int]:
    """Image size: long and short side; width and height of the crop of an object for keypoints."""
    long, short = median_size
    if task == 'pose':
        return _crop_of_objects(found, defaults.size)
    if task == 'classification':
        side = min(round_up(short), defaults.size[0])
        return side, side
    scale = 1.0
    if task in ('detection', 'instance') and median_object:
        scale = min(max(MIN_OBJECT / median_object, 1.0), MAX_ENLARGED)
    limit = min(defaults.size[0] / long, defaults.size[1] / short)
    scale = min(scale, limit)
    return (
        (round_up(long * scale), round_up(short * scale))
        if scale < limit
        else (round(long * scale), round(short * scale))
    )


def _crop_of_objects(found: Found, size: tuple[int, int]) -> tuple[int, int]:
    long, short = size
    ratios: Sequence[float] = [entry['bbox'][2] / entry['bbox'][3] for image in found.images for entry in image.objects]
    ratio = median(ratios)
    if ratio > WIDE:
        return long, short
    return (short, long) if ratio < 1 / WIDE else (short, short)


def round_up(side: float) -> int:
    """The next multiple of the stride of the backbone."""
    return math.ceil(side / DIVISOR) * DIVISOR


def _round(value: float) -> float:
    """Two significant digits."""
    return float(f'{value:.1e}')


def replaced_hooks(base: Config) -> list[dict]:
    """Hooks of a recipe that suit a training of any length and its own pipelines."""
    unfit = ('EMAHook', 'PipelineSwitchHook')
    return [hook for hook in base.get('custom_hooks') or () if type_name(hook['type']) not in unfit]
