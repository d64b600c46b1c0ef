"""The launch scripts check their settings before anything is started or queued; stand-ins for Slurm and torchrun."""

import re
import socket
import subprocess
import sys

import pytest
from conftest import ROOT, free_ports

TOOLS = ROOT / 'tools'
CONFIG = 'classification/moganet-xtiny_digits'
# Arguments of each script; {} is an existing checkpoint.
SCRIPTS = {
    'dist_train.sh': [CONFIG, '2'],
    'dist_test.sh': [CONFIG, '{}', '2'],
    'slurm_train.sh': ['part', 'job', CONFIG, 'work'],
    'slurm_test.sh': ['part', 'job', CONFIG, '{}'],
    'sbatch_train.sh': ['part', 'job', CONFIG, 'work'],
}
SLURM = [name for name in SCRIPTS if not name.startswith('dist')]
DIST = [name for name in SCRIPTS if name.startswith('dist')]


@pytest.fixture
def launch(tmp_path):
    """Function that calls a script; srun, sbatch and torchrun only print their arguments."""
    for name in ('srun', 'sbatch'):
        (tmp_path / name).write_text('#!/bin/sh\necho "$@"\n')
    python = tmp_path / 'stand-in-python'
    python.write_text(f'#!/bin/sh\n[ "$2" = torch.distributed.run ] && echo "$@" || exec {sys.executable} "$@"\n')
    for path in tmp_path.iterdir():
        path.chmod(0o755)
    (tmp_path / 'weights.pth').touch()

    def call(script, *args, **variables):
        args = args or [arg.format(tmp_path / 'weights.pth') for arg in SCRIPTS[script]]
        env = {'PATH': f'{tmp_path}:/usr/bin:/bin', 'PYTHON': str(python), 'PYTHONPATH': str(ROOT), **variables}
        return subprocess.run(['bash', TOOLS / script, *args], cwd=tmp_path, capture_output=True, text=True, env=env)

    return call


def assert_refused(done, message):
    assert done.returncode == 2 and done.stdout == '', (done.stdout, done.stderr)
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: ') and message in line


@pytest.mark.parametrize('script', SCRIPTS)
def test_valid_settings_start_the_processes(launch, script):
    done = launch(script)
    assert done.returncode == 0, done.stderr
    expected = ('--nproc-per-node 2',) if script in DIST else ('--ntasks=8', '--cpus-per-task=5', '--gres=gpu:8')
    assert all(option in done.stdout for option in (*expected, CONFIG))


@pytest.mark.parametrize('script', SCRIPTS)
def test_a_config_that_does_not_exist_is_reported_before_the_start(launch, script):
    args = [arg.replace('xtiny', 'xtinny') for arg in SCRIPTS[script]]
    assert_refused(
        launch(script, *args), f'config classification/moganet-xtinny_digits not found: did you mean {CONFIG}'
    )


@pytest.mark.parametrize('script', ['dist_test.sh', 'slurm_test.sh'])
def test_a_checkpoint_that_does_not_exist_is_reported_before_the_start(launch, script):
    args = [arg.format('none.pth') for arg in SCRIPTS[script]]
    assert_refused(launch(script, *args), 'checkpoint none.pth does not exist')
    args = [arg.format('mogacore://moganet_tiny') for arg in SCRIPTS[script]]
    assert launch(script, *args).returncode == 0


@pytest.mark.parametrize('script', SLURM)
@pytest.mark.parametrize(
    'variables, message',
    [
        (dict(GPUS='two'), "GPUS is 'two': give an integer of at least 1"),
        (dict(GPUS='0'), "GPUS is '0'"),
        (dict(GPUS='08'), "GPUS is '08'"),
        (dict(GPUS='-1'), "GPUS is '-1'"),
        (dict(GPUS_PER_NODE='4.5'), "GPUS_PER_NODE is '4.5': give an integer of at least 0"),
        (dict(GPUS='12'), 'GPUS is 12 and GPUS_PER_NODE 8: give a multiple of GPUS_PER_NODE'),
        (dict(GPUS='4', GPUS_PER_NODE='8'), 'GPUS is 4 and GPUS_PER_NODE 8'),
        (dict(CPUS_PER_TASK='all'), "CPUS_PER_TASK is 'all'"),
        (dict(GPUS_PER_NODE='0', TASKS_PER_NODE='0'), "TASKS_PER_NODE is '0'"),
        (dict(MASTER_PORT='70000'), "MASTER_PORT is '70000'"),
    ],
)
def test_invalid_numbers_are_reported_before_anything_is_queued(launch, script, variables, message):
    assert_refused(launch(script, **variables), message)


