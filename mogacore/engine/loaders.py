"""Data loaders that yield at least one batch in each process."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sized
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, cast

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, DataLoader, get_worker_info

from mogacore import machine
from mogacore.errors import UserError

from .stop import live_with_parent

# What numpy reports where mmengine packs the records of a data set without any.
NO_RECORDS = 'need at least one array to concatenate'


def build_loader(settings: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False) -> DataLoader:
    """Build a data loader with mmengine, and check that it yields a batch.

    Its workers live with their parent (:func:`mogacore.engine.stop.live_with_parent`) and end without a traceback if
    they run out of file handles or shared memory, unless the settings name a ``worker_init_fn``.

    Raises:
        UserError: If the data set has no samples, or fewer than there are processes, or fewer per process than a batch
            where an incomplete batch is dropped.
    """
    Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]
    if isinstance(settings, Mapping):
        settings = {'worker_init_fn': {'type': start_worker}, **settings}
    try:
        loader = Runner.build_dataloader(settings, seed, diff_rank_seed)
    except ValueError as error:
        if str(error) != NO_RECORDS:
            raise
        raise _no_samples(describe_dataset(cast('dict', settings)['dataset'])) from None
    check_loader(loader)
    return loader


_report = Queue._on_queue_feeder_error  # type: ignore[attr-defined]


def start_worker(worker_id: int, **kwargs) -> None:
    """What each data loader worker runs first."""
    live_with_parent(worker_id)
    # Python calls it for errors of the thread that hands file handles of batches to the main process.
    sys.excepthook = lambda kind, error, trace: _end_worker(error, None)


def _end_worker(error: BaseException, item: Any) -> None:
    """End a data loader worker that cannot pass on a batch; it would carry on, and torch wait for the batch forever."""
    if get_worker_info() is None:
        _report(error, item)
    elif failure := machine.explain(error):
        os._exit(machine.EXIT_NO_FILES if failure.what == machine.FILES[0] else machine.EXIT_NOT_SHARED)
    else:
        traceback.print_exception(error)
        os._exit(1)


def check_loader(loader: DataLoader) -> None:
    """Check that a loader yields a batch in each process; data sets without a length are not checked.

    Raises:
        UserError: See :func:`build_loader`.
    """
    if not hasattr(loader.dataset, '__len__'):
        return
    name, size, world_size = describe_dataset(loader.dataset), len(cast('Sized', loader.dataset)), get_world_size()
    if not size:
        raise _no_samples(name)
    if size < world_size:
        raise UserError(f'{name} has {size} samples for {_processes(world_size)}: start at most {_processes(size)}')
    sampler = getattr(loader.batch_sampler, 'sampler', None)
    sampler = getattr(sampler, 'sampler', sampler)  # inside a ResumableSampler
    if not isinstance(sampler, InfiniteSampler) and not len(loader):
        batch = getattr(loader.batch_sampler, 'batch_size', 'unknown size')
        raise UserError(
            f'{name} has {size} samples for {_processes(world_size)}, not a batch of {batch} for each, and drop_last '
            'drops the rest: lower batch_size, or set drop_last=False of the data loader'
        )


def batch_size(loader: DataLoader) -> int:
    """Samples in a full batch of a loader; torch has None for one whose config names a batch sampler."""
    return loader.batch_size or cast('BatchSampler', loader.batch_sampler).batch_size


def _processes(number: int) -> str:
    return f'{number} process{"es" if number > 1 else ""}'


def _no_samples(name: str) -> UserError:
    return UserError(
        f'{name} has no samples, or its filter leaves none: correct the data, ann_file, indices, filter_cfg or the '
        'classes of metainfo'
    )


def describe_dataset(dataset) -> str:
    """Type and location of a data set, or of its config, inside wrappers with a single data set."""
    get = dataset.get if isinstance(dataset, Mapping) else lambda key, default=None: getattr(dataset, key, default)
    inner = get('dataset')
    if inner is not None:
        return describe_dataset(inner)
    kind: str | type = dataset['type'] if isinstance(dataset, Mapping) else type(dataset)
    places = [get(key) for key in ('ann_file', 'data_root')]
    place = next((str(place) for place in places if isinstance(place, (str, Path)) and str(place)), '')
    return f'the data set {kind if isinstance(kind, str) else kind.__name__}{f" ({place})" if place else ""}'
