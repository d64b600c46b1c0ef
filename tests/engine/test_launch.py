import multiprocessing as mp
import os
import signal
import socket
import stat
import time
from datetime import timedelta

import pytest
import torch.distributed as dist
from conftest import free_ports

from mogacore.engine.launch import EXIT_PEER_LOST, PeerWatch, init_process_group, process_environment
from mogacore.errors import UserError


def test_torchrun_environment_is_used_as_given():
    environ = dict(RANK='3', WORLD_SIZE='4', LOCAL_RANK='1', MASTER_ADDR='host-a', MASTER_PORT='2345')
    assert process_environment('pytorch', environ) == environ


def test_mpi_ranks_become_torch_ranks():
    environ = dict(OMPI_COMM_WORLD_RANK='3', OMPI_COMM_WORLD_SIZE='4', OMPI_COMM_WORLD_LOCAL_RANK='1')
    variables = process_environment('mpi', environ)
    assert variables == dict(RANK='3', WORLD_SIZE='4', LOCAL_RANK='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='29500')


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A stand-in for Slurm's scontrol that expands any node list to two hosts."""
    script = tmp_path / 'scontrol'
    script.write_text('#!/bin/sh\n[ "$3" = "node[7-8]" ] && printf "node7\\nnode8\\n"\n')
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv('PATH', f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')


SLURM = dict(SLURM_PROCID='1', SLURM_NTASKS='2', SLURM_LOCALID='0', SLURM_JOB_ID='41')


def test_slurm_master_is_the_first_host_and_the_port_depends_on_the_job(scontrol):
    first = process_environment('slurm', {**SLURM, 'SLURM_JOB_NODELIST': 'node[7-8]'})
    assert first['MASTER_ADDR'] == 'node7'
    assert (first['RANK'], first['WORLD_SIZE'], first['LOCAL_RANK']) == ('1', '2', '0')
    second = process_environment('slurm', {**SLURM, 'SLURM_JOB_NODELIST': 'node[7-8]', 'SLURM_JOB_ID': '42'})
    assert first['MASTER_PORT'] != second['MASTER_PORT']


def test_invalid_slurm_node_list_is_reported(scontrol):
    with pytest.raises(UserError, match=r"cannot expand SLURM_JOB_NODELIST 'nowhere': set MASTER_ADDR"):
        process_environment('slurm', {**SLURM, 'SLURM_JOB_NODELIST': 'nowhere'})


@pytest.mark.parametrize(
    'launcher, missing', [('pytorch', 'WORLD_SIZE'), ('slurm', 'SLURM_PROCID'), ('mpi', 'OMPI_COMM_WORLD_RANK')]
)
def test_launcher_that_was_not_used_is_reported(launcher, missing):
    with pytest.raises(UserError, match=rf"launcher '{launcher}' needs .*{missing}.*start with"):
        process_environment(launcher, {'RANK': '0', 'LOCAL_RANK': '0'})


@pytest.mark.parametrize('port', ['http', '0', '70000'])
def test_invalid_port_is_reported(port):
    environ = dict(RANK='0', WORLD_SIZE='1', LOCAL_RANK='0', MASTER_PORT=port)
    with pytest.raises(UserError, match=f'MASTER_PORT {port!r} is not a port number'):
        process_environment('pytorch', environ)


def test_unknown_launcher_is_reported():
    with pytest.raises(UserError, match="'ray' is unknown: choose from none, pytorch, slurm, mpi"):
        init_process_group('ray')


@pytest.mark.parametrize('rank, size', [('2', '2'), ('0', '0')])
def test_rank_out_of_range_is_reported(rank, size):
    with pytest.raises(
        UserError, match=f'RANK {rank} is out of range: it must be less than WORLD_SIZE, which is {size}'
    ):
        process_environment('pytorch', dict(RANK=rank, WORLD_SIZE=size, LOCAL_RANK='0'))


def test_mpi_on_several_machines_needs_the_address_of_rank_0():
    environ = dict(OMPI_COMM_WORLD_RANK='3', OMPI_COMM_WORLD_SIZE='4', OMPI_COMM_WORLD_LOCAL_RANK='1')
    environ['OMPI_COMM_WORLD_LOCAL_SIZE'] = '2'
    with pytest.raises(UserError, match='needs MASTER_ADDR: add -x MASTER_ADDR='):
        process_environment('mpi', environ)
    assert process_environment('mpi', {**environ, 'MASTER_ADDR': 'host-a'})['MASTER_ADDR'] == 'host-a'


@pytest.fixture
def torch_environ(monkeypatch):
    """Environment of rank 0 of two processes whose rendezvous fails, on a free port."""
    monkeypatch.delenv('TORCHELASTIC_USE_AGENT_STORE', raising=False)
    port = str(*free_ports(1))
    for name, value in dict(
        RANK='0', WORLD_SIZE='2', LOCAL_RANK='0', MASTER_ADDR='127.0.0.1', MASTER_PORT=port
    ).items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_unknown_master_is_reported(torch_environ):
    torch_environ.setenv('MASTER_ADDR', 'no-such-host.invalid')
    with pytest.raises(UserError, match=r"MASTER_ADDR 'no-such-host.invalid' is not a known host"):
        init_process_group('pytorch', join_timeout_s=2)


def test_port_in_use_is_reported(torch_environ):
    with socket.socket() as taken:
        taken.bind(('', 0))
        taken.listen()
        torch_environ.setenv('MASTER_PORT', str(taken.getsockname()[1]))
        with pytest.raises(UserError, match=r'MASTER_PORT \d+ is already in use on 127.0.0.1: set another'):
            init_process_group('pytorch', join_timeout_s=2)


@pytest.mark.parametrize('rank', ['0', '1'])
def test_missing_processes_are_reported(torch_environ, rank):
    torch_environ.setenv('RANK', rank)
    with pytest.raises(
        UserError, match=f'rank {rank} did not find all 2 processes at .* within 2 s: start all of them, and set'
    ):
        init_process_group('pytorch', join_timeout_s=2)


def join_as(rank, environ, results):
    os.environ.update(environ, RANK=str(rank))
    try:
        init_process_group('pytorch', join_timeout_s=5)
        results.put('joined')
    except UserError as error:
        results.put(str(error))


def test_duplicate_rank_is_reported(torch_environ):
    spawn = mp.get_context('spawn')
    results = spawn.Queue()
    environ = {name: os.environ[name] for name in ('WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')}
    processes = [spawn.Process(target=join_as, args=(rank, environ, results)) for rank in (0, 1, 1)]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert any('rank 1 joined twice at MASTER_ADDR 127.0.0.1' in line for line in outcomes), outcomes


def wait_for_peer(rank, port, ready):
    """A rank that waits forever, as in NCCL, with only the monitor running."""
    store = dist.TCPStore('127.0.0.1', port, 2, is_master=rank == 0, timeout=timedelta(seconds=30))
    PeerWatch(store, rank, 2, heartbeat_s=0.1, timeout_s=2).start()
    ready.put(rank)
    time.sleep(60)


# Rank 0 hosts the store, which answers nobody while it is suspended.
@pytest.mark.parametrize('victim', [0, 1])
@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGSTOP])
def test_process_exits_when_a_peer_is_dead_or_hangs(victim, how, torch_environ):
    spawn = mp.get_context('spawn')
    ready, port = spawn.Queue(), int(os.environ['MASTER_PORT'])
    processes = [spawn.Process(target=wait_for_peer, args=(rank, port, ready)) for rank in range(2)]
    for process in processes:
        process.start()
    try:
        for _ in processes:
            ready.get(timeout=60)
        time.sleep(0.5)
        os.kill(processes[victim].pid, how)
        processes[1 - victim].join(timeout=20)
        assert processes[1 - victim].exitcode == EXIT_PEER_LOST == 76
    finally:
        for process in processes:
            process.kill()