def test_valid_numbers_of_slurm_are_passed_on(launch):
    args = ['part', 'job', CONFIG, 'work', '--amp']
    done = launch('slurm_train.sh', *args, GPUS='12', GPUS_PER_NODE='4', CPUS_PER_TASK='3', SRUN_ARGS='-x bad')
    for option in ('-p part', '--job-name=job', '--gres=gpu:4', '--ntasks=12', '--ntasks-per-node=4',
                   '--cpus-per-task=3', '-x bad', f'{CONFIG} --work-dir work --amp --launcher slurm'):  # fmt: skip
        assert option in done.stdout
    done = launch('sbatch_train.sh', GPUS='3', GPUS_PER_NODE='0', TASKS_PER_NODE='2')
    assert '--ntasks-per-node=2 --ntasks=3' in done.stdout and '--gres' not in done.stdout


@pytest.mark.parametrize(
    'variables, message',
    [(dict(SEEDS='1 x'), "each of SEEDS is 'x'"), (dict(WARN_SECONDS='5m'), "WARN_SECONDS is '5m'")],
)
def test_invalid_numbers_of_queued_jobs_are_reported(launch, variables, message):
    assert_refused(launch('sbatch_train.sh', **variables), message)


@pytest.mark.parametrize('script', DIST)
@pytest.mark.parametrize(
    'variables, message',
    [
        (dict(NNODES='two'), "NNODES is 'two'"),
        (dict(NNODES='2', NODE_RANK='2'), 'NODE_RANK is 2, but NNODES is 2: give 0 to 1'),
        (dict(MASTER_PORT='http'), "MASTER_PORT is 'http'"),
    ],
)
def test_invalid_numbers_of_machines_are_reported(launch, script, variables, message):
    assert_refused(launch(script, **variables), message)


@pytest.mark.parametrize('gpus', ['0', 'all', ''])
def test_an_invalid_number_of_processes_is_reported(launch, gpus):
    assert_refused(launch('dist_train.sh', CONFIG, gpus), f"GPUS is '{gpus}'")


