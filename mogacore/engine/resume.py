"""Exact resuming: a resumed run ends with the same weights as an uninterrupted one.

No generator state is saved. Instead, everything random is a function of numbers that a checkpoint contains anyway:

- a sample (crops, flips, mixing of data sets): the seed, the epoch and the sample's position among the samples of all
  processes in that epoch. The result is therefore independent of the number of workers and processes;
- a training step (drop path, Mixup, sampling of boxes): the seed, the rank and the iteration;
- the order of the samples: the seed and the epoch, as in mmengine.

A resumed run then only needs to start at the right batch. Finished batches are skipped as indices, without reading
images. State that a data set keeps between samples, such as a cache of images for mixing, starts empty again.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import cast

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_dist_info, get_rank, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import DATA_SAMPLERS, DATASETS, HOOKS, LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from mogacore.errors import UserError
from mogacore.text import type_name

from .length import check_schedules, choose_loop
from .loaders import batch_size


def derive_seed(*numbers: int) -> int:
    """Hash numbers to a 32-bit seed; different numbers give different seeds, except for rare collisions."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def seed_all(seed: int) -> None:
    """Seed the generators of Python, numpy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the CPU generators of Python, numpy and torch, and restore their states afterwards."""
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


class SeededIndex(int):
    """Index of a sample that also carries the seed for loading it."""

    seed: int

    def __new__(cls, index: int, seed: int = 0):
        self = super().__new__(cls, index)
        self.seed = seed
        return self


@DATASETS.register_module()
class SeededDataset(Dataset):
    """Loads each sample with the seed that its index carries; otherwise behaves like the data set that it wraps.

    Args:
        dataset: Config of the data set.
    """

    def __init__(self, dataset: dict):
        self.dataset = DATASETS.build(dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int):
        with seeded(getattr(index, 'seed', 0)):
            return self.dataset[int(index)]

    def __getattr__(self, name: str):
        # While unpickling, ``dataset`` does not exist yet. With ``__getitems__`` torch would bypass the seeds.
        if name == 'dataset' or name.startswith('__'):
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value) -> None:
        # Hooks replace the pipeline of the data set that they find in the loader.
        if name == 'dataset':
            super().__setattr__(name, value)
        else:
            setattr(self.dataset, name, value)


@DATA_SAMPLERS.register_module()
class ResumableSampler(Sampler):
    """Attaches a seed to each index of a sampler, and can start mid-epoch.

    Args:
        sampler: Config of the sampler.
        dataset: Data set, passed by the Runner.
        seed: Seed of the run, passed by the Runner.
    """

    def __init__(self, sampler: dict, dataset: Dataset, seed: int | None = None):
        self.sampler = DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=seed))
        self.dataset = dataset
        self.seed = getattr(self.sampler, 'seed', 0) if seed is None else seed
        self.epoch = 0
        self.num_skipped = 0

    def skip(self, num_samples: int) -> None:
        """Make only the next iteration start after ``num_samples`` of this process."""
        self.num_skipped = num_samples

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[SeededIndex]:
        start, self.num_skipped = self.num_skipped, 0
        rank, world_size = get_dist_info()
        for position, index in enumerate(islice(self.sampler, start, None), start):
            yield SeededIndex(index, derive_seed(self.seed, self.epoch, position * world_size + rank))


@DATA_SAMPLERS.register_module()
class SkippingBatchSampler(Sampler):
    """Wraps a batch sampler, such as one that groups by aspect ratio, so that it can start mid-epoch.

    Args:
        batch_sampler: Config of the batch sampler.
        sampler: Sampler of the indices, passed by the Runner.
        batch_size: Batch size, passed by the Runner.
    """

    def __init__(self, batch_sampler: dict, sampler: Sampler, batch_size: int):
        self.batch_sampler = DATA_SAMPLERS.build(
            batch_sampler, default_args=dict(sampler=sampler, batch_size=batch_size)
        )
        self.sampler = sampler
        self.batch_size = batch_size
        self.num_skipped = 0

    def skip(self, num_batches: int) -> None:
        """Make only the next iteration start after ``num_batches``."""
        self.num_skipped = num_batches

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[list[int]]:
        start, self.num_skipped = self.num_skipped, 0
        yield from islice(self.batch_sampler, start, None)


def skip_batches(loader: DataLoader, num_batches: int) -> None:
    """Make the next iteration over a loader start after ``num_batches``, without loading them."""
    batch_sampler = _batch_sampler(loader)
    if isinstance(batch_sampler, SkippingBatchSampler):
        batch_sampler.skip(num_batches)
    else:
        _sampler(loader).skip(num_batches * batch_sampler.batch_size)


