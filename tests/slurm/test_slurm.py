"""Training on two nodes of a real Slurm cluster, including requeues, signals and failures."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from cluster import Cluster, why_not
from conftest import ROOT, TINY_ARCH

from mogacore.checkpoint import read
from mogacore.datasets.digits import write_digits
from mogacore.engine.saving import is_intact
from mogacore.packing import pack

pytest.importorskip('mmpretrain')
pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

# 160 images in global batches of 16: 10 steps per epoch, 20 in total. BatchNorm statistics are fixed, so that a batch
# gives the same result when it is split in two.
CONFIG = f"""
_base_ = '{ROOT / 'configs' / 'classification' / 'moganet-xtiny_digits.py'}'
custom_imports = dict(imports=['mogacore.registry', 'probe_hooks'], allow_failed_imports=False)
custom_hooks = [dict(type='RecordSamplesHook')]
model = dict(backbone=dict(arch=dict(_delete_=True, **{TINY_ARCH}), norm_eval=True), head=dict(in_channels=32))
train_dataloader = dict(
    batch_size=8, num_workers=1, persistent_workers=True, dataset=dict(times=1, dataset=dict(indices=160)))
val_dataloader = dict(batch_size=8, num_workers=0, persistent_workers=False, dataset=dict(indices=41))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(by_epoch=False, interval=5, max_keep_ckpts=-1))
"""
NUM_STEPS = 20
ENV = dict(PYTHON=sys.executable, GPUS_PER_NODE='0', CPUS_PER_TASK='1', OMP_NUM_THREADS='1')


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp('project')
    write_digits(folder / 'data' / 'digits', parts=('classification',))
    (folder / 'small.py').write_text(CONFIG)
    for name, seconds in {'slow': 0.5, 'slower': 2.5}.items():
        (folder / f'{name}.py').write_text(
            f"_base_ = './small.py'\ntrain_dataloader = dict(batch_size=16)\n"
            f"custom_hooks = [dict(type='PaceHook', seconds={seconds})]\n"
        )
    return folder


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp('slurm'), num_nodes=3)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope='module')
def script(cluster, project):
    """Runs a script from tools/ in the project folder, in the background with ``wait=False``."""

    def run(name, *args, wait=True, **env):
        search = os.pathsep.join([str(ROOT), str(ROOT / 'tests' / 'slurm')])
        process = subprocess.Popen(
            ['bash', ROOT / 'tools' / name, *map(str, args)], cwd=project, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**cluster.env, **ENV, 'PYTHONPATH': search, 'PYTHONWARNINGS': 'ignore', **env},
        )  # fmt: skip
        if not wait:
            return process
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output[-4000:]
        return output

    return run


@pytest.fixture(scope='module')
def submit(script):
    """Submits a training run with one CPU process; returns its job number."""

    def run(work_dir, config='slow.py', **env):
        return script('sbatch_train.sh', 'test', 'job', config, work_dir, **dict(GPUS='1', **env)).split()[-1]

    return run


@pytest.fixture(scope='module')
def limited(cluster, submit):
    """A job that exceeds its time limit of one minute, Slurm's minimum; it runs concurrently with the others."""
    return submit('limited', 'slower.py', TIME='1', WARN_SECONDS='10', SBATCH_ARGS='-w node3')


@pytest.fixture(scope='module')
def two_nodes(script, limited):
    script('slurm_train.sh', 'test', 'pair', 'small.py', 'two_nodes', GPUS='2')
    return Path('two_nodes')


def weights(project, work_dir, step=NUM_STEPS):
    return read(project / work_dir / f'iter_{step}.pth')['state_dict']


def largest_difference(ours, theirs):
    assert ours.keys() == theirs.keys()
    return max((ours[name].double() - theirs[name].double()).abs().max().item() for name in theirs)


def test_two_nodes_two_processes_and_one_process_train_the_same_weights(two_nodes, script, project):
    script('dist_train.sh', 'small.py', '2', '--work-dir', 'two_processes')
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', ROOT / 'tools' / 'train.py', 'small.py', '--work-dir', 'one_process',
         '--cfg-options', 'train_dataloader.batch_size=16'],
        cwd=project, env={**os.environ, 'PYTHONPATH': f'{ROOT}{os.pathsep}{ROOT / "tests" / "slurm"}'},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = weights(project, 'two_nodes')
    assert largest_difference(found, weights(project, 'two_processes')) <= 1e-6
    assert largest_difference(found, weights(project, 'one_process')) <= 1e-6
    trained = max((value - found_first).abs().max().item() for value, found_first in zip(
        weights(project, 'two_nodes').values(), weights(project, 'two_nodes', 5).values(), strict=True))  # fmt: skip
    assert trained > 1e-3


