"""Atomic checkpoints."""

import errno
import os
import re
import shutil
import subprocess
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import mmengine
import numpy as np
import pytest
import torch
from conftest import ROOT, TINY_ARCH
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.fileio import LocalBackend
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from test_files import full_disk
from test_tools import tool
from torch import nn
from toy_runs import CONFIG, rates, toy_run

from mogacore import files
from mogacore.checkpoint import read
from mogacore.datasets.digits import write_digits
from mogacore.engine.runner import train
from mogacore.engine.saving import SafeCheckpointHook, is_intact, newest_intact_checkpoint, pending_gradients
from mogacore.errors import UserError
from mogacore.libraries import import_quietly


def test_mmengine_writes_local_files_atomically(tmp_path, monkeypatch):
    path = tmp_path / 'new' / 'file.json'
    mmengine.dump({'a': 1}, path)
    monkeypatch.setattr(files.os, 'fsync', full_disk)
    with pytest.raises(OSError, match='No space left'):
        mmengine.dump({'a': 2}, path)
    assert mmengine.load(path) == {'a': 1}
    assert [entry.name for entry in path.parent.iterdir()] == ['file.json']


def state(path, iteration, **more):
    weight = torch.rand(5000)
    optimizer = torch.optim.SGD([weight], lr=0.1).state_dict()
    hub = dict(log_scalars={}, runtime_info={}, resumed_keys={})
    container = dict(meta=dict(iter=iteration, epoch=0), state_dict=dict(a=weight), optimizer=optimizer)
    container |= dict(message_hub=hub, **more)
    torch.save(container, path)
    return path


def test_newest_checkpoint_is_the_intact_one_with_the_most_iterations(tmp_path):
    assert newest_intact_checkpoint(tmp_path) is None
    state(tmp_path / 'best_b.pth', 80)
    with pytest.raises(UserError, match='none of the 1 checkpoints'):
        newest_intact_checkpoint(tmp_path)
    best = state(tmp_path / 'iter_30.pth', 30)
    state(tmp_path / 'iter_20.pth', 20)  # newer timestamp, as after copying
    (tmp_path / 'last_checkpoint').write_text('/nowhere/iter_70.pth')
    truncated = state(tmp_path / 'iter_40.pth', 40)
    truncated.write_bytes(truncated.read_bytes()[:-100])
    damaged = state(tmp_path / 'iter_50.pth', 50)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    (tmp_path / 'empty.pth').touch()
    state(tmp_path / 'best_a.pth', 60)
    torch.save(dict(meta=dict(iter=70), state_dict={}), tmp_path / 'weights.pth')
    assert not is_intact(truncated) and not is_intact(damaged) and is_intact(best)
    assert newest_intact_checkpoint(tmp_path) == str(best)


def test_work_dir_with_only_damaged_checkpoints_is_reported(tmp_path):
    (tmp_path / 'iter_1.pth').write_bytes(b'PK\x03\x04')
    with pytest.raises(UserError, match=r'none of the 1 checkpoints in .* is an intact training state: give one with'):
        newest_intact_checkpoint(tmp_path)


class FakeRunner:
    """Provides what the hook needs of a Runner; saves small files until the disk is full."""

    def __init__(self, work_dir):
        self.train_loop = SimpleNamespace()
        self.work_dir, self.is_full, self.epoch, self.iter = str(work_dir), False, 0, 0
        self.message_hub = mmengine.MessageHub('fake')
        self.model = nn.Linear(2, 2)
        self.optim_wrapper = OptimWrapper(torch.optim.SGD(self.model.parameters(), lr=0.1))
        self.logger = SimpleNamespace(info=print)

    def save_checkpoint(self, out_dir, filename, *args, **kwargs):
        if self.is_full:
            raise OSError(errno.ENOSPC, 'No space left on device')
        # The old checkpoints must still exist before the new one does.
        self.seen = sorted(path.name for path in Path(out_dir).glob('*.pth'))
        Path(out_dir, filename).write_text('x')


@pytest.fixture
def hooked(tmp_path):
    runner = FakeRunner(tmp_path)
    hook = SafeCheckpointHook(interval=1, max_keep_ckpts=2, save_best='score', rule='greater')
    hook.out_dir, hook.file_backend, hook.keep_ckpt_ids = str(tmp_path), LocalBackend(), deque([], 2)
    return hook, runner


def names(runner):
    return sorted(path.name for path in Path(runner.work_dir).glob('*.pth'))


def test_old_checkpoint_is_removed_after_the_new_one_is_saved(hooked):
    hook, runner = hooked
    for step in (1, 2, 3):
        hook._save_checkpoint_with_step(runner, step, {})
    assert runner.seen == ['epoch_1.pth', 'epoch_2.pth']
    assert names(runner) == ['epoch_2.pth', 'epoch_3.pth']
    assert Path(runner.work_dir, 'last_checkpoint').read_text() == str(Path(runner.work_dir, 'epoch_3.pth'))
    runner.is_full = True
    with pytest.raises(OSError):
        hook._save_checkpoint_with_step(runner, 4, {})
    assert names(runner) == ['epoch_2.pth', 'epoch_3.pth']
    assert Path(runner.work_dir, 'last_checkpoint').read_text() == str(Path(runner.work_dir, 'epoch_3.pth'))


