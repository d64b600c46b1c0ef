"""Choices for a training on user data: recipe, image size, batch size, rate and length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from mmengine.config import Config

from mogacore.engine.config import leaves
from mogacore.errors import UserError
from mogacore.text import type_name

from .found import Found
from .labels import Labels
from .recipes import DEFAULTS, Defaults, Recipe, advice

MAX_EPOCHS = 300
NUM_VALIDATIONS = 20
MAX_WARM_UP = 500  # iterations
MIN_OBJECT = 32  # px, side of the smallest anchors
MAX_ENLARGED = 2.0
MIN_SCALE = 0.8  # of the augmentation of detectors
QUERY_STRIDES = (8, 16, 32, 64)
DIVISOR = 32  # of image sides, the stride of the backbone
TEST_CROP = 0.9  # share of the short side that a test of a classifier sees
WIDE = 1.25  # aspect ratio from which boxes of objects with keypoints are wide or high instead of square


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

    Raises:
        UserError: If the images are too small for the recipe.
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
    size = _choose_size(task, defaults, median_size, median_object, found)
    _check_queries(recipe, task, size, found)
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
        size=size,
        median_size=median_size,
        median_object=median_object,
        num_images=counts,
        labels=labels,
    )


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


def _check_queries(recipe: Recipe, task: str, size: tuple[int, int], found: Found) -> None:
    """A DINO chooses its queries among the points of its maps: a small image may have fewer of them.

    Raises:
        UserError: If it has.
    """
    model = recipe.base.model
    if type_name(model.type) != 'DINO':
        return
    smallest = 0
    for image in found.images:
        long, short = max(image.size), min(image.size)
        scale = MIN_SCALE * min(max(size) / long, min(size) / short)
        sides = round_up(long * scale), round_up(short * scale)
        points = sum(math.prod(math.ceil(side / stride) for side in sides) for stride in QUERY_STRIDES)
        smallest = min(points, smallest or points)
    if smallest < model.num_queries:
        raise UserError(
            f'recipe {recipe.name} has {model.num_queries} queries, but the smallest image only {smallest} points at '
            f'strides 8 to 64: take a config with model.num_queries up to that, or {advice(task)}'
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