def test_two_processes_read_each_sample_once_per_epoch(two_nodes, project):
    for epoch in range(2):
        read_by = [Counter(), Counter()]
        for rank, counter in enumerate(read_by):
            lines = (project / two_nodes / f'samples_{rank}.jsonl').read_text().splitlines()
            counter.update(name for e, names in map(json.loads, lines) if e == epoch for name in names)
        assert (read_by[0] + read_by[1]).total() == 160
        assert set((read_by[0] + read_by[1]).values()) == {1}
        assert read_by[0].total() == 80


def test_two_nodes_and_one_process_give_the_same_metrics_on_an_odd_number_of_images(two_nodes, script, project):
    """41 is divisible neither by two nor by the batch size."""
    checkpoint = two_nodes / f'iter_{NUM_STEPS}.pth'
    script('slurm_test.sh', 'test', 'pair', 'small.py', checkpoint, '--out', 'two.json', GPUS='2')
    script('dist_test.sh', 'small.py', checkpoint, '1', '--out', 'one.json')
    two, one = (json.loads((project / name).read_text())['metrics'] for name in ('two.json', 'one.json'))
    assert two == one
    assert one['accuracy/top1'] * 41 / 100 == pytest.approx(round(one['accuracy/top1'] * 41 / 100), abs=1e-3)


def step(project, work_dir, rank=0):
    """Process id and step of a rank of a slow training run; None before its first step."""
    path = project / work_dir / f'rank_{rank}'
    words = path.read_text().split() if path.exists() else []
    return (int(words[0]), int(words[1])) if len(words) == 2 else None


def wait_for_step(cluster, project, work_dir, number):
    def is_reached():
        found = step(project, work_dir)
        return found is not None and found[1] >= number

    cluster.wait_for(is_reached, 90, f'step {number} in {work_dir}')


@pytest.fixture(scope='module')
def requeued(cluster, submit, project):
    """Work dir and number of a finished job that was requeued while running."""
    job = submit('requeued', SBATCH_ARGS='-w node1')
    wait_for_step(cluster, project, 'requeued', 6)
    cluster.call('scontrol', 'requeue', job)
    cluster.wait_for(lambda: cluster.job(job)['Restarts'] == '1', 60, 'requeue')
    cluster.wait_for_state(job, {'COMPLETED', 'FAILED'}, 90)
    return 'requeued', job


def test_requeued_job_resumes_where_it_stopped(cluster, requeued, project):
    work_dir, job = requeued
    assert cluster.job(job)['JobState'] == 'COMPLETED'
    log = (project / work_dir / f'slurm-{job}.log').read_text()
    assert 'stopped by SIGTERM' in log
    assert 'start 1: ' in log and 'start 2: ' in log
    resumed = int(log.split('resumed epoch: ')[1].split('iter: ')[1].split()[0])
    assert resumed >= 6
    assert log.count('Epoch(train) [1][ 6/10]') == 1
    assert not (project / work_dir / 'interrupted.pth').exists()


def test_canceled_job_saves_and_is_not_requeued(cluster, submit, project):
    job = submit('cancelled', SBATCH_ARGS='-w node1')
    wait_for_step(cluster, project, 'cancelled', 7)
    cluster.call('scancel', job)
    cluster.wait_for_state(job, {'CANCELLED'}, 40)
    cluster.wait_for((project / 'cancelled' / 'interrupted.pth').exists, 20, 'checkpoint')
    cluster.wait_for(lambda: not Path(f'/proc/{step(project, "cancelled")[0]}/stat').exists()
                     or Path(f'/proc/{step(project, "cancelled")[0]}/stat').read_text().split()[2] in 'ZX',
                     30, 'process exit')  # fmt: skip
    assert is_intact(project / 'cancelled' / 'interrupted.pth') and is_intact(project / 'cancelled' / 'iter_5.pth')
    assert read(project / 'cancelled' / 'interrupted.pth')['meta']['iter'] >= 7
    assert cluster.job(job)['Restarts'] == '0'


