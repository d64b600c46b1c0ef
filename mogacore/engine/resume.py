"""Resuming a run so exactly that its weights are those of a run that was never stopped.

No generator's state is saved. Instead what is random is a function of numbers that a checkpoint holds anyway:

- a sample (crops, flips, mixing of data sets): of the seed, the epoch and its position among the samples of all
  processes in that epoch. So neither the number of workers nor that of processes changes it;
- a training step (drop path, Mixup, sampling of boxes): of the seed, the rank and the iteration;
- the order of the samples: of the seed and the epoch, as in mmengine.

A resumed run then has only to begin at the right batch. Batches seen are passed over as indices: no picture is read.
What a data set remembers between samples, such as a cache of pictures to mix, starts empty again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_dist_info, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, DATASETS, HOOKS, LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import DataLoader, Dataset, Sampler

from mogacore.errors import UserError


def derive_seed(*numbers: int) -> int:
    """A seed of 32 bits that differs for different numbers, as far as 32 bits can, and shows no pattern of them."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def seed_all(seed: int) -> None:
    """Seed the generators of Python, numpy, and torch on every device."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the CPU's generators of Python, numpy and torch, and give them back as they were."""
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
    """Index of a sample, with the seed of what is random in loading it."""

    def __new__(cls, index: int, seed: int = 0):
        self = super().__new__(cls, index)
        self.seed = seed
        return self


