"""Exact resuming: the weights of killed runs, and the parts that make them exact."""

import json
import os
import random
import signal
import subprocess
import sys
from types import SimpleNamespace

import mmengine.dataset.sampler
import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.hooks import DistSamplerSeedHook, EMAHook
from mmengine.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import DataLoader, Dataset, Sampler

from mogacore.engine import resume
from mogacore.engine.resume import (
    EndlessBatches,
    ExactResumeHook,
    MissedValidationHook,
    ResumableEpochLoop,
    ResumableSampler,
    SeededDataset,
    SkippingBatchSampler,
    derive_seed,
    make_resumable,
    seeded,
    skip_batches,
)
from mogacore.errors import UserError

LIBRARIES = {
    'classification': 'mmpretrain',
    'detection': 'mmdet',
    'segmentation': 'mmseg',
    'pose': 'mmpose',
    'video_prediction': 'mmengine',
}


@pytest.mark.parametrize('task', LIBRARIES)
def test_runs_killed_at_five_steps_end_with_the_weights_of_an_uninterrupted_run(task, tmp_path):
    pytest.importorskip(LIBRARIES[task])
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', ROOT / 'tests' / 'engine' / 'killed_runs.py', task, tmp_path],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert len({run['step'] for run in report}) == 5
    assert {run['killed_by'] for run in report} == {signal.SIGKILL}
    assert any(run['kept'] for run in report)
    assert [run['differs'] for run in report] == [[]] * 5, report


@DATASETS.register_module()
class NoiseDataset(Dataset):
    """Each sample is its index and a number from each generator; counts loaded samples."""

    def __init__(self, size=11):
        self.size, self.num_loaded, self.pipeline = size, 0, 'plain'

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        self.num_loaded += 1
        return index, random.random(), np.random.random(), torch.rand(()).item()


@DATA_SAMPLERS.register_module()
class PairBatchSampler(Sampler):
    """Batches of uneven length: 1, 2, 1, 2, ... indices."""

    def __init__(self, sampler, batch_size):
        self.sampler, self.batch_size = sampler, batch_size

    def __iter__(self):
        indices = list(self.sampler)
        while indices:
            yield indices[:1]
            if indices[1:]:
                yield indices[1:3]
            indices = indices[3:]


def make_loader(sampler='DefaultSampler', num_workers=0, batch_sampler=False, batch_size=2):
    dataset = SeededDataset(dict(type='NoiseDataset'))
    samples = ResumableSampler(dict(type=sampler, shuffle=True), dataset, seed=5)
    if batch_sampler:
        batches = SkippingBatchSampler(dict(type='PairBatchSampler'), samples, batch_size)
        return DataLoader(dataset, batch_sampler=batches, num_workers=num_workers, collate_fn=list)
    return DataLoader(dataset, batch_size, sampler=samples, num_workers=num_workers, collate_fn=list)


@pytest.mark.parametrize('batch_sampler', [False, True])
def test_loader_starts_at_any_batch_with_the_samples_of_a_full_epoch(batch_sampler):
    whole = list(make_loader(batch_sampler=batch_sampler))
    for num_batches, num_workers in ((0, 2), (1, 0), (3, 2), (len(whole), 0)):
        loader = make_loader(num_workers=num_workers, batch_sampler=batch_sampler)
        skip_batches(loader, num_batches)
        assert list(loader) == whole[num_batches:]
        assert list(loader) == whole  # the next epoch is complete
    assert len({sample[1] for batch in whole for sample in batch}) == 11


def test_skipped_batches_are_not_loaded():
    loader = make_loader()
    skip_batches(loader, 4)
    list(loader)
    assert loader.dataset.num_loaded == 11 - 4 * 2


def test_epochs_differ_in_order_and_in_randomness():
    loader = make_loader()
    first = [sample for batch in loader for sample in batch]
    loader.sampler.set_epoch(1)
    second = [sample for batch in loader for sample in batch]
    assert sorted(sample[0] for sample in first) == sorted(sample[0] for sample in second)
    assert [sample[0] for sample in first] != [sample[0] for sample in second]
    assert not {sample[1] for sample in first} & {sample[1] for sample in second}


@pytest.mark.parametrize('batch_sampler', [False, True])
def test_epochs_of_the_loop_are_complete_and_each_has_an_order_of_its_own(batch_sampler):
    loader = make_loader(batch_sampler=batch_sampler)
    steps: list[list] = []
    seeds = DistSamplerSeedHook()
    loop = object.__new__(ResumableEpochLoop)

    def start(name):
        if name == 'before_train_epoch':
            seeds.before_train_epoch(runner)
            runner.epoch += 1
            steps.append([])

    runner = SimpleNamespace(model=torch.nn.Identity(), train_loop=loop, train_dataloader=loader, epoch=0)
    runner.call_hook = start
    loop._runner, loop.dataloader, loop._epoch = runner, loader, 0
    loop.run_iter = lambda idx, batch: steps[-1].append((idx, [sample[0] for sample in batch]))
    for _ in range(3):
        loop.run_epoch()
    assert loop.epoch == 3
    for epoch in steps:
        assert [idx for idx, _ in epoch] == list(range(len(epoch)))
        assert sorted(index for _, batch in epoch for index in batch) == list(range(11))
    assert len({str(epoch) for epoch in steps}) == 3
    loop.batch_in_epoch = 2
    loop.run_epoch()
    assert [idx for idx, _ in steps[-1]] == list(range(2, len(steps[0])))