def test_killed_rank_ends_the_job_within_a_minute(cluster, script, project):
    process = script('slurm_train.sh', 'test', 'pair', 'slow.py', 'killed', GPUS='2', wait=False)
    wait_for_step(cluster, project, 'killed', 6)
    start = time.monotonic()
    os.kill(step(project, 'killed', rank=1)[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - start < 60
    assert process.returncode != 0, output[-2000:]
    assert is_intact(project / 'killed' / 'iter_5.pth')


def test_job_of_a_lost_node_resumes_on_another(cluster, submit, project, requeued):
    job = submit('lost', SBATCH_ARGS='--exclude=node3')
    wait_for_step(cluster, project, 'lost', 6)
    node = cluster.job(job)['BatchHost']
    cluster.lose_node(node)
    cluster.wait_for(lambda: cluster.job(job)['Restarts'] == '1', 60, 'requeue')
    cluster.wait_for_state(job, {'COMPLETED', 'FAILED'}, 120)
    log = (project / 'lost' / f'slurm-{job}.log').read_text()
    assert cluster.job(job)['JobState'] == 'COMPLETED', log[-3000:]
    assert cluster.job(job)['BatchHost'] != node
    assert 'resumed epoch: 0, iter: 5' in log
    assert largest_difference(weights(project, 'lost'), weights(project, 'requeued')) == 0
    cluster.start_node(node)


def test_job_that_reaches_its_time_limit_saves_and_resumes(cluster, limited, project, requeued):
    cluster.wait_for_state(limited, {'COMPLETED', 'FAILED', 'TIMEOUT'}, 240)
    log = (project / 'limited' / f'slurm-{limited}.log').read_text()
    assert cluster.job(limited)['JobState'] == 'COMPLETED', log[-3000:]
    assert 'stopped by SIGUSR1' in log and 'is requeued' in log and 'start 2: ' in log
    assert largest_difference(weights(project, 'limited'), weights(project, 'requeued')) == 0


def test_reproduce_submits_a_missing_row_and_finds_its_result(cluster, project):
    """The paper's XT on ImageNet, with 16 digits in place of ImageNet's images."""
    digits = shutil.copytree(project / 'data' / 'digits' / 'classification', project / 'data' / 'thousand')
    for index in range(10, 1000):  # the recipe has ImageNet's number of classes
        (digits / 'train' / str(index)).mkdir()
    settings = [f'dataset.data_root={digits}', 'dataset.indices=16', 'batch_size=8', 'num_workers=0']
    settings += ['persistent_workers=False', 'pin_memory=False']
    options = [f'{loader}_dataloader.{setting}' for loader in ('train', 'val') for setting in settings]
    options += ['train_cfg.max_epochs=1', 'custom_hooks=[]']
    options += ['param_scheduler.0.warmup=1', 'param_scheduler.0.cosine_end=2', 'param_scheduler.0.end=2']

    def reproduce(*args):
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', ROOT / 'tools' / 'reproduce.py', 'cls-001', *args], cwd=project,
            capture_output=True, text=True, timeout=200,
            env={**cluster.env, **ENV, 'PYTHONPATH': str(ROOT), 'SBATCH_ARGS': '--hold'},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    submission = ['--submit', '--partition', 'test', '--gpus', '1', '--cfg-options', *options]
    output = reproduce(*submission)
    name = 'moganet-xtiny_timm-recipe_8xb128_in1k-224'
    assert output.startswith(f'{name}: Submitted batch job')
    job = output.split()[-1]
    assert reproduce(*submission) == f'{name}: already queued\n'
    cluster.call('scontrol', 'release', job)
    cluster.wait_for_state(job, ('COMPLETED', 'FAILED'), 200)
    log = (project / 'work_dirs' / name / f'slurm-{job}.log').read_text()
    assert cluster.job(job)['JobState'] == 'COMPLETED', log[-3000:]
    reproduce('--json', 'rows.json')
    (row,) = json.loads((project / 'rows.json').read_text())
    assert 0 <= row['metrics']['top1'] <= row['metrics']['top5'] <= 100
    assert reproduce(*submission) == ''  # already measured, nothing to submit


def test_two_nodes_train_from_copies_of_packed_data_on_their_disks(two_nodes, script, project):
    pack(project / 'data' / 'digits' / 'classification', project / 'packed' / 'classification', shard_size=200_000)
    root = 'packed/classification'
    options = [f'train_dataloader.dataset.dataset.data_root={root}', f'val_dataloader.dataset.data_root={root}']
    local = project / 'local'
    variables = dict(GPUS='2', STAGE=f'{local}/$SLURMD_NODENAME', STAGE_DATA='packed')
    output = script(
        'slurm_train.sh', 'test', 'staged', 'small.py', 'staged', '--cfg-options', *options, **variables
    )  # fmt: skip
    folders = sorted(local.iterdir())
    assert [folder.name for folder in folders] == ['node1', 'node2']
    assert sum(bool(re.search(r': copied (\d+) of \1 files', line)) for line in output.splitlines()) == 2
    copies = [next(path for path in folder.iterdir() if path.name.startswith('packed-')) for folder in folders]
    assert (copies[0] / 'classification' / 'train' / 'train-000000.tar').is_file()
    assert largest_difference(weights(project, 'staged'), weights(project, two_nodes)) == 0
    lines = [line for path in (project / 'staged').glob('samples_*.jsonl') for line in path.read_text().splitlines()]
    names = [name for line in lines for name in json.loads(line)[1]]
    assert len(names) == 320 and all(name.startswith((f'{copies[0]}/', f'{copies[1]}/')) for name in names)