def test_an_occupied_port_is_one_line(launch):
    with socket.socket() as taken:
        taken.bind(('', 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert_refused(launch('dist_train.sh', MASTER_PORT=port), f'MASTER_PORT {port} is already in use')
        joining = launch('dist_train.sh', MASTER_PORT=port, NNODES='2', NODE_RANK='1')  # the port of another machine
        assert joining.returncode == 0, joining.stderr
    port = str(*free_ports(1))
    assert f'--master-port {port}' in launch('dist_train.sh', MASTER_PORT=port).stdout


@pytest.mark.parametrize('script', [*SCRIPTS, 'dist_run.sh', 'slurm_run.sh'])
def test_help_lists_every_variable_that_a_script_reads(launch, script):
    shared = (TOOLS / 'launch_checks.sh').read_text()
    dist_only, slurm_only = ('dist_run.sh',), ('slurm_run.sh',)
    read = ''.join((TOOLS / name).read_text() for name in {script, *(dist_only if script[0] == 'd' else slurm_only)})
    start = shared.index('# Check the variables of a Slurm job')
    read += shared[:start] if script[0] == 'd' else shared
    read = '\n'.join(line for line in read.splitlines() if not line.lstrip().startswith('#'))
    variables = set(re.findall(r'\$\{([A-Z][A-Z_]+)\b', read)) - {'BASH_SOURCE'}
    assert {'PYTHON', 'MASTER_PORT'} <= variables
    done = launch(script, '--help')
    assert done.returncode == 0 and done.stderr == ''
    assert f'Usage: tools/{script} ' in done.stdout and 'set -euo' not in done.stdout
    assert {name for name in variables if not re.search(rf'\b{name}\b', done.stdout)} == set()


@pytest.mark.parametrize('script', SCRIPTS)
def test_missing_arguments_print_the_usage(launch, script):
    done = launch(script, 'one')
    assert done.returncode == 2 and done.stderr.startswith(f'usage: tools/{script} ')
    assert len(done.stderr.splitlines()) == 1


def test_sbatch_train_accepts_several_short_names(launch):
    done = launch('sbatch_train.sh', 'part', 'job', f'{CONFIG} pose/td-hm_moganet-xtiny_digits', 'work')
    assert done.returncode == 0, done.stderr
    assert '--array=0-1' in done.stdout
    assert f'{CONFIG} pose/td-hm_moganet-xtiny_digits' in done.stdout


def test_sbatch_train_rejects_a_wrong_name_among_several(launch):
    done = launch('sbatch_train.sh', 'part', 'job', f'{CONFIG} classification/moganet-xtiny_digit', 'work')
    assert_refused(done, 'config classification/moganet-xtiny_digit not found: did you mean classification')


@pytest.mark.parametrize('script', SLURM)
@pytest.mark.parametrize(
    'variables, message',
    [
        (dict(STAGE='local'), "STAGE is 'local': give an absolute path"),
        (dict(STAGE='/local'), 'STAGE is set, but STAGE_DATA is not'),
        (dict(STAGE='/local', STAGE_DATA='none'), 'STAGE_DATA none does not exist'),
        (dict(STAGE_DATA='.'), 'STAGE_DATA is set, but STAGE is not'),
    ],
)
def test_an_incomplete_request_to_copy_data_is_reported(launch, script, variables, message):
    assert_refused(launch(script, **variables), message)


@pytest.fixture
def nodes(launch, tmp_path):
    """Function that calls a script where srun runs each task, and salloc allocates two nodes of two tasks."""
    srun = f"""#!/bin/bash
        while [[ $1 == -* ]]; do
            case $1 in --ntasks=*) tasks=${{1#*=}} ;; --job-name=stage) echo "step $*" ;; -p) shift ;; esac
            shift
        done
        for task in $(seq "$tasks"); do NODE={tmp_path}/node$task "$@" & done
        for task in $(seq "$tasks"); do wait -n || exit $?; done
    """
    salloc = """#!/bin/bash
        echo "salloc $*"
        while [[ $1 == -* ]]; do if [ "$1" = -p ]; then shift; fi; shift; done
        SLURM_JOB_ID=1 SLURM_JOB_NUM_NODES=2 exec "$@"
    """
    python = f"""#!/bin/bash
        if [ "$1" = -m ]; then exec {sys.executable} "$@"; fi
        echo "train $NODE $MOGACORE_STAGED_FROM ${{MOGACORE_STAGED_TO//\\$NODE/$NODE}}"
    """
    for name, content in (('srun', srun), ('salloc', salloc), ('stand-in-python', python)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'a.tar').write_bytes(b'1')
    settings = dict(STAGE='$NODE/local', STAGE_DATA='data', GPUS='2', GPUS_PER_NODE='1')
    return lambda script, **variables: launch(script, **{**settings, **variables})


@pytest.mark.parametrize('script', ['slurm_train.sh', 'slurm_test.sh'])
def test_data_are_copied_once_to_each_node_before_the_processes_start(nodes, tmp_path, script):
    for inside in ({}, dict(SLURM_JOB_ID='7', SLURM_JOB_NUM_NODES='2')):
        done = nodes(script, **inside)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert any(line.startswith('salloc -p part --job-name=job --gres=gpu:1') for line in lines) == (not inside)
        (step,) = [line for line in lines if line.startswith('step ')]
        assert '--nodes=2 --ntasks=2 --ntasks-per-node=1' in step
        started = [line for line in lines if line.startswith('train ')]
        assert len(started) == 2 and lines[-2:] == started  # after the copies
        for line in started:
            _, node, source, copy = line.split()
            assert source == str(tmp_path / 'data') and copy.startswith(f'{node}/local/data-')
            assert (tmp_path / copy / 'a.tar').read_bytes() == b'1'
    assert sum('is a complete copy of data' in line for line in lines) == 2  # of the second job
    assert not any('salloc' in line for line in lines)


def test_a_failed_copy_ends_the_job_before_the_processes_start(nodes, tmp_path):
    (tmp_path / 'node2').write_text('not a folder')
    done = nodes('slurm_train.sh')
    assert done.returncode == 2 and 'train ' not in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: data cannot be copied to ') and 'set STAGE to' in line


def test_jobs_without_staging_start_one_step(launch):
    assert launch('slurm_train.sh').stdout.count('\n') == 1
