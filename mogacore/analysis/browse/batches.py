"""Samples of a split as the network gets them, drawn at random from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from mmengine.runner import set_random_seed
from torch import Tensor
from torch.utils.data import DataLoader

from mogacore.engine.config import build_model
from mogacore.engine.dataset_meta import channel_order
from mogacore.engine.loaders import batch_size
from mogacore.engine.split import Split
from mogacore.inference.samples import Samples, create_samples
from mogacore.runtime.tasks import Result

from .pixels import Scale
from .steps import Step, find_transforms, walk

MIN_MIXED = 16  # images of a batch that is mixed, so that each has partners
# Of hands; a list of meta_keys may lack them.
POSE_KEYS = ('hand_type', 'rel_root_depth')


@dataclass
class View:
    """A sample as the network gets it.

    Args:
        tensor: Network input (C, H, W).
        image: The same as (H, W, 3) uint8 RGB.
        truth: Annotations, see :meth:`mogacore.inference.samples.Samples.truth`.
        meta: Metainfo of the sample, such as ``img_path``.
    """

    tensor: Tensor
    image: np.ndarray
    truth: Result
    meta: dict


class Reader:
    """Gives random samples of a split.

    Args:
        split: The split.
        seed: Seed of all random numbers.

    Raises:
        UserError: If the data has problems or cannot be read.
    """

    def __init__(self, split: Split, seed: int):
        self.seed = seed
        self.loader: DataLoader = split.loader()
        self.dataset: Any = self.loader.dataset

    def choose(self, number: int) -> list[int]:
        """Numbers of random samples, one in each of as many parts of equal length of the data set."""
        size = len(self.dataset)
        bounds = np.linspace(0, size, min(number, size) + 1).round().astype(int)
        rng = np.random.default_rng(self.seed)
        return [int(rng.integers(low, high)) for low, high in pairwise(bounds)]

    def item(self, index: int, version: int = 1) -> dict:
        """A version of a sample, as the data set gives it; it does not depend on which others are drawn."""
        self.set_seed(index, version)
        return self.dataset[index]

    def set_seed(self, index: int, version: int) -> None:
        """Seed Python, numpy and torch for a version of a sample."""
        set_random_seed(int(np.random.SeedSequence([self.seed, index, version]).generate_state(1)[0]))


class Viewer(Reader):
    """Gives the samples of a split of images as the network gets them.

    In a test pipeline that loads the annotations after it has resized the image, they are loaded before, so that they
    fit the image.

    Arguments and errors are those of :class:`Reader`.
    """

    def __init__(self, split: Split, seed: int):
        self.is_training = split.stage == 'train'
        self.preprocessor: Any = build_model(split.cfg).data_preprocessor
        _prepare_pipelines(split.settings['dataset'], self.is_training)
        super().__init__(split, seed)
        self.samples: Samples = create_samples(split.cfg, self.dataset.metainfo)
        self.scale = Scale.of_files(channel_order(split.cfg, split.stage))

    def views(self, indices: Sequence[int], version: int) -> list[View]:
        """One augmented version of samples, in batches of the size of training.

        If the data preprocessor mixes images, a small batch is filled with other samples.
        """
        indices = list(indices)
        number = len(indices)
        if self.is_training and getattr(self.preprocessor, 'batch_augments', None):
            rng = np.random.default_rng([self.seed, version])
            indices += rng.integers(len(self.dataset), size=max(0, MIN_MIXED - number)).tolist()
        step = max(batch_size(self.loader), MIN_MIXED if number < len(indices) else 1)
        found: list[View] = []
        for start in range(0, number, step):
            found += self._batch(indices[start : start + step], version)
        return found[:number]

    def _batch(self, indices: list[int], version: int) -> list[View]:
        items, scales = [], []
        for index in indices:
            items.append(self.item(index, version))
            scales.append(self._final_scale(index))
        self.set_seed(indices[0], version)
        data = self.preprocessor(self.loader.collate_fn(items), training=self.is_training)
        views = []
        for tensor, sample, scale in zip(data['inputs'], data['data_samples'], scales, strict=True):
            image, truth = scale.to_image(tensor), self.samples.truth(sample)
            views.append(View(tensor, image, fit(truth, image.shape[:2]), sample.metainfo))
        return views

    def _final_scale(self, index: int) -> Scale:
        scale = self.scale
        for link in find_transforms(self.dataset, index)[2]:
            scale = scale.after(link.transform)
        return scale.preprocessed(self.preprocessor)

    def steps(self, index: int, version: int) -> list[Step]:
        """The sample after each transform of the pipeline, with the random numbers of :meth:`views`."""
        self.set_seed(index, version)
        return list(walk(self.dataset, index, self.samples, self.scale))


def fit(truth: Result, size: tuple[int, int]) -> Result:
    """Pad or cut maps and masks at the right and the bottom to the size of an image, as the data preprocessor pads."""
    fitted = dict(truth)
    for name, empty in (('masks', False), ('class_map', 0), ('ignored', True)):
        if name in truth and truth[name].shape[-2:] != size:
            values = truth[name][..., : size[0], : size[1]]
            missing = [(0, size[axis] - values.shape[axis - 2]) for axis in (0, 1)]
            padding = [(0, 0)] * (values.ndim - 2) + missing
            fitted[name] = np.pad(values, padding, constant_values=empty)
    return fitted


def _prepare_pipelines(dataset: Any, is_training: bool) -> None:
    """Change the pipelines in the config of a data set, see :class:`Viewer`, and keep what is needed to draw poses."""
    if isinstance(dataset, list | tuple):
        for item in dataset:
            _prepare_pipelines(item, is_training)
    if not isinstance(dataset, dict):
        return
    steps = list(dataset.get('pipeline') or ())
    annotations = [step for step in steps if 'LoadAnnotations' in str(step.get('type'))]
    if not is_training and annotations and 'LoadImage' in str(steps[0].get('type')):
        others = [step for step in steps[1:] if step not in annotations]
        steps = [steps[0], *annotations, *others]
    for number, step in enumerate(steps):
        if str(step.get('type')).endswith('PackPoseInputs'):
            keys = step.get('meta_keys')
            steps[number] = dict(step, pack_transformed=True)
            if keys:
                steps[number]['meta_keys'] = tuple(dict.fromkeys((*keys, *POSE_KEYS)))
    if steps:
        dataset['pipeline'] = steps
    for key in ('dataset', 'datasets'):
        _prepare_pipelines(dataset.get(key), is_training)