def test_old_best_is_removed_after_the_new_one_is_saved(hooked):
    hook, runner = hooked
    for runner.epoch, score in ((1, 0.1), (2, 0.3), (3, 0.2)):
        hook._save_best_checkpoint(runner, {'score': score})
    assert names(runner) == ['best_score_epoch_2.pth']
    assert runner.seen == ['best_score_epoch_1.pth']
    runner.is_full, runner.epoch = True, 4
    with pytest.raises(OSError):
        hook._save_best_checkpoint(runner, {'score': 0.9})
    assert names(runner) == ['best_score_epoch_2.pth']


def test_the_best_checkpoint_of_each_metric_is_kept(hooked, tmp_path):
    _, runner = hooked
    hook = SafeCheckpointHook(interval=1, save_best=['a', 'b'], rule='greater')
    hook.out_dir, hook.file_backend = str(tmp_path), LocalBackend()
    hook.best_ckpt_path_dict = dict(a=None, b=None)
    for runner.epoch, a, b in ((1, 1, 1), (2, 2, 0), (3, 0, 0)):
        hook._save_best_checkpoint(runner, dict(a=a, b=b))
    assert names(runner) == ['best_a_epoch_2.pth', 'best_b_epoch_1.pth']


def test_auto_watches_the_first_score_that_is_a_number(hooked, tmp_path):
    _, runner = hooked
    hook = SafeCheckpointHook(interval=1, save_best='auto', rule='greater')
    hook.out_dir, hook.file_backend, hook.best_ckpt_path = str(tmp_path), LocalBackend(), None
    hook._save_best_checkpoint(runner, {'confusion_matrix/result': torch.eye(2)})
    assert names(runner) == []
    for runner.epoch, top5, precision in ((1, 0.1, 9), (2, 0.3, 1), (3, 0.2, 7)):
        scores = {'accuracy/top5': np.float32(top5), 'single-label/precision': precision}
        hook._save_best_checkpoint(runner, {'confusion_matrix/result': torch.eye(2)} | scores)
    assert names(runner) == ['best_accuracy_top5_epoch_2.pth']


@pytest.mark.parametrize('evaluator, key', [
    (dict(type='Accuracy', topk=(1, 5)), 'accuracy/top1'),
    ([dict(type='ConfusionMatrix', num_classes=6), dict(type='Accuracy', topk=(5,))], 'accuracy/top5'),
    (dict(type='SingleLabelMetric', items=('recall', 'f1-score')), 'single-label/recall'),
])  # fmt: skip
def test_the_score_to_watch_in_classification_follows_from_the_evaluator(evaluator, key, hooked, tmp_path):
    pytest.importorskip('mmpretrain')
    import_quietly('mmpretrain')
    _, runner = hooked
    cfg = Config.fromfile(ROOT / 'configs' / 'classification' / '_base_' / 'default_runtime.py')
    settings = {key: value for key, value in cfg.default_hooks.checkpoint.items() if key != 'type'}
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        metrics = Evaluator(evaluator)
    samples = [dict(gt_label=torch.tensor([label]), pred_score=torch.rand(6), pred_label=torch.tensor([0]))
               for label in range(6)]  # fmt: skip
    metrics.process(samples)
    hook = SafeCheckpointHook(**settings)
    hook.out_dir, hook.file_backend, hook.best_ckpt_path = str(tmp_path), LocalBackend(), None
    hook._save_best_checkpoint(runner, metrics.evaluate(6))
    assert hook.key_indicators == [key]


def test_a_score_to_watch_of_no_metric_is_refused_before_training(tmp_path):
    options = dict(default_hooks__checkpoint__save_best='accuracy/top1')
    with pytest.raises(UserError, match=r'save_best=accuracy/top1 is no score .* choose one of toy/\.\.\., or auto'):
        toy_run(tmp_path, 'run', **options)
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_a_score_for_early_stopping_that_the_metric_does_not_give_loses_no_state(tmp_path):
    hook = "custom_hooks += [dict(type='EarlyStoppingHook', monitor='toy/other', rule='less')]\n"
    message = r'EarlyStoppingHook.monitor=toy/other is no score .* which gives toy/score: .*interrupted\.pth'
    with pytest.raises(UserError, match=message):
        toy_run(tmp_path, 'run', config=hook, default_hooks__checkpoint__interval=5)
    assert (tmp_path / 'run' / 'interrupted.pth').is_file() and len(rates(tmp_path, 'run')) == 6


def test_a_score_that_the_metric_does_not_give_loses_no_state(tmp_path):
    """No regular checkpoint precedes the first validation, which shows that the score is missing."""
    options = dict(default_hooks__checkpoint__interval=5, default_hooks__checkpoint__rule='less')
    with pytest.raises(
        UserError, match=r'save_best=toy/other .* which gives toy/score: resume with .*interrupted\.pth'
    ):
        toy_run(tmp_path, 'run', default_hooks__checkpoint__save_best='toy/other', **options)
    assert len(rates(tmp_path, 'run')) == 6
    toy_run(tmp_path, 'run', 'auto', default_hooks__checkpoint__save_best='toy/score', **options)
    assert [record[1] for record in rates(tmp_path, 'run')] == list(range(36))
    assert (tmp_path / 'run' / 'best_toy_score_epoch_1.pth').is_file()


