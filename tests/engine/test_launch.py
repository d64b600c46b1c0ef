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


def test_torchrun_environment_is_taken_as_it_is():
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


def test_slurm_master_is_the_first_host_and_the_port_follows_the_job(scontrol):
    first = process_environment('slurm', {**SLURM, 'SLURM_JOB_NODELIST': 'node[7-8]'})
    assert first['MASTER_ADDR'] == 'node7'
    assert (first['RANK'], first['WORLD_SIZE'], first['LOCAL_RANK']) == ('1', '2', '0')
    second = process_environment('slurm', {**SLURM, 'SLURM_JOB_NODELIST': 'node[7-8]', 'SLURM_JOB_ID': '42'})
    assert first['MASTER_PORT'] != second['MASTER_PORT']


def test_slurm_node_list_that_cannot_be_read_is_told(scontrol):
    with pytest.raises(UserError, match=r"SLURM_JOB_NODELIST 'nowhere'.*set MASTER_ADDR"):
        process_environment('slurm', {**SLURM, 'SLURM_JOB_NODELIST': 'nowhere'})


@pytest.mark.parametrize(
    'launcher, missing', [('pytorch', 'WORLD_SIZE'), ('slurm', 'SLURM_PROCID'), ('mpi', 'OMPI_COMM_WORLD_RANK')]
)
def test_launcher_that_was_not_used_is_told(launcher, missing):
    with pytest.raises(UserError, match=rf"launcher '{launcher}' needs .*{missing}.*start with"):
        process_environment(launcher, {'RANK': '0', 'LOCAL_RANK': '0'})


@pytest.mark.parametrize('port', ['http', '0', '70000'])
def test_impossible_port_is_told(port):
    environ = dict(RANK='0', WORLD_SIZE='1', LOCAL_RANK='0', MASTER_PORT=port)
    with pytest.raises(UserError, match=f'MASTER_PORT {port!r} is no port'):
        process_environment('pytorch', environ)


def test_unknown_launcher_is_told():
    with pytest.raises(UserError, match="'ray' is unknown: choose from none, pytorch, slurm, mpi"):
        init_process_group('ray')


@pytest.mark.parametrize('rank, size', [('2', '2'), ('0', '0')])
def test_rank_beyond_the_number_of_processes_is_told(rank, size):
    with pytest.raises(UserError, match=f'RANK {rank} does not fit WORLD_SIZE {size}'):
        process_environment('pytorch', dict(RANK=rank, WORLD_SIZE=size, LOCAL_RANK='0'))


def test_mpi_on_several_machines_needs_the_address_of_rank_0():
    environ = dict(OMPI_COMM_WORLD_RANK='3', OMPI_COMM_WORLD_SIZE='4', OMPI_COMM_WORLD_LOCAL_RANK='1')
    environ['OMPI_COMM_WORLD_LOCAL_SIZE'] = '2'
    with pytest.raises(UserError, match='needs MASTER_ADDR: add -x MASTER_ADDR='):
        process_environment('mpi', environ)
    assert process_environment('mpi', {**environ, 'MASTER_ADDR': 'host-a'})['MASTER_ADDR'] == 'host-a'


@pytest.fixture
def torch_environ(monkeypatch):
    """Environment of rank 0 of two that never comes together, on a free port."""
    monkeypatch.delenv('TORCHELASTIC_USE_AGENT_STORE', raising=False)
    port = str(*free_ports(1))
    for name, value in dict(
        RANK='0', WORLD_SIZE='2', LOCAL_RANK='0', MASTER_ADDR='127.0.0.1', MASTER_PORT=port
    ).items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_unknown_master_is_told(torch_environ):
    torch_environ.setenv('MASTER_ADDR', 'no-such-host.invalid')
    with pytest.raises(UserError, match=r"MASTER_ADDR 'no-such-host.invalid' is no known host"):
        init_process_group('pytorch', join_timeout_s=2)


def test_port_that_is_taken_is_told(torch_environ):
    with socket.socket() as taken:
        taken.bind(('', 0))
        taken.listen()
        torch_environ.setenv('MASTER_PORT', str(taken.getsockname()[1]))
        with pytest.raises(UserError, match=r'MASTER_PORT \d+ is taken on 127.0.0.1: set another'):
            init_process_group('pytorch', join_timeout_s=2)


@pytest.mark.parametrize('rank', ['0', '1'])
def test_processes_that_do_not_come_are_told(torch_environ, rank):
    torch_environ.setenv('RANK', rank)
    with pytest.raises(UserError, match=f'the 2 processes did not meet at .* within 2 s, this is rank {rank}: set'):
        init_process_group('pytorch', join_timeout_s=2)


def join_as(rank, environ, results):
    os.environ.update(environ, RANK=str(rank))
    try:
        init_process_group('pytorch', join_timeout_s=5)
        results.put('joined')
    except UserError as error:
        results.put(str(error))


def test_rank_that_is_there_twice_is_told(torch_environ):
    spawn = mp.get_context('spawn')
    results = spawn.Queue()
    environ = {name: os.environ[name] for name in ('WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')}
    processes = [spawn.Process(target=join_as, args=(rank, environ, results)) for rank in (0, 1, 1)]
    for process in processes:
        process.start()
    said = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert any('rank 1 is there twice at MASTER_ADDR 127.0.0.1' in line for line in said), said


def wait_for_peer(rank, port, ready):
    """A rank that waits in vain, as NCCL would: watched over, and deaf."""
    store = dist.TCPStore('127.0.0.1', port, 2, is_master=rank == 0, timeout=timedelta(seconds=30))
    PeerWatch(store, rank, 2, beat_s=0.1, silence_s=2).start()
    ready.put(rank)
    time.sleep(60)


# A store that stands still answers nobody: such a process 0 is left to the launcher.
@pytest.mark.parametrize('victim, how', [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGSTOP)])
def test_process_leaves_when_another_is_dead_or_stands_still(victim, how, torch_environ):
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
