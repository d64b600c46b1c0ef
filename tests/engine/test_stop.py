"""Stopping on a signal."""

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.hooks import Hook
from torch.utils.data import DataLoader, Dataset

from mogacore.engine.loaders import build_loader
from mogacore.engine.saving import SafeCheckpointHook
from mogacore.engine.stop import EXIT_STOPPED, StopOnSignalHook, Stopped, live_with_parent, stop_signals


class RecordingHook(SafeCheckpointHook):
    def __init__(self):
        self.saved = 0

    def save_interrupted(self, runner):
        self.saved += 1
        return 'here.pth'


def step(recorder):
    runner = SimpleNamespace(hooks=[Hook(), recorder], logger=SimpleNamespace(info=print))
    StopOnSignalHook().after_train_iter(runner, 0)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_signal_saves_at_the_end_of_the_step_and_exits(number, capsys):
    recorder = RecordingHook()
    before = signal.getsignal(number)
    with stop_signals():
        step(recorder)
        assert recorder.saved == 0
        os.kill(os.getpid(), number)
        with pytest.raises(Stopped) as stopped:
            step(recorder)
    assert recorder.saved == 1
    assert stopped.value.code == EXIT_STOPPED == 75
    assert (
        f'stopped by {signal.Signals(number).name}: the state is saved in here.pth, resume with --resume'
        in capsys.readouterr().out
    )
    assert signal.getsignal(number) is before
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def test_signals_of_an_earlier_run_are_ignored():
    recorder = RecordingHook()
    with stop_signals():
        os.kill(os.getpid(), signal.SIGUSR1)
    with stop_signals():
        step(recorder)
    assert recorder.saved == 0
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def stop_one_of_two(rank, store, results):
    dist.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
    recorder = RecordingHook()
    with stop_signals():
        for number in range(5):
            if rank == 1 and number == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            try:
                step(recorder)
            except Stopped:
                results[rank] = (number, recorder.saved)
                break
    dist.destroy_process_group()


def test_all_processes_stop_at_the_same_step(tmp_path):
    with mp.get_context('spawn').Manager() as manager:
        results = manager.dict()
        mp.spawn(stop_one_of_two, (tmp_path / 'store', results), nprocs=2)
        assert dict(results) == {0: (2, 1), 1: (2, 1)}


class SlowDataset(Dataset):
    """Each sample is the id of the process that loads it."""

    def __len__(self):
        return 50

    def __getitem__(self, index):
        time.sleep(0.05)
        return os.getpid()


def test_workers_keep_loading_after_the_signal():
    loader = DataLoader(SlowDataset(), num_workers=1, worker_init_fn=live_with_parent)
    batches = iter(loader)
    worker = next(batches).item()
    os.kill(worker, signal.SIGTERM)
    os.kill(worker, signal.SIGUSR1)
    assert [next(batches).item() for _ in range(20)] == [worker] * 20


class BigDataset(Dataset):
    """Samples of many small tensors, too large for a pipe; each contains the id of the process that loads it."""

    def __len__(self):
        return 50

    def __getitem__(self, index):
        return os.getpid(), [bytes(1000) for _ in range(200)]


def load_and_die(queue):
    settings = dict(dataset=BigDataset(), sampler=dict(type='DefaultSampler'), collate_fn=dict(type=list))
    batches = iter(build_loader(dict(settings, batch_size=1, num_workers=1)))
    queue.put(next(batches)[0][0])
    queue.close()
    queue.join_thread()
    time.sleep(0.5)  # until the worker waits for space in the pipe
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_of_a_killed_process_die_with_it():
    context = mp.get_context('fork')
    queue = context.Queue()
    trainer = context.Process(target=load_and_die, args=(queue,))
    trainer.start()
    worker = queue.get(timeout=60)
    trainer.join()
    assert trainer.exitcode == -signal.SIGKILL
    for _ in range(100):
        if not os.path.exists(f'/proc/{worker}') or 'State:\tZ' in Path(f'/proc/{worker}/status').read_text():
            break
        time.sleep(0.1)
    else:
        os.kill(worker, signal.SIGKILL)
        raise AssertionError(f'worker {worker} is still alive')
