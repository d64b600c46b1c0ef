"""Process groups, from a single machine to a cluster.

mmengine's own setup requires a CUDA device even on a CPU, and waits half an hour for a process that never starts. This
module therefore creates the group, on GPUs and CPUs alike, and mmengine's Runner uses it as it is.
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
# Jobs on the same node need different ports; these are registered ports below torch's default, 29500.
SLURM_PORT_BASE, SLURM_PORT_SPAN = 20000, 9000
JOIN_TIMEOUT_S = 300
COLLECTIVE_TIMEOUT_S = 1800
HEARTBEAT_S, PEER_TIMEOUT_S = 2, 40
EXIT_PEER_LOST = os.EX_PROTOCOL  # 76

_watch: PeerWatch | None = None


def init_process_group(
    launcher: str,
    backend: str = 'nccl',
    timeout_s: float = COLLECTIVE_TIMEOUT_S,
    join_timeout_s: float = JOIN_TIMEOUT_S,
) -> None:
    """Create the default process group from the launcher's environment variables, and monitor its processes.

    Args:
        launcher: One of ``LAUNCHERS``; 'none' means a single process.
        backend: Backend on GPUs; CPUs use gloo.
        timeout_s: Timeout of a collective operation, such as waiting for a validation on rank 0.
        join_timeout_s: Timeout of the rendezvous of all processes.

    Raises:
        UserError: If the launcher is unknown, an environment variable is missing or invalid, or the rendezvous fails.
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
                f'local rank {local_rank} has no GPU, since only {torch.cuda.device_count()} are visible here: '
                'start at most one process per GPU'
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
    """Connect to the store at MASTER_ADDR:MASTER_PORT and wait until every rank has joined.

    Raises:
        UserError: If the store cannot be reached or opened, a rank joins twice, or one does not join in time.
    """
    address, port = os.environ['MASTER_ADDR'], os.environ['MASTER_PORT']
    place = f'MASTER_ADDR {address} MASTER_PORT {port}'
    try:
        socket.getaddrinfo(address, int(port))
    except OSError:
        raise UserError(
            f'MASTER_ADDR {address!r} is not a known host: set it to the host name or IP address of rank 0'
        ) from None
    try:
        store, _, _ = next(dist.rendezvous('env://', rank, world_size, timeout=timedelta(seconds=timeout_s)))
        if store.add(f'joined/{rank}', 1) > 1:
            raise UserError(
                f'rank {rank} joined twice at {place}: give each process its own RANK and each job its own MASTER_PORT'
            )
        waiting = [f'joined/{other}' for other in range(world_size)]
        store.wait(waiting, timedelta(seconds=timeout_s))
    except RuntimeError as error:  # includes torch's DistError
        reason = str(error).partition('\n')[0]
        if 'EADDRINUSE' in reason or 'ddress already in use' in reason:
            raise UserError(f'MASTER_PORT {port} is already in use on {address}: set another one') from None
        raise UserError(
            f'rank {rank} did not find all {world_size} processes at {place} within {timeout_s:.0f} s: start all of '
            f'them, and set both variables to the host of rank 0 and a free port on it ({reason[:160]})'
        ) from None
    return store


class PeerWatch(threading.Thread):
    """Terminates this process when a peer dies or hangs; NCCL would wait for it forever.

    Each process increments a counter in the store and checks the counter of the next rank, in a thread that keeps
    running while the main thread computes or waits. A second thread terminates the process when the store does not
    answer: its host is suspended, or the network is cut. The timeout counts checks, not wall time, so a job that is
    suspended and continued as a whole keeps running.

    Args:
        store: Store that the processes share; a crash of its host is detected too.
        rank: Rank of this process.
        world_size: Number of processes.
        heartbeat_s: Seconds between two checks.
        timeout_s: Seconds without a heartbeat after which the peer counts as dead.
    """

    def __init__(
        self,
        store: dist.Store,
        rank: int,
        world_size: int,
        heartbeat_s: float = HEARTBEAT_S,
        timeout_s: float = PEER_TIMEOUT_S,
    ):
        super().__init__(name='peer watch', daemon=True)
        self.store = dist.PrefixStore('watch', store)
        self.rank, self.peer = rank, (rank + 1) % world_size
        self.heartbeat_s, self.timeout_s = heartbeat_s, timeout_s
        self.is_closing = False
        self.num_answers = 0
        self.ended = threading.Event()

    def run(self) -> None:
        threading.Thread(target=self._watch_store, name='store watch', daemon=True).start()
        last_count, num_missed = None, 0
        while not self.ended.wait(self.heartbeat_s):
            try:
                self.store.add(str(self.rank), 1)
                count = self.store.add(str(self.peer), 0)
            except RuntimeError:
                if not self.is_closing:
                    self._abort('the process that hosts the store has died')
                return
            self.num_answers += 1
            num_missed = num_missed + 1 if count == last_count else 0
            last_count = count
            if num_missed * self.heartbeat_s > self.timeout_s and not self.is_closing:
                self._abort(f'rank {self.peer} has sent no heartbeat for {self.timeout_s:.0f} s')

    def _watch_store(self) -> None:
        last_number, num_missed = None, 0
        while not self.ended.wait(self.heartbeat_s):
            num_missed = num_missed + 1 if self.num_answers == last_number else 0
            last_number = self.num_answers
            if num_missed * self.heartbeat_s > self.timeout_s and not self.is_closing:
                self._abort(f'the process that hosts the store has not answered for {self.timeout_s:.0f} s')

    def close(self) -> None:
        """Stop monitoring, after a barrier; from then on, the exit of a peer is not an error."""
        self.is_closing = True  # the first process past the barrier may host the store and exit at once
        dist.barrier()
        self.ended.set()
        self.join(timeout=2 * self.heartbeat_s)

    def _abort(self, reason: str) -> None:
        print(
            f'error: rank {self.rank} aborts because {reason}: see the log of that process, then resume with --resume',
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_PEER_LOST)  # the main thread may be stuck in a collective operation


def close_process_group() -> None:
    """Destroy the default process group at the end of a run, if there is one; every process must call this.

    The C++ runtime occasionally aborts a process that exits while the group's threads are still running.
    """
    global _watch
    if _watch is not None:
        _watch.close()
        _watch = None
    if dist.is_initialized():
        dist.destroy_process_group()


def process_environment(launcher: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of torch.distributed: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT.

    Args:
        launcher: 'pytorch', 'slurm' or 'mpi'.
        environ: The process environment that the launcher set up.

    Raises:
        UserError: If a variable that the launcher sets is missing, not a number, or inconsistent with the others.
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
            'or omit --launcher to run a single process'
        )
    if int(rank) >= int(world_size):
        raise UserError(f'{names[0]} {rank} is out of range: it must be less than {names[1]}, which is {world_size}')
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
        raise UserError(f'MASTER_PORT {port!r} is not a port number: set a free port from 1024 to 65535')
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
            f'scontrol cannot expand SLURM_JOB_NODELIST {nodes!r}: set MASTER_ADDR to the first host of the job'
        ) from None