def test_two_processes_load_the_samples_of_one_with_the_same_randomness(monkeypatch):
    one = {sample for batch in make_loader() for sample in batch}
    both = []
    for rank in range(2):
        for module in (resume, mmengine.dataset.sampler):
            monkeypatch.setattr(module, 'get_dist_info', lambda rank=rank: (rank, 2))
        both.append([sample for batch in make_loader() for sample in batch])
    # The first of the 11 samples is repeated, so that both processes have the same number of steps.
    assert [len(samples) for samples in both] == [6, 6]
    assert one < {*both[0], *both[1]}
    assert len({sample[0] for samples in both for sample in samples}) == 11


def test_loading_does_not_change_the_generators_of_training():
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    with seeded(3):
        random.random(), np.random.random(), torch.rand(1)
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


@pytest.mark.parametrize('sampler', ['DefaultSampler', 'InfiniteSampler'])
@pytest.mark.parametrize('num_batches', [0, 3, 6, 14])
def test_endless_batches_start_anywhere(sampler, num_batches):
    """An epoch has 6 batches; the last one has a single sample."""
    whole = EndlessBatches(make_loader(sampler))
    shown = [next(whole) for _ in range(20)]
    resumed = EndlessBatches(make_loader(sampler))
    resumed.skip_iter(num_batches)
    assert [next(resumed) for _ in range(20 - num_batches)] == shown[num_batches:]


def test_seeds_differ_for_neighboring_numbers():
    seeds = {derive_seed(seed, epoch, position) for seed in range(5) for epoch in range(5) for position in range(200)}
    assert len(seeds) == 5 * 5 * 200


@DATA_SAMPLERS.register_module()
class SeedlessSampler(Sampler):
    def __init__(self, dataset, seed):
        self.indices = range(len(dataset))

    def __iter__(self):
        return iter(self.indices)


@pytest.mark.parametrize('sampler, given, seed', [
    (dict(type='DefaultSampler', seed=7), None, 7), (dict(type='DefaultSampler'), 5, 5),
    (dict(type='SeedlessSampler'), None, 0), (dict(type='SeedlessSampler'), 5, 5),
])  # fmt: skip
def test_samples_have_the_seed_of_the_run_or_of_the_sampler_from_epoch_0(sampler, given, seed):
    found = list(ResumableSampler(sampler, SeededDataset(dict(type='NoiseDataset')), given))
    assert [index.seed for index in found] == [derive_seed(seed, 0, position) for position in range(11)]


def test_a_checkpoint_of_a_custom_loop_has_no_place_in_an_epoch():
    saved = dict(meta=dict(epoch=2, iter=15))
    ExactResumeHook().before_save_checkpoint(fake_runner(SimpleNamespace()), saved)
    assert saved['meta']['validated_iter'] is None and saved['meta']['position']['batch_in_epoch'] == 0


def test_hooks_reach_the_wrapped_data_set():
    dataset = SeededDataset(dict(type='NoiseDataset'))
    dataset.pipeline = 'light'
    assert dataset.dataset.pipeline == dataset.pipeline == 'light'
    with pytest.raises(AttributeError, match='nothing'):
        dataset.nothing  # noqa: B018


def config(**settings):
    loader = dict(batch_size=2, sampler=dict(type='DefaultSampler'), dataset=dict(type='NoiseDataset'))
    hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
    return Config(
        dict(
            dict(train_dataloader=loader, train_cfg=dict(by_epoch=True, max_epochs=3), default_hooks=hooks), **settings
        )
    )


def test_config_gets_the_resumable_parts():
    cfg = config()
    make_resumable(cfg)
    assert cfg.train_dataloader.dataset == dict(type='SeededDataset', dataset=dict(type='NoiseDataset'))
    assert cfg.train_dataloader.sampler == dict(type='ResumableSampler', sampler=dict(type='DefaultSampler'))
    assert cfg.train_cfg == dict(type='ResumableEpochLoop', max_epochs=3)
    assert cfg.default_hooks.checkpoint == dict(type='SafeCheckpointHook', interval=1)
    assert {hook['type'] for hook in cfg.custom_hooks} == {
        'ExactResumeHook', 'RestoreSchedulesHook', 'StopOnSignalHook', 'MissedValidationHook', 'CheckSchedulesHook',
    }  # fmt: skip


def test_a_batch_sampler_can_start_mid_epoch():
    cfg = config()
    cfg.train_dataloader.batch_sampler = dict(type='PairBatchSampler')
    make_resumable(cfg)
    assert cfg.train_dataloader.batch_sampler == dict(
        type='SkippingBatchSampler', batch_sampler=dict(type='PairBatchSampler')
    )


