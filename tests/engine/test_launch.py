import os
import stat

import pytest

from mogacore.engine.launch import init_process_group, process_environment
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
