"""A signal to stop: finish the step, save, and leave with a code that says "go on with --resume".

Slurm sends SIGTERM when a job is pre-empted, requeued or cancelled, and what ``--signal`` names before the time limit.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.dist import all_reduce, barrier
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS, HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.multiprocessing import _prctl_pr_set_pdeathsig

from .saving import SafeCheckpointHook

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
EXIT_STOPPED = os.EX_TEMPFAIL  # 75
WORKER_GRACE_S = 10

_received: list[str] = []


class Stopped(SystemExit):
    """The run has saved its state on a signal and leaves with ``EXIT_STOPPED``."""

    def __init__(self):
        super().__init__(EXIT_STOPPED)


@contextmanager
def stop_signals() -> Iterator[None]:
    """Note signals to stop for :class:`StopOnSignalHook`, instead of dying of them, and restore the handlers after.

    Does nothing outside of the main thread, the only one in which Python can handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received.clear()
    previous = {number: signal.signal(number, _note) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _note(number: int, frame) -> None:
    _received.append(signal.Signals(number).name)
    # The workers of the loaders may have got it too: their end must not break the step that is under way.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@FUNCTIONS.register_module()
def live_with_parent(worker_id: int, **kwargs) -> None:
    """Let a worker of a data loader live on for some seconds after SIGTERM, and not beyond the end of its process.

    Slurm signals every process of a job. torch makes its workers die at once, and the training with them, unsaved.
    Those of a killed process (out of memory, say) may in turn hang for ever, on batches that nobody fetches.
    """
    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    signal.signal(signal.SIGALRM, lambda number, frame: os._exit(0))
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(WORKER_GRACE_S))


def end_workers(runner: Runner) -> None:
    """End the workers of the loaders of a training that is over; the end of the process would wait out their grace."""
    for loop in (runner.train_loop, runner.val_loop):
        if loop is not None:
            loop.dataloader._iterator = None  # of persistent workers
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        runner.train_loop.dataloader_iterator = None


@HOOKS.register_module()
class StopOnSignalHook(Hook):
    """Saves and leaves after the iteration in which any process got a signal to stop, all processes together.

    Raises:
        Stopped: After the checkpoint ``interrupted.pth`` is whole.
    """

    priority = 'LOWEST'

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        is_asked = torch.tensor(len(_received))
        all_reduce(is_asked, op='max')
        if not is_asked.item():
            return
        signals = ' and '.join(_received) or 'a signal to another process'
        for hook in runner.hooks:
            if isinstance(hook, SafeCheckpointHook):
                path = hook.save_interrupted(runner)
                runner.logger.info(f'stopped by {signals}: the state is in {path}, go on with --resume')
        barrier()
        raise Stopped