def _batch_sampler(loader: DataLoader) -> BatchSampler | SkippingBatchSampler:
    return cast('BatchSampler | SkippingBatchSampler', loader.batch_sampler)  # torch's own unless the config names one


def _sampler(loader: DataLoader) -> ResumableSampler:
    return cast('ResumableSampler', _batch_sampler(loader).sampler)


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """mmengine's loop over epochs, which resumes at the batch at which the checkpoint was saved.

    Attributes:
        batch_in_epoch: Number of batches finished in the current epoch, which a checkpoint stores.
        validated_iter: Number of finished iterations at the last complete validation.
    """

    batch_in_epoch = 0
    validated_iter: int | None = None

    def run_epoch(self) -> None:
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        done = self.batch_in_epoch
        skip_batches(self.dataloader, done)
        for idx, data_batch in enumerate(self.dataloader, start=done):
            self.batch_in_epoch = idx + 1
            self.run_iter(idx, data_batch)
        self.batch_in_epoch = 0
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def validation_is_due(self) -> bool:
        """Whether a validation is due after the last finished step."""
        self._decide_current_val_interval()
        is_turn = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        return self.batch_in_epoch == 0 and self._epoch >= max(self.val_begin, 1) and is_turn


class EndlessBatches:
    """Iterates endlessly over the batches of a loader, starting at any batch.

    Some versions of mmengine's own iterator load the batches that they skip.
    """

    iterator: Iterator | None

    def __init__(self, loader: DataLoader):
        self.loader = loader
        self._begin_pass(0)

    def __iter__(self) -> EndlessBatches:
        return self

    def __next__(self):
        if self.iterator is None:
            self.iterator = iter(self.loader)
        try:
            return next(self.iterator)
        except StopIteration:
            self._begin_pass(self.number + 1)
            self.iterator = iter(self.loader)
            return next(self.iterator)

    def skip_iter(self, num_batches: int) -> None:
        """Restart after ``num_batches``, counted across passes from the start of the first one."""
        if isinstance(_sampler(self.loader).sampler, InfiniteSampler):
            passes = 0
        else:
            passes, num_batches = divmod(num_batches, len(self.loader))
        self._begin_pass(passes)
        skip_batches(self.loader, num_batches)

    def _begin_pass(self, number: int) -> None:
        self.number = number
        self.iterator = None
        _sampler(self.loader).set_epoch(number)


@LOOPS.register_module()
class ResumableIterLoop(IterBasedTrainLoop):
    """mmengine's loop over iterations, which resumes at the batch at which the checkpoint was saved."""

    validated_iter: int | None = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.dataloader_iterator = EndlessBatches(self.dataloader)

    def validation_is_due(self) -> bool:
        """Whether a validation is due after the last finished step."""
        self._decide_current_val_interval()
        is_turn = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        return self._iter >= max(self.val_begin, 1) and is_turn


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Seeds every training step, and moves the loop to the batch at which the checkpoint was saved."""

    priority = 'HIGHEST'

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        seed_all(derive_seed(runner.seed, get_rank(), runner.iter))

    def after_val_epoch(self, runner, metrics=None) -> None:
        runner.train_loop.validated_iter = runner.iter

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint['meta']['position'] = self._position(runner)
        checkpoint['meta']['validated_iter'] = getattr(runner.train_loop, 'validated_iter', None)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if not runner._resume:
            return
        runner.train_loop.validated_iter = checkpoint['meta'].get('validated_iter')
        now = self._position(runner)
        saved = checkpoint['meta'].get('position') or {}
        position = {**now, 'batch_in_epoch': 0, **saved}
        if isinstance(runner.train_loop, ResumableEpochLoop):
            if position['batch_in_epoch']:
                self._check_same_epoch(position, now)
            elif any(position[key] != now[key] for key in (*EPOCH_SETTINGS, 'num_batches')) or not saved:
                self._move_to_epoch(runner, checkpoint)
            runner.train_loop.batch_in_epoch = position['batch_in_epoch']
        elif any(position[key] != now[key] for key in EPOCH_SETTINGS):
            runner.logger.warning(
                f'resuming with {_describe(now)}, but the checkpoint was saved with {_describe(position)}: the next '
                'samples will differ from those of an uninterrupted run'
            )
        if position['accumulative_counts'] != now['accumulative_counts']:
            checkpoint.pop('gradients', None)

    @staticmethod
    def _check_same_epoch(position: dict[str, int], now: dict[str, int]) -> None:
        for key, name in EPOCH_SETTINGS.items():
            if position[key] != now[key]:
                raise UserError(
                    f'the checkpoint was saved mid-epoch with {_describe(position)}, but this run has '
                    f'{_describe(now)}: use the same {name}, or a checkpoint from the end of an epoch'
                )

    @staticmethod
    def _move_to_epoch(runner, checkpoint: dict) -> None:
        """Count iterations, also those of averaged weights, as if all finished epochs had the length of this run's."""
        meta = checkpoint['meta']
        was, now = meta['iter'], meta['epoch'] * len(runner.train_dataloader)
        if was == now:
            return
        runner.logger.warning(
            f'the epochs of this run have {len(runner.train_dataloader)} iterations, those of the checkpoint another '
            f'number: iteration {was} counts as {now}'
        )
        meta['iter'] = now
        checkpoint.pop('gradients', None)  # of a step that is unfinished at another iteration
        steps = checkpoint.get('ema_state_dict', {}).get('steps')
        for hook in runner.hooks:
            if isinstance(hook, EMAHook) and steps is not None and was:
                # Averaging starts at an epoch, or at an iteration, which is the same in epochs of another length.
                moved = round(steps.item() * now / was) if hook.enabled_by_epoch else steps.item() + now - was
                steps.fill_(max(moved, 0))

    @staticmethod
    def _position(runner) -> dict[str, int]:
        return dict(
            batch_in_epoch=getattr(runner.train_loop, 'batch_in_epoch', 0),
            batch_size=batch_size(runner.train_dataloader),
            world_size=get_world_size(),
            num_images=len(runner.train_dataloader.dataset),
            num_batches=len(runner.train_dataloader),
            accumulative_counts=getattr(runner.optim_wrapper, '_accumulative_counts', 1),
        )