@pytest.mark.parametrize(
    'given, length, expected',
    [
        ({}, dict(val_interval=7), dict(by_epoch=False, interval=7)),
        (dict(by_epoch=True), {}, dict(by_epoch=False, interval=1000)),
        (dict(by_epoch=False), dict(val_interval=7), dict(by_epoch=False, interval=2)),
    ],
)
def test_a_training_that_counts_iterations_logs_and_saves_by_iterations(given, length, expected):
    cfg = config(
        train_cfg=dict(by_epoch=False, max_iters=30, **length),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=2, **given)),
    )
    make_resumable(cfg)
    assert cfg.default_hooks.checkpoint == dict(type='SafeCheckpointHook', **expected)
    assert cfg.log_processor == dict(by_epoch=False)


def test_custom_loops_and_hooks_are_kept():
    cfg = config(train_cfg=dict(type='OwnLoop'), default_hooks=dict(checkpoint=dict(type='OwnHook')))
    make_resumable(cfg)
    assert (cfg.train_cfg.type, cfg.default_hooks.checkpoint.type) == ('OwnLoop', 'OwnHook')
    assert 'MissedValidationHook' not in {hook['type'] for hook in cfg.custom_hooks}


def fake_runner(loop, batch_size=2):
    loader = make_loader(batch_size=batch_size)
    logger = SimpleNamespace(warning=print)
    return SimpleNamespace(
        _resume=True, train_loop=loop, train_dataloader=loader, optim_wrapper=None, hooks=[], logger=logger
    )


def test_mid_epoch_checkpoint_needs_the_same_world_size_and_batch_size():
    loop = object.__new__(ResumableEpochLoop)
    loop.batch_in_epoch = 3
    saved = dict(meta=dict(epoch=2, iter=15))
    ExactResumeHook().before_save_checkpoint(fake_runner(loop), saved)
    loop.batch_in_epoch = 0
    with pytest.raises(
        UserError, match=r'mid-epoch with .* batch size 2 .* this run has .* batch size 4 .* use the same batch size'
    ):
        ExactResumeHook().after_load_checkpoint(fake_runner(loop, batch_size=4), saved)
    ExactResumeHook().after_load_checkpoint(fake_runner(loop), saved)
    assert loop.batch_in_epoch == 3
    saved['meta']['position']['batch_in_epoch'] = 0
    ExactResumeHook().after_load_checkpoint(fake_runner(loop, batch_size=4), saved)
    assert loop.batch_in_epoch == 0
    assert saved['meta']['iter'] == 2 * 3  # two epochs of 11 images in batches of 4


@pytest.mark.parametrize(
    'start, steps, expected',
    [(dict(begin_epoch=0), 12, 6), (dict(begin_epoch=1), 6, 3), (dict(begin_iter=4), 8, 2), (dict(begin_iter=9), 3, 0)],
)
def test_epochs_of_another_length_move_the_iteration_and_the_updates_of_an_average(start, steps, expected):
    """Two epochs of 6 batches count as two of 3; an average that starts at an iteration has started at the same one."""
    loop = object.__new__(ResumableEpochLoop)
    loop.batch_in_epoch = 0
    saved = dict(meta=dict(epoch=2, iter=12), ema_state_dict=dict(steps=torch.tensor(steps)), gradients={})
    ExactResumeHook().before_save_checkpoint(fake_runner(loop), saved)
    same = fake_runner(loop)
    same.hooks = [EMAHook(**start)]
    ExactResumeHook().after_load_checkpoint(same, saved)
    assert (saved['meta']['iter'], saved['ema_state_dict']['steps'], 'gradients' in saved) == (12, steps, True)
    shorter = fake_runner(loop, batch_size=4)
    shorter.hooks = [EMAHook(**start)]
    ExactResumeHook().after_load_checkpoint(shorter, saved)
    assert (saved['meta']['iter'], saved['ema_state_dict']['steps'], 'gradients' in saved) == (6, expected, False)


@pytest.mark.parametrize(
    'epoch, batch_in_epoch, val_begin, val_interval, expected',
    [(2, 0, 1, 2, 1), (2, 1, 1, 2, 0), (1, 0, 1, 2, 0), (5, 0, 1, 2, 1), (2, 0, 3, 2, 0), (0, 0, 1, 2, 0)],
)
def test_interrupted_validation_is_run_on_resume(epoch, batch_in_epoch, val_begin, val_interval, expected):
    loop = object.__new__(ResumableEpochLoop)
    loop._epoch, loop._iter, loop._max_epochs, loop.batch_in_epoch = epoch, 7 * epoch, 5, batch_in_epoch
    loop.val_begin, loop.val_interval = val_begin, val_interval
    loop.dynamic_milestones, loop.dynamic_intervals = [0], [val_interval]
    validated = []
    val_loop = SimpleNamespace(run=lambda: validated.append(True))
    MissedValidationHook().before_train(
        SimpleNamespace(_resume=True, iter=loop._iter, val_loop=val_loop, train_loop=loop)
    )
    assert len(validated) == expected
