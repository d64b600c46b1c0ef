"""Trains, kills and resumes one task several times in forks of one process, to import the libraries only once.

Usage: killed_runs.py TASK FOLDER. Prints a JSON list with one item per killed run: where it was killed, which
checkpoints it left, and which tensors finally differ from those of the uninterrupted run.
"""

import json
import os
import random
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from conftest import ROOT, TINY_ARCH
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

import mogacore.registry  # noqa: F401, registers our classes
from mogacore.checkpoint import read
from mogacore.datasets.digits import write_digits
from mogacore.engine.runner import train
from mogacore.libraries import import_quietly

NUM_STEPS = 12
# mmengine formats the config again for each checkpoint, which takes longer than all the steps here.
Config.pretty_text = property(str)
BACKBONE = dict(arch=dict(TINY_ARCH, _delete_=True), drop_path_rate=0.3)
# When the process is killed: before a step, after it but before its checkpoint, or while the checkpoint is written.
PHASES = ('before', 'after', 'writing')
WORKERS = ((0, False), (1, True), (2, False), (2, True), (1, False))


def make_configs(num_steps=NUM_STEPS):
    """For each task: the config to start from, the library, and the settings of a run of 12, 24, ... steps.

    Each has random augmentation, drop path, and other state that a run has to restore.
    """
    # Of a training counted in iterations.
    schedules = [
        dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=5),
        dict(type='CosineAnnealingLR', eta_min=0, by_epoch=False, begin=5, end=num_steps),
    ]
    return {
        # Epochs of 6 batches; Mixup, averaged weights, 5 batches per optimizer step, with no checkpoint at such a step.
        'classification': dict(
            base='moganet-xtiny_digits.py',
            library='mmpretrain',
            settings=dict(
                model=dict(
                    backbone=BACKBONE,
                    head=dict(in_channels=32, loss=dict(type='CrossEntropyLoss', use_soft=True, _delete_=True)),
                    train_cfg=dict(augments=dict(type='Mixup', alpha=0.8)),
                ),
                train_dataloader=dict(batch_size=8, dataset=dict(times=1, dataset=dict(indices=47))),
                val_dataloader=dict(batch_size=8, dataset=dict(indices=8)),
                optim_wrapper=dict(accumulative_counts=5),
                custom_hooks=[dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.1)],
                train_cfg=dict(max_epochs=num_steps // 6),
                default_hooks=dict(checkpoint=dict(by_epoch=False, interval=2)),
            ),
        ),
        # Epochs of 3 batches grouped by aspect ratio; checkpoints after epochs.
        'detection': dict(
            base='mask-rcnn_moganet-xtiny_fpn_digits.py',
            library='mmdet',
            settings=dict(
                model=dict(
                    backbone=BACKBONE,
                    neck=dict(in_channels=[8, 16, 24, 32]),
                    train_cfg=dict(rpn_proposal=dict(nms_pre=50, max_per_img=20), rcnn=dict(sampler=dict(num=16))),
                    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=5), rcnn=dict(max_per_img=5)),
                ),
                train_dataloader=dict(
                    batch_size=2,
                    batch_sampler=dict(type='AspectRatioBatchSampler'),
                    dataset=dict(
                        indices=5,
                        pipeline=[
                            dict(type='LoadImageFromFile'),
                            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
                            dict(type='RandomResize', scale=(72, 72), ratio_range=(0.8, 1.2), keep_ratio=True),
                            dict(type='RandomFlip', prob=0.5),
                            dict(type='PackDetInputs'),
                        ],
                    ),
                ),
                val_dataloader=dict(batch_size=2, dataset=dict(indices=2)),
                train_cfg=dict(max_epochs=num_steps // 3),
                default_hooks=dict(checkpoint=dict(interval=1)),
            ),
        ),
        # Iterations over an endless sampler.
        'segmentation': dict(
            base='semantic-fpn_moganet-xtiny_digits.py',
            library='mmseg',
            settings=dict(
                model=dict(
                    backbone=BACKBONE, neck=dict(in_channels=[8, 16, 24, 32]), data_preprocessor=dict(size=(64, 64))
                ),
                train_dataloader=dict(
                    batch_size=2,
                    dataset=dict(
                        pipeline=[
                            dict(type='LoadImageFromFile'),
                            dict(type='LoadAnnotations'),
                            dict(type='RandomCrop', crop_size=(64, 64)),
                            dict(type='RandomFlip', prob=0.5),
                            dict(type='PhotoMetricDistortion'),
                            dict(type='PackSegInputs'),
                        ]
                    ),
                ),
                val_dataloader=dict(batch_size=1),
                train_cfg=dict(max_iters=num_steps, val_interval=6),
                param_scheduler=schedules,
                default_hooks=dict(checkpoint=dict(interval=4)),
            ),
        ),
        # Iterations over passes of 5 batches.
        'pose': dict(
            base='td-hm_moganet-xtiny_digits.py',
            library='mmpose',
            settings=dict(
                model=dict(backbone=BACKBONE, head=dict(in_channels=32)),
                train_dataloader=dict(batch_size=4, dataset=dict(indices=18)),
                val_dataloader=dict(batch_size=4, dataset=dict(indices=4)),
                train_cfg=dict(_delete_=True, type='IterBasedTrainLoop', max_iters=num_steps, val_interval=5),
                param_scheduler=schedules,
                default_hooks=dict(checkpoint=dict(by_epoch=False, interval=3)),
            ),
        ),
        # Sequences generated while reading; learning rate and momentum follow a cycle.
        'video_prediction': dict(
            base='simvp_moganet_moving-digits.py',
            library='mmengine',
            settings=dict(
                model=dict(spatial_dims=4, temporal_dims=8, temporal_depth=2, drop_path_rate=0.3),
                train_dataloader=dict(batch_size=2, dataset=dict(num_sequences=8)),
                val_dataloader=dict(batch_size=2),
                train_cfg=dict(max_epochs=num_steps // 4),
                default_hooks=dict(checkpoint=dict(by_epoch=False, interval=3)),
            ),
        ),
    }


