"""Speed of training pipelines: processor time of each step for an image, on one core."""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS

from mogacore.engine.config import leaves, load_config, locate_data, use_library
from mogacore.engine.devices import describe_machine
from mogacore.engine.fast_data import use_fast_data
from mogacore.errors import UserError
from mogacore.packs import read_bytes
from mogacore.text import type_name

from .made_up_data import SIZES, make_up, write_photos

Step = tuple[str, Callable]


def measure_data(name: str, num_images: int = 32, rounds: int = 5, progress: Callable[[str], None] = print) -> dict:
    """Time the training pipeline of a config, with and without ``fast_data``, and equal ones of timm and torchvision.

    The pipelines take turns in each round, each with the same images. Without the data of the config, images of the
    size of ImageNet, COCO or ADE20K and annotations are made up, see :mod:`mogacore.analysis.made_up_data`.

    Args:
        name: Config, by path or short name.
        num_images: Number of images of the training set.
        rounds: Number of rounds; the median counts.
        progress: Called with what is being measured.

    Returns:
        ``pipelines``: for each its name, ``ms`` and ``images_per_s`` per core, ``ratio`` (images per second relative to
        the config's pipeline) and ``steps`` (their names and ``ms``); ``images`` and ``machine``.

    Raises:
        UserError: If the config has no training data of its own, and none can be made up.
    """
    cfg = load_config(name)
    use_library(cfg)
    with tempfile.TemporaryDirectory() as folder, single_thread():
        samples, source = _samples(cfg, num_images, Path(folder))
        pipelines = _pipelines(cfg)
        times: dict[str, list[np.ndarray]] = {label: [] for label in pipelines}
        for number in range(rounds + 1):
            for label, steps in pipelines.items():
                progress(f'round {number} of {rounds}: {label}')
                spent = _spent(steps, samples)
                if number:  # the first round fills caches
                    times[label].append(spent)
    rows: list[dict] = []
    for label, steps in pipelines.items():
        ms = statistics.median(spent.sum() for spent in times[label])
        by_step = np.median(times[label], axis=0)
        rows.append({
            'name': label,
            'ms': ms,
            'images_per_s': 1000 / ms,
            'ratio': rows[0]['ms'] / ms if rows else 1.0,
            'steps': [{'name': step, 'ms': value} for (step, _), value in zip(steps, by_step.tolist(), strict=True)],
        })  # fmt: skip
    return {'config': name, 'pipelines': rows, 'images': source, 'machine': describe_machine('cpu')}


@contextmanager
def single_thread() -> Iterator[None]:
    """One thread of torch and OpenCV, as in the workers of a data loader."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def _spent(steps: Sequence[Step], samples: Sequence[dict]) -> np.ndarray:
    """Processor time of each step in ms per sample."""
    total = np.zeros(len(steps))
    for sample in samples:
        value = deepcopy(sample)
        for index, (_, step) in enumerate(steps):
            start = time.process_time()
            value = step(value)
            total[index] += time.process_time() - start
            if value is None:  # a step may reject a sample
                break
    return total * 1000 / len(samples)


def _samples(cfg: Config, number: int, folder: Path) -> tuple[list[dict], str]:
    """What the first step of a pipeline gets for evenly spaced images, and where these are from."""
    scope = cfg.get('default_scope')
    leaf = next(leaves(cfg.train_dataloader))
    source = ''
    try:
        locate_data(cfg, 'train')
    except UserError:
        if scope not in SIZES:
            raise
        if scope == 'mmpretrain':
            files = write_photos(folder, number, SIZES[scope])
            samples = [{'img_path': str(path), 'gt_label': 0, 'sample_idx': i} for i, path in enumerate(files)]
            height, width = SIZES[scope]
            return samples, f'{number} made-up photos of {width} x {height} px'
        source = make_up(leaf, scope, number, folder)
    dataset = DATASETS.build(dict(leaf, pipeline=[], lazy_init=False))
    chosen = np.unique(np.linspace(0, len(dataset) - 1, number).round().astype(int))
    samples = [dataset.get_data_info(int(index)) for index in chosen]
    return samples, source or f'{len(chosen)} images of the training set'


def _pipelines(cfg: Config) -> dict[str, list[Step]]:
    steps = next(leaves(cfg.train_dataloader)).pipeline
    found = {'config': _build(steps)}
    scope, loader = cfg.get('default_scope'), deepcopy(cfg.train_dataloader.to_dict())
    fast = Config(dict(train_dataloader=loader, default_scope=scope, fast_data=True))
    try:
        use_fast_data(fast)
    except UserError:
        return found
    found['fast_data=True'] = _build(next(leaves(fast.train_dataloader)).pipeline)
    options = {type_name(step['type']): step for step in steps}
    if scope == 'mmpretrain' and {'RandomResizedCrop', 'RandAugment'} <= options.keys():
        found |= _others(options['RandomResizedCrop']['scale'], options['RandAugment'])
    return found


def _build(steps: Sequence[dict]) -> list[Step]:
    return [(type_name(step['type']), TRANSFORMS.build(step)) for step in steps]


def _others(size: int, augment: dict) -> dict[str, list[Step]]:
    """The pipelines of timm and torchvision with the same kinds of steps and RandAugment of the same magnitude."""
    level, deviation = augment['magnitude_level'], augment['magnitude_std']
    found: dict[str, list[Step]] = {}
    if find_spec('timm'):
        from PIL import Image
        from timm.data import create_transform

        transform = create_transform(
            size, is_training=True, auto_augment=f'rand-m{level}-mstd{deviation}-inc1', interpolation='bicubic',
            re_prob=0.25, re_mode='pixel',
        )  # fmt: skip
        found['timm'] = [
            ('decode', lambda sample: Image.open(io.BytesIO(read_bytes(sample['img_path']))).convert('RGB')),
            *((type(step).__name__, step) for step in transform.transforms),
        ]
    if find_spec('torchvision'):
        from torchvision.io import ImageReadMode, decode_image
        from torchvision.transforms import InterpolationMode, v2

        found['torchvision'] = [
            ('decode', lambda sample: decode_image(_encoded(sample), ImageReadMode.RGB)),
            ('RandomResizedCrop', v2.RandomResizedCrop(size, interpolation=InterpolationMode.BICUBIC, antialias=True)),
            ('RandomHorizontalFlip', v2.RandomHorizontalFlip()),
            ('RandAugment', v2.RandAugment(2, round(level * 3.1))),  # of 31 levels, not of 10
            ('ToDtype', v2.ToDtype(torch.float32, scale=True)),
            ('Normalize', v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])),
            ('RandomErasing', v2.RandomErasing(0.25, value='random')),
        ]
    return found


def _encoded(sample: dict) -> torch.Tensor:
    """The image file of a sample as a tensor of bytes."""
    return torch.from_numpy(np.frombuffer(read_bytes(sample['img_path']), np.uint8).copy())
