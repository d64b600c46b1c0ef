"""Check of data-parallel training: processes with parts of a batch compute the gradients of the whole batch."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from . import allow_missing_opencv
from .results import FAILED, Result, at_most

if TYPE_CHECKING:
    from .subjects import Plan

# The sum over the batch is split, so it is rounded in another order; the bar for fp32 of the other checks.
BAR = 1e-5
TIMEOUT_S = 120


def data_parallel(plan: Plan) -> Iterator[Result]:
    """DDP with NCCL on all GPUs, with gloo on one GPU that two processes share, or with gloo on the CPU."""
    num_gpus = torch.cuda.device_count() if plan.is_cuda else 0
    if num_gpus:
        yield from _check('nccl', num_gpus, plan, 'one GPU: nothing is exchanged between GPUs' * (num_gpus == 1))
    if num_gpus < 2:
        yield from _check('gloo', 2, plan, 'both processes share the GPU' * num_gpus)


def _check(backend: str, world_size: int, plan: Plan, note: str) -> Iterator[Result]:
    name = f'DDP, {backend}, {world_size} process{"es" * (world_size > 1)}'
    try:
        errors = run_processes(backend, world_size, plan.quick, plan.is_cuda)
    except RuntimeError as reason:
        yield Result(name, FAILED, note=str(reason))
        return
    for part, error in errors.items():
        yield at_most(f'{name}: {part}', error, BAR, note)


def run_processes(
    backend: str, world_size: int, quick: bool, is_cuda: bool, timeout_s: float = TIMEOUT_S
) -> dict[str, float]:
    """Start the processes and wait for them; those that hang are terminated.

    Returns:
        Relative errors of the gradients, by norm layer.

    Raises:
        RuntimeError: If a process fails or does not end in time.
    """
    with tempfile.TemporaryDirectory() as folder:
        context = mp.get_context('spawn')
        arguments = (backend, world_size, quick, is_cuda, folder)
        processes = [context.Process(target=_work, args=(rank, *arguments), daemon=True) for rank in range(world_size)]
        for process in processes:
            process.start()
        deadline = time.monotonic() + timeout_s
        try:
            for process in processes:
                process.join(max(0.0, deadline - time.monotonic()))
            hanging = sum(process.is_alive() for process in processes)
        finally:
            for process in processes:
                if process.is_alive():
                    process.kill()
                    process.join()
        if failures := sorted(Path(folder).glob('failed-*')):
            raise RuntimeError(failures[0].read_text())
        if hanging:
            raise RuntimeError(f'{hanging} of {world_size} processes did not end within {timeout_s:.0f} s')
        if codes := [process.exitcode for process in processes if process.exitcode]:
            raise RuntimeError(f'a process ended with exit code {codes[0]}')
        return json.loads(Path(folder, 'errors.json').read_text())


def _work(rank: int, backend: str, world_size: int, quick: bool, is_cuda: bool, folder: str) -> None:
    allow_missing_opencv()
    try:
        device = f'cuda:{rank % torch.cuda.device_count()}' if is_cuda else 'cpu'
        if is_cuda:
            torch.cuda.set_device(device)
        dist.init_process_group(backend, f'file://{folder}/store', rank=rank, world_size=world_size)
        errors = compare(rank, world_size, quick, device)
        if rank == 0:
            Path(folder, 'errors.json').write_text(json.dumps(errors))
        dist.destroy_process_group()
    except Exception as error:  # reported by the parent process
        Path(folder, f'failed-{rank}').write_text(f'rank {rank}: {type(error).__name__}: {error}'.partition('\n')[0])
        raise SystemExit(1) from None


def compare(rank: int, world_size: int, quick: bool, device: str) -> dict[str, float]:
    """Gradients of DDP, of which this process has one part of the batch, against those of the whole batch here.

    Batch norms use their running statistics, which do not depend on the batch; on GPUs, also SyncBatchNorm, which
    computes the statistics of the whole batch.
    """
    from .results import relative_error
    from .subjects import TINY, Subject, train

    subject = Subject('', TINY if quick else 'xtiny', 64, 4 * world_size)
    images, labels = subject.batch(0, device)
    part = slice(4 * rank, 4 * rank + 4)
    errors = {}
    for kind in ('frozen statistics', 'SyncBatchNorm')[: 1 + device.startswith('cuda')]:
        is_frozen = kind == 'frozen statistics'
        whole = train(subject.network(device, norm_eval=is_frozen).train(), images, labels).gradients
        model = subject.network(device, norm_eval=is_frozen).train()
        if not is_frozen:
            model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
        ids = [torch.device(device)] if device.startswith('cuda') else None
        parallel = torch.nn.parallel.DistributedDataParallel(model, device_ids=ids)
        found = train(model, images[part], labels[part], run=parallel).gradients
        pair = (torch.cat([gradients[name].flatten() for name in whole]) for gradients in (found, whole))
        errors[kind] = relative_error(*pair)
    return errors
