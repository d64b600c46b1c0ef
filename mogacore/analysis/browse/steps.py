"""A sample after each transform of its pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy, deepcopy
from dataclasses import dataclass
from itertools import dropwhile, takewhile
from typing import Any

import numpy as np

from mogacore.errors import UserError
from mogacore.inference.samples import PoseSamples, Samples
from mogacore.runtime.tasks import Result

from .pixels import Scale


@dataclass
class Step:
    """A sample after a transform.

    Args:
        name: Name of the transform; '' for what the data set gives.
        image: (H, W, 3) uint8 RGB.
        truth: Annotations, see :meth:`mogacore.inference.samples.Samples.truth`.
    """

    name: str
    image: np.ndarray
    truth: Result

    def equals(self, other: Step) -> bool:
        """Whether image and annotations are the same."""
        if self.truth.keys() != other.truth.keys() or not np.array_equal(self.image, other.image):
            return False
        return all(np.array_equal(value, other.truth[name], equal_nan=True) for name, value in self.truth.items())


@dataclass
class _Link:
    """A transform, and the data set that gives the other images of a mix."""

    transform: Callable
    owner: Any


def find_transforms(dataset: Any, index: int) -> tuple[Any, int, list[_Link]]:
    """The innermost data set with its index of a sample, and all transforms, also those of wrappers around it."""
    if hasattr(dataset, '_get_ori_dataset_idx'):  # mmengine's wrappers
        found = dataset._get_ori_dataset_idx(index)
        if isinstance(found, tuple):
            return find_transforms(dataset.datasets[found[0]], found[1])
        return find_transforms(dataset.dataset, found)
    if type(dataset).__name__ == 'MultiImageMixDataset':
        inner, index, links = find_transforms(dataset.dataset, index)
        return inner, index, links + [_Link(transform, dataset) for transform in dataset.pipeline]
    return dataset, index, [_Link(transform, dataset) for transform in dataset.pipeline.transforms]


def walk(dataset: Any, index: int, samples: Samples, scale: Scale) -> Iterator[Step]:
    """Yield the sample after each transform, from the first image on.

    The intermediate results are packed by the last transform of the pipeline. With the same random numbers, the last
    step is ``dataset[index]``, unless the data set has replaced a sample that the pipeline drops.

    Args:
        dataset: A data set whose pipeline ends with a transform that packs the sample.
        index: Number of the sample.
        samples: Of the task.
        scale: Of the images that the data set loads.

    Raises:
        UserError: If the pipeline does not pack the sample.
    """
    inner, index, links = find_transforms(dataset, index)
    if not links or not type(links[-1].transform).__name__.startswith('Pack'):
        raise UserError('the steps of a pipeline without a last transform Pack... cannot be shown: omit --steps')
    pack = copy(links[-1].transform)
    results = inner.get_data_info(index)
    if isinstance(samples, PoseSamples):  # as mmpose's data sets do, for transforms that mix images
        results['dataset'] = inner
    if 'img' in results:
        yield _step('', results, pack, samples, scale)
    for link in links[:-1]:
        indices = getattr(link.transform, 'get_indexes', getattr(link.transform, 'get_indices', None))
        if link.owner is not inner and indices is not None:
            chosen = np.atleast_1d(indices(link.owner.dataset))
            results['mix_results'] = [deepcopy(link.owner.dataset[int(other)]) for other in chosen]
        results = link.transform(results)
        if results is None:  # such as a crop without objects: training takes another sample
            return
        results.pop('mix_results', None)
        scale = scale.after(link.transform)
        if 'img' in results:
            yield _step(_name(link.transform), results, pack, samples, scale)


def _step(name: str, results: dict, pack: Callable, samples: Samples, scale: Scale) -> Step:
    packed = pack(deepcopy({key: value for key, value in results.items() if key != 'dataset'}))
    return Step(name, scale.to_image(packed['inputs']), samples.truth(packed['data_samples']))


def _name(transform: Callable) -> str:
    return type(getattr(transform, 't', transform)).__name__


def loaded(steps: list[Step]) -> Step:
    """The sample as it is loaded: after the first transforms, which load the image and the annotations."""
    return list(takewhile(lambda step: not step.name or 'Load' in step.name, steps))[-1]


def changes(steps: list[Step]) -> list[Step]:
    """The sample as it is loaded, and each step that has changed it."""
    first = loaded(steps)
    kept = [first]
    for step in dropwhile(lambda step: step is not first, steps):
        if not step.equals(kept[-1]):
            kept.append(step)
    return kept