@DATASETS.register_module()
class SeededDataset(Dataset):
    """Loads each sample with the seed that its index carries; in all else the data set that it wraps.

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
        # Before unpickling there is no dataset; torch's loader would load a batch around us by __getitems__.
        if name == 'dataset' or name.startswith('__'):
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value) -> None:
        # Hooks exchange the pipeline of the data set that they find in the loader.
        if name == 'dataset':
            super().__setattr__(name, value)
        else:
            setattr(self.dataset, name, value)


@DATA_SAMPLERS.register_module()
class ResumableSampler(Sampler):
    """Gives each index of a sampler its seed, and can begin in the midst of an epoch.

    Args:
        sampler: Config of the sampler.
        dataset: Data set, given by the Runner.
        seed: Seed of the run, given by the Runner.
    """

    def __init__(self, sampler: dict, dataset: Dataset, seed: int | None = None):
        self.sampler = DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=seed))
        self.dataset = dataset
        self.seed = getattr(self.sampler, 'seed', 0) if seed is None else seed
        self.epoch = 0
        self.num_skipped = 0

    def skip(self, num_samples: int) -> None:
        """Let the next iteration, and that one alone, begin after ``num_samples`` of this process."""
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
    """A batch sampler, of aspect ratios say, that can begin in the midst of an epoch.

    Args:
        batch_sampler: Config of the batch sampler.
        sampler: Sampler of the indices, given by the Runner.
        batch_size: Given by the Runner.
    """

    def __init__(self, batch_sampler: dict, sampler: Sampler, batch_size: int):
        self.batch_sampler = DATA_SAMPLERS.build(
            batch_sampler, default_args=dict(sampler=sampler, batch_size=batch_size)
        )
        self.sampler = sampler
        self.batch_size = batch_size
        self.num_skipped = 0

    def skip(self, num_batches: int) -> None:
        """Let the next iteration, and that one alone, begin after ``num_batches``."""
        self.num_skipped = num_batches

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[list[int]]:
        start, self.num_skipped = self.num_skipped, 0
        yield from islice(self.batch_sampler, start, None)


def skip_batches(loader: DataLoader, num_batches: int) -> None:
    """Let the next iteration over a loader begin after ``num_batches``, none of which is loaded."""
    if isinstance(loader.batch_sampler, SkippingBatchSampler):
        loader.batch_sampler.skip(num_batches)
    else:
        loader.sampler.skip(num_batches * loader.batch_size)


def _sampler(loader: DataLoader) -> ResumableSampler:
    return loader.batch_sampler.sampler


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """mmengine's loop over epochs, which goes on with the batch at which a checkpoint was saved.

    Attributes:
        batch_in_epoch: Batches done in the epoch that is under way, as a checkpoint saved now has to tell.
    """

    batch_in_epoch = 0

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
        """Whether the last thing that was done should have been followed by a validation."""
        self._decide_current_val_interval()
        is_turn = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        return self.batch_in_epoch == 0 and self._epoch >= max(self.val_begin, 1) and is_turn


class EndlessBatches:
    """The batches of a loader, over and over, from any batch on.

    mmengine's own iterator loads, in some versions, what it skips.
    """

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
        """Begin anew after ``num_batches`` of the first pass and of those that follow it."""
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
    """mmengine's loop over iterations, which goes on with the batch at which a checkpoint was saved."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.dataloader_iterator = EndlessBatches(self.dataloader)

    def validation_is_due(self) -> bool:
        """Whether the last thing that was done should have been followed by a validation."""
        self._decide_current_val_interval()
        is_turn = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        return self._iter >= max(self.val_begin, 1) and is_turn


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Seeds every training step, and brings the loop to the batch at which a checkpoint was saved."""

    priority = 'HIGHEST'

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        seed_all(derive_seed(runner.seed, get_rank(), runner.iter))

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint['meta']['position'] = self._position(runner)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        position = checkpoint.get('meta', {}).get('position')
        if not runner._resume or position is None:
            return
        now = self._position(runner)
        was, have = ((p['world_size'], p['batch_size']) for p in (position, now))
        if isinstance(runner.train_loop, ResumableEpochLoop):
            if position['batch_in_epoch'] and was != have:
                raise UserError(
                    f'the checkpoint was saved amid an epoch by {was[0]} processes with batches of {was[1]}: go on '
                    f'with as many (these are {have[0]} of {have[1]}), or from a checkpoint of the end of an epoch'
                )
            runner.train_loop.batch_in_epoch = position['batch_in_epoch']
        elif was != have:
            runner.logger.warning(
                f'resuming with {have[0]} processes and batches of {have[1]}, where the checkpoint had {was[0]} and '
                f'{was[1]}: other samples will follow than in a run that was never stopped'
            )

    @staticmethod
    def _position(runner) -> dict[str, int]:
        return dict(
            batch_in_epoch=getattr(runner.train_loop, 'batch_in_epoch', 0),
            batch_size=_batch_size(runner.train_dataloader),
            world_size=get_world_size(),
        )


@HOOKS.register_module()
class MissedValidationHook(Hook):
    """Validates at the start of a resumed run where the run may have been stopped between a checkpoint and this.

    A checkpoint is saved before the validation that follows it, and the best weights may come of that.
    """

    priority = 'LOWEST'

    def before_train(self, runner) -> None:
        is_resumed = runner._resume and runner.iter > 0
        if is_resumed and runner.val_loop is not None and runner.train_loop.validation_is_due():
            runner.val_loop.run()


def _batch_size(loader: DataLoader) -> int:
    return loader.batch_size or loader.batch_sampler.batch_size


def make_resumable(cfg: Config) -> None:
    """Put the parts of this module, and checkpoints that are whole, into the config of a training.

    Loops and hooks of the config's own making are left as they are.
    """
    loader = cfg.train_dataloader
    loader.dataset = dict(type='SeededDataset', dataset=loader.dataset)
    loader.sampler = dict(type='ResumableSampler', sampler=loader.sampler)
    if loader.get('batch_sampler'):
        loader.batch_sampler = dict(type='SkippingBatchSampler', batch_sampler=loader.batch_sampler)
    loop = cfg.train_cfg
    by_epoch = loop.pop('by_epoch', True)
    loop.setdefault('type', 'EpochBasedTrainLoop' if by_epoch else 'IterBasedTrainLoop')
    ours = {'EpochBasedTrainLoop': 'ResumableEpochLoop', 'IterBasedTrainLoop': 'ResumableIterLoop'}
    loop.type = ours.get(loop.type, loop.type)
    checkpoint = cfg.get('default_hooks', {}).get('checkpoint')
    if checkpoint is not None and checkpoint.type == 'CheckpointHook':
        checkpoint.type = 'SafeCheckpointHook'
    for name in ('train_dataloader', 'val_dataloader'):
        if cfg.get(name):
            cfg[name].setdefault('worker_init_fn', dict(type='live_with_parent'))
    hooks = [dict(type='ExactResumeHook'), dict(type='StopOnSignalHook')]
    if loop.type in ours.values():
        hooks.append(dict(type='MissedValidationHook'))
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), *hooks]
