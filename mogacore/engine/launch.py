"""Process groups for one core up to a cluster.

On GPUs mmengine's Runner makes the group itself. On CPUs its set-up asks for a CUDA device, so the gloo group is made
here first and the Runner then leaves it alone.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

import torch
import torch.distributed as dist

from mogacore.errors import UserError

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
# Jobs that share a node must not share a port; registered ports above torch's default 29500.
SLURM_PORT_BASE, SLURM_PORT_SPAN = 20000, 9000


def init_process_group(launcher: str) -> None:
    """Make the default process group of a CPU run, from the environment that the launcher sets.

    Args:
        launcher: One of ``LAUNCHERS``; 'none' is a single process.

    Raises:
        UserError: If the launcher is unknown or did not set what it should have.
    """
    if launcher not in LAUNCHERS:
        raise UserError(f'launcher {launcher!r} is unknown: choose from {", ".join(LAUNCHERS)}')
    if launcher == 'none' or dist.is_initialized():
        return
    os.environ.update(process_environment(launcher, os.environ))
    if not torch.cuda.is_available():
        dist.init_process_group('gloo')


def close_process_group() -> None:
    """Leave the default process group at the end of a run, if there is one.

    A process that exits while the group's threads still run is aborted by the C++ runtime now and then.
    """
    if dist.is_initialized():
        dist.destroy_process_group()


def process_environment(launcher: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables by which torch.distributed finds its peers: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT.

    Args:
        launcher: 'pytorch', 'slurm' or 'mpi'.
        environ: The process environment as the launcher left it.

    Raises:
        UserError: If a variable that the launcher sets is missing or is no number.
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
    variables = {'RANK': rank, 'WORLD_SIZE': world_size, 'LOCAL_RANK': local_rank}
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