def test_interrupted_checkpoint_is_removed_with_the_next_one(hooked):
    hook, runner = hooked
    hook.save_interrupted(runner)
    assert names(runner) == ['interrupted.pth']
    hook._save_checkpoint_with_step(runner, 1, {})
    assert names(runner) == ['epoch_1.pth']


def test_accumulated_gradients_are_pending_until_their_step_is_due():
    model = nn.Linear(2, 2)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 10)
    wrapper.update_params(model(torch.ones(1, 2)).sum())
    waiting = pending_gradients(model, wrapper)
    assert waiting.keys() == {'weight', 'bias'}
    torch.testing.assert_close(waiting['bias'], torch.full((2,), 0.5))
    wrapper.update_params(model(torch.ones(1, 2)).sum())
    assert pending_gradients(model, wrapper) == {}


NUM_STEPS = 8


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    pytest.importorskip('mmpretrain')
    folder = tmp_path_factory.mktemp('project')
    write_digits(folder / 'data' / 'digits', parts=('classification',))
    (folder / 'small.py').write_text(f"""
_base_ = '{ROOT / 'configs' / 'classification' / 'moganet-xtiny_digits.py'}'
model = dict(backbone=dict(arch=dict(_delete_=True, **{TINY_ARCH}), drop_path_rate=0.2), head=dict(in_channels=32))
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False,
                        dataset=dict(times=1, dataset=dict(indices={4 * NUM_STEPS})))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(indices=8))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1, max_keep_ckpts=-1, save_best=None))
""")
    tool('train.py', 'small.py', '--work-dir', 'whole', cwd=folder)
    return folder


def assert_same_end(project, work_dir):
    found, expected = (read(Path(project, folder) / f'iter_{NUM_STEPS}.pth') for folder in (work_dir, 'whole'))
    for name, value in expected['state_dict'].items():
        assert torch.equal(found['state_dict'][name], value), name


def test_training_resumes_before_a_truncated_checkpoint(project):
    shutil.copytree(project / 'whole', project / 'cut')
    for step in range(6, NUM_STEPS + 1):
        (project / 'cut' / f'iter_{step}.pth').unlink()
    newest = project / 'cut' / 'iter_5.pth'
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    (project / 'cut' / 'last_checkpoint').write_text('iter_9.pth')
    stderr = tool('train.py', 'small.py', '--work-dir', 'cut', '--resume', cwd=project).stderr
    log = max((project / 'cut').glob('*/*.log')).read_text()
    assert 'resumed epoch: 0, iter: 4' in log, stderr
    assert_same_end(project, 'cut')


@pytest.fixture
def small_disk(tmp_path, project):
    """A file system with room for about three checkpoints."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    size = 3 * (project / 'whole' / 'iter_1.pth').stat().st_size + 200_000
    mount = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', folder]
    if not shutil.which('mount') or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip('mounting a small file system is not permitted here')
    yield folder
    subprocess.run(['umount', '-l', folder], check=True)


def test_full_disk_leaves_intact_checkpoints_and_a_one_line_error(project, small_disk):
    done = tool('train.py', 'small.py', '--work-dir', small_disk / 'run', cwd=project, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r'error: the disk is full .*then resume with --resume', done.stderr.strip().splitlines()[-1])
    assert 'Traceback' not in done.stderr
    left = list((small_disk / 'run').glob('*.pth'))
    assert left and all(map(is_intact, left))
    assert not list((small_disk / 'run').glob('*.partial'))
    subprocess.run(['mount', '-o', 'remount,size=100M', small_disk], check=True)
    tool('train.py', 'small.py', '--work-dir', small_disk / 'run', '--resume', cwd=project)
    assert_same_end(project, small_disk / 'run')


def test_a_work_dir_whose_name_is_not_utf_8_trains_and_resumes(tmp_path, monkeypatch):
    """As in a folder from a system with another encoding, or any name with umlauts where the language is C."""
    monkeypatch.setattr(Config, 'pretty_text', '')  # formatting takes longer than the training
    (tmp_path / 'toy.py').write_text(CONFIG)
    work_dir = os.fsdecode(os.fsencode(tmp_path) + b'/gr\xf6\xdfe')
    train(str(tmp_path / 'toy.py'), work_dir=work_dir, cfg_options={'train_cfg.max_epochs': 2})
    assert Path(work_dir, 'last_checkpoint').read_bytes().endswith(b'gr\xf6\xdfe/epoch_2.pth')
    longer = {'train_cfg.max_epochs': 3, 'experiment_name': 'resumed'}
    runner = train(str(tmp_path / 'toy.py'), work_dir=work_dir, resume='auto', cfg_options=longer)
    assert runner.iter == 18 and Path(work_dir, 'epoch_3.pth').exists()
