"""Stop signals: finish the step, save, and exit with a code that means "resume with --resume".

Slurm sends SIGTERM when a job is preempted, requeued or canceled, and the signal named by ``--signal`` shortly before
the time limit.
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
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]  # added at runtime

from .saving import SafeCheckpointHook

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
EXIT_STOPPED = os.EX_TEMPFAIL  # 75
WORKER_GRACE_S = 10

_received: list[str] = []


class Stopped(SystemExit):
    """The run received a stop signal and has saved its state; exits with ``EXIT_STOPPED``."""

    def __init__(self):
        super().__init__(EXIT_STOPPED)


@contextmanager
def stop_signals() -> Iterator[None]:
    """Record stop signals for :class:`StopOnSignalHook` instead of terminating; restore the handlers afterwards.

    Does nothing outside the main thread, the only one in which Python handles signals.
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
    # Data loader workers may have received it too: their exit must not break the current step.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@FUNCTIONS.register_module()
def live_with_parent(worker_id: int, **kwargs) -> None:
    """Keep a data loader worker alive for some seconds after SIGTERM, but not longer than its parent process.

    Slurm signals every process of a job. By default, torch's workers exit at once and take down the training before it
    can save. Conversely, the workers of a killed process (out of memory, for example) may hang forever on batches that
    nobody fetches.
    """
    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    signal.signal(signal.SIGALRM, lambda number, frame: os._exit(0))
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(WORKER_GRACE_S))


def end_workers(runner: Runner) -> None:
    """Shut down the data loader workers after training; otherwise process exit waits for their grace period."""
    for loop in (runner.train_loop, runner.val_loop):
        if loop is not None:
            loop.dataloader._iterator = None  # holds persistent workers
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        runner.train_loop.dataloader_iterator = None


@HOOKS.register_module()
class StopOnSignalHook(Hook):
    """Saves and stops all processes after the iteration in which any of them received a stop signal.

    Raises:
        Stopped: After the checkpoint ``interrupted.pth`` is complete.
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
                runner.logger.info(f'stopped by {signals}: the state is saved in {path}, resume with --resume')
        barrier()
        raise Stopped