# What the batches of an epoch depend on: key of a position -> name for a message.
EPOCH_SETTINGS = dict(world_size='number of processes', batch_size='batch size', num_images='data set')


def _describe(position: dict[str, int]) -> str:
    return 'world size {world_size}, batch size {batch_size} and {num_images} images'.format(**position)


@HOOKS.register_module()
class MissedValidationHook(Hook):
    """Runs an interrupted validation on resume.

    A checkpoint is saved before the validation that follows it, so a run may stop between the two. The best checkpoint
    may depend on that validation. A checkpoint that is saved again after it, with a new best score, says so: a second
    validation would repeat the step of a schedule that follows a metric.
    """

    priority = 'LOWEST'

    def before_train(self, runner) -> None:
        is_validated = getattr(runner.train_loop, 'validated_iter', None) == runner.iter
        is_resumed = runner._resume and runner.iter > 0 and not is_validated
        if is_resumed and runner.val_loop is not None and runner.train_loop.validation_is_due():
            runner.val_loop.run()


def _count_iterations(cfg: Config) -> None:
    """Make the log and the checkpoints of a config that counts epochs count iterations."""
    cfg.log_processor = dict(cfg.get('log_processor') or {}, by_epoch=False)
    checkpoint = cfg.get('default_hooks', {}).get('checkpoint')
    if checkpoint and checkpoint.get('by_epoch', True):
        checkpoint.update(by_epoch=False, interval=cfg.train_cfg.get('val_interval', 1000))


def make_resumable(cfg: Config, changes: Iterable[str] = ()) -> None:
    """Make a training config resumable, with atomic checkpoints; changes the config in place.

    Custom loops and custom checkpoint hooks are left unchanged.

    Args:
        cfg: Training config.
        changes: Changes of the schedules, for the log.
    """
    loader = cfg.train_dataloader
    loader.dataset = dict(type='SeededDataset', dataset=loader.dataset)
    loader.sampler = dict(type='ResumableSampler', sampler=loader.sampler)
    if loader.get('batch_sampler'):
        loader.batch_sampler = dict(type='SkippingBatchSampler', batch_sampler=loader.batch_sampler)
    loop = cfg.train_cfg
    choose_loop(loop)
    if loop.type == 'IterBasedTrainLoop':
        _count_iterations(cfg)
    reports = dict(warnings=check_schedules(cfg), changes=changes)
    ours = {'EpochBasedTrainLoop': 'ResumableEpochLoop', 'IterBasedTrainLoop': 'ResumableIterLoop'}
    loop.type = ours.get(loop.type, loop.type)
    checkpoint = cfg.get('default_hooks', {}).get('checkpoint')
    if checkpoint is not None and type_name(checkpoint.type) == 'CheckpointHook':
        checkpoint.type = 'SafeCheckpointHook'
    # The first one changes the position that the second one relies on.
    hooks: list[dict] = [dict(type='ExactResumeHook'), dict(type='RestoreSchedulesHook'), dict(type='StopOnSignalHook')]
    if loop.type in ours.values():
        hooks += [dict(type='MissedValidationHook'), dict(type='CheckSchedulesHook', **reports)]
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), *hooks]
