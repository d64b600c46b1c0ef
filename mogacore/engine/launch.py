"""Process groups for one core up to a cluster.

mmengine's own set-up asks for a CUDA device even on a CPU, and waits half an hour for a process that never comes. So
the group is made here, on GPUs as on CPUs, and mmengine's Runner then leaves it alone.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from datetime import timedelta

import torch
import torch.distributed as dist

from mogacore.errors import UserError

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
# Jobs that share a node must not share a port; registered ports above torch's default 29500.
SLURM_PORT_BASE, SLURM_PORT_SPAN = 20000, 9000
JOIN_TIMEOUT_S = 300
COLLECTIVE_TIMEOUT_S = 1800
BEAT_S, SILENCE_S = 2, 40
EXIT_PEER_LOST = os.EX_PROTOCOL  # 76

_watch: PeerWatch | None = None


def init_process_group(
    launcher: str,
    backend: str = 'nccl',
    timeout_s: float = COLLECTIVE_TIMEOUT_S,
    join_timeout_s: float = JOIN_TIMEOUT_S,
) -> None:
    """Make the default process group from the environment that the launcher sets, and watch over its processes.

    Args:
        launcher: One of ``LAUNCHERS``; 'none' is a single process.
        backend: Backend on GPUs; on CPUs it is gloo.
        timeout_s: Longest time that a collective operation may take, such as waiting for a validation on rank 0.
        join_timeout_s: Time within which all processes must have come.

    Raises:
        UserError: If the launcher is unknown, did not set what it should have, or the processes do not find together.
    """
    global _watch
    if launcher not in LAUNCHERS:
        raise UserError(f'launcher {launcher!r} is unknown: choose from {", ".join(LAUNCHERS)}')
    if launcher == 'none' or dist.is_initialized():
        return
    os.environ.update(process_environment(launcher, os.environ))
    rank, world_size = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
    if torch.cuda.is_available():
        local_rank = int(os.environ['LOCAL_RANK'])
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f'process {local_rank} of this machine has no GPU, {torch.cuda.device_count()} are visible: '
                'start as many processes as GPUs'
            )
        torch.cuda.set_device(local_rank)
    else:
        backend = 'gloo'
    store = _join(rank, world_size, join_timeout_s)
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=world_size, timeout=timedelta(seconds=timeout_s)
    )
    _watch = PeerWatch(store, rank, world_size)
    _watch.start()


def _join(rank: int, world_size: int, timeout_s: float) -> dist.Store:
    """The store at MASTER_ADDR:MASTER_PORT, once every rank has come to it.

    Raises:
        UserError: If it cannot be reached or opened, a rank comes twice, or one does not come in time.
    """
    address, port = os.environ['MASTER_ADDR'], os.environ['MASTER_PORT']
    place = f'MASTER_ADDR {address} MASTER_PORT {port}'
    try:
        socket.getaddrinfo(address, int(port))
    except OSError:
        raise UserError(f'MASTER_ADDR {address!r} is no known host: set it to the name or address of rank 0') from None
    try:
        store, _, _ = next(dist.rendezvous('env://', rank, world_size, timeout=timedelta(seconds=timeout_s)))
        if store.add(f'joined/{rank}', 1) > 1:
            raise UserError(f'rank {rank} is there twice at {place}: give each process a RANK, each job a MASTER_PORT')
        waiting = [f'joined/{other}' for other in range(world_size)]
        store.wait(waiting, timedelta(seconds=timeout_s))
    except RuntimeError as error:  # torch's DistError among them
        reason = str(error).partition('\n')[0]
        if 'EADDRINUSE' in reason or 'ddress already in use' in reason:
            raise UserError(f'MASTER_PORT {port} is taken on {address}: set another') from None
        raise UserError(
            f'the {world_size} processes did not meet at {place} within {timeout_s:.0f} s, this is rank {rank}: '
            f'set these two to the machine of rank 0 and a free port there ({reason[:160]})'
        ) from None
    return store


class PeerWatch(threading.Thread):
    """Ends this process when another of the group has died or stands still, which NCCL would wait for in vain.

    Each process counts a number up in the store and looks at that of the next rank. Its own thread does so, which runs
    while the process computes or waits. A job that is suspended and continued as a whole goes on: looks are counted,
    not seconds.

    Args:
        store: Store that the processes share; its host dying is noticed too.
        rank: Rank of this process.
        world_size: Number of processes.
        beat_s: Seconds between two looks.
        silence_s: Seconds without a beat after which the other counts as dead.
    """

    def __init__(
        self, store: dist.Store, rank: int, world_size: int, beat_s: float = BEAT_S, silence_s: float = SILENCE_S
    ):
        super().__init__(name='peer watch', daemon=True)
        self.store = dist.PrefixStore('watch', store)
        self.rank, self.peer = rank, (rank + 1) % world_size
        self.beat_s, self.silence_s = beat_s, silence_s
        self.is_closing = False
        self.ended = threading.Event()

    def run(self) -> None:
        last_count, silent_looks = None, 0
        while not self.ended.wait(self.beat_s):
            try:
                self.store.add(str(self.rank), 1)
                count = self.store.add(str(self.peer), 0)
            except RuntimeError:
                if not self.is_closing:
                    self._leave('the process that holds the store is gone')
                return
            silent_looks = silent_looks + 1 if count == last_count else 0
            last_count = count
            if silent_looks * self.beat_s > self.silence_s and not self.is_closing:
                self._leave(f'rank {self.peer} has not been heard of for {self.silence_s:.0f} s')

    def close(self) -> None:
        """Wait for the other processes, with nothing more to fear from their end, and end the watch."""
        self.is_closing = True  # the first to pass the barrier may hold the store and be gone at once
        dist.barrier()
        self.ended.set()
        self.join(timeout=2 * self.beat_s)

    def _leave(self, reason: str) -> None:
        print(
            f'error: rank {self.rank} stops, since {reason}: see the log of that process, then go on with --resume',
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_PEER_LOST)  # the main thread may never come back from its collective operation


def close_process_group() -> None:
    """Leave the default process group at the end of a run, if there is one, together with all its processes.

    A process that exits while the group's threads still run is aborted by the C++ runtime now and then.
    """
    global _watch
    if _watch is not None:
        _watch.close()
        _watch = None
    if dist.is_initialized():
        dist.destroy_process_group()


def process_environment(launcher: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables by which torch.distributed finds its peers: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT.

    Args:
        launcher: 'pytorch', 'slurm' or 'mpi'.
        environ: The process environment as the launcher left it.

    Raises:
        UserError: If a variable that the launcher sets is missing, is no number or does not fit the others.
    """
    names = {
        'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
        'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
        'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
    }[launcher]
    starter = {'pytorch': 'tools/dist_train.sh or torchrun', 'slurm': 'tools/slurm_train.sh or srun', 'mpi': 'mpirun'}
    rank, world_size, local_rank = (environ.get(name, '') for name in names)
    if not (rank.isdecimal() and world_size.isdecimal() and local_rank.isdecimal()):
        raise UserError(
            f'launcher {launcher!r} needs {", ".join(names)} in the environment: start with {starter[launcher]}, '
            'or leave --launcher out for one process'
        )
    if int(rank) >= int(world_size):
        raise UserError(f'{names[0]} {rank} does not fit {names[1]} {world_size}: ranks go from 0 to one less')
    variables = {'RANK': rank, 'WORLD_SIZE': world_size, 'LOCAL_RANK': local_rank}
    local_size = environ.get('OMPI_COMM_WORLD_LOCAL_SIZE', world_size)
    if launcher == 'mpi' and local_size != world_size and not environ.get('MASTER_ADDR'):
        raise UserError('mpirun on several machines needs MASTER_ADDR: add -x MASTER_ADDR=HOST_OF_RANK_0')
    variables['MASTER_ADDR'] = environ.get('MASTER_ADDR') or (
        _first_slurm_host(environ) if launcher == 'slurm' else '127.0.0.1'
    )
    port = environ.get('MASTER_PORT') or (
        str(SLURM_PORT_BASE + int(environ.get('SLURM_JOB_ID', '0')) % SLURM_PORT_SPAN)
        if launcher == 'slurm'
        else '29500'
    )
    if not (port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(f'MASTER_PORT {port!r} is no port: set a free one from 1024 to 65535')
    return variables | {'MASTER_PORT': port}


def _first_slurm_host(environ: Mapping[str, str]) -> str:
    nodes = environ.get('SLURM_JOB_NODELIST') or environ.get('SLURM_NODELIST', '')
    try:
        hosts = subprocess.run(
            ['scontrol', 'show', 'hostnames', nodes], capture_output=True, text=True, check=True
        ).stdout.split()
        return hosts[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        raise UserError(
            f'cannot tell the first host of SLURM_JOB_NODELIST {nodes!r} with scontrol: set MASTER_ADDR to it'
        ) from None