@HOOKS.register_module()
class KillHook(Hook):
    """Kills this process at a given step and phase, one of ``PHASES``."""

    priority = 'HIGH'  # before the checkpoint hook

    def __init__(self, step: int, phase: str):
        self.step, self.phase = step, phase

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.step and self.phase == 'before':
            os.kill(os.getpid(), signal.SIGKILL)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter >= self.step and self.phase == 'after':
            os.kill(os.getpid(), signal.SIGKILL)
        if runner.iter >= self.step and self.phase == 'writing':
            os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)


def in_fork(work, log):
    """Run ``work`` in a fork that writes to ``log``; return the number of the signal that killed it, 0 if none."""
    pid = os.fork()
    if pid == 0:
        with open(log, 'a') as file, redirect_stdout(file), redirect_stderr(file):
            os.dup2(file.fileno(), 2)
            try:
                work()
            except BaseException:
                import traceback

                traceback.print_exc(file=file)
                file.flush()
                os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(Path(log).read_text()[-3000:])
    return os.WTERMSIG(status)


def difference(path, reference):
    """Names of the tensors in two checkpoints that are not bit-identical: weights, averages, optimizer state."""
    found, expected = read(path), read(reference)
    assert found['meta']['iter'] == expected['meta']['iter']
    parts = [('state_dict', found['state_dict'], expected['state_dict'])]
    if 'ema_state_dict' in expected:
        parts.append(('ema', found['ema_state_dict'], expected['ema_state_dict']))
    states = (container['optimizer']['state'] for container in (found, expected))
    flat = [
        {f'{i}.{name}': value for i, state in enumerate(s.values()) for name, value in state.items()} for s in states
    ]
    parts.append(('optimizer', *flat))
    differs = []
    for part, ours, theirs in parts:
        assert ours.keys() == theirs.keys() and ours
        differs += [f'{part}.{name}' for name in theirs if not torch.equal(torch.as_tensor(ours[name]), theirs[name])]
    return differs


def prepare(task, folder, num_steps=NUM_STEPS):
    """Write the data and ``config.py`` of a task to a folder, the new current one; returns its item of the configs."""
    spec = make_configs(num_steps)[task]
    os.chdir(folder)
    part = {'classification': 'classification', 'video_prediction': 'moving'}.get(task, 'scenes')
    write_digits(Path('data/digits'), parts=(part,), num_train_scenes=12, num_val_scenes=2, num_sequences=2)
    base = ROOT / 'configs' / task / spec['base']
    lines = [f'{key} = {value!r}' for key, value in spec['settings'].items()]
    Path('config.py').write_text(f"_base_ = '{base}'\n" + '\n'.join(lines) + '\n')
    import_quietly(spec['library'])
    torch.set_num_threads(1)  # a fork of a process with computing threads deadlocks
    return spec


def last_checkpoint(task, num_steps=NUM_STEPS):
    """Name of the checkpoint at the end of a run."""
    return f'epoch_{num_steps // 3}.pth' if task == 'detection' else f'iter_{num_steps}.pth'


def main(task, folder):
    spec = prepare(task, folder)

    def run(work_dir, workers=(0, False), resume=None, kill=None):
        options = {
            f'train_dataloader.{k}': v for k, v in zip(('num_workers', 'persistent_workers'), workers, strict=True)
        }
        options |= {'val_dataloader.num_workers': 0, 'val_dataloader.persistent_workers': False}
        hooks = spec['settings'].get('custom_hooks', [])
        options['custom_hooks'] = (
            hooks if kill is None else [*hooks, dict(type='KillHook', step=kill[0], phase=kill[1])]
        )
        return in_fork(
            lambda: train('config.py', work_dir=work_dir, resume=resume, cfg_options=options), f'{work_dir}.log'
        )

    last = last_checkpoint(task)
    assert run('whole') == 0
    rng = random.Random(task)
    report = []
    for number, step in enumerate(sorted(rng.sample(range(1, NUM_STEPS), len(WORKERS)))):
        phase, workers, name = PHASES[number % len(PHASES)], WORKERS[number], f'killed_{step}'
        killed_by = run(name, workers, kill=(step, phase))
        assert not Path(name, last).exists()
        states = sorted(path.name for path in Path(name).glob('*_*.pth') if not path.name.startswith('best'))
        run(name, workers, resume='auto')
        report.append(
            dict(
                step=step,
                phase=phase,
                killed_by=killed_by,
                kept=states,
                differs=difference(Path(name, last), Path('whole', last)),
            )
        )
    print(json.dumps(report))


if __name__ == '__main__':
    main(*sys.argv[1:])
