"""Resources of data loading and training: ``python tests/stress/resources.py [--only NAME ...] [--json OUT]``.

Iterates over five epochs of every data set class with four workers, for tiny stand-in data, and compares memory, file
handles, threads, child processes and /dev/shm after each epoch. Memory is the proportional set size of the process and
its workers, without mapped files. Then kills a worker, or the main process, of a training of five tasks and looks for
what is left.

Prints a line for each case, and exits with 1 if one grows or leaves something.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / 'engine'), str(TESTS / 'stress')]

import killed_runs  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from conftest import ROOT, write_idx, write_netcdf  # noqa: E402
from faults import TASKS, Failed, Lab, Report  # noqa: E402
from forked_commands import group  # noqa: E402
from mmengine.config import ConfigDict  # noqa: E402
from mmengine.registry import DATA_SAMPLERS, DefaultScope  # noqa: E402
from PIL import Image  # noqa: E402
from torch.utils.data import Sampler  # noqa: E402

from mogacore.datasets.hands import write_hands  # noqa: E402
from mogacore.engine.config import load_config  # noqa: E402
from mogacore.engine.loaders import build_loader  # noqa: E402
from mogacore.libraries import import_quietly  # noqa: E402
from mogacore.published.corruptions import ALEXNET_ERRORS, SEVERITIES  # noqa: E402

NUM_EPOCHS, NUM_SAMPLES, NUM_WORKERS = 5, 400, 4
NUM_FIRST = 2  # epochs before, which fill caches of workers that stay
# Between the first of the five epochs and the last one; what a page or two per sample would be is 1.6 MB per epoch.
LARGEST_GROWTH_MB = 2.0
SHM = Path('/dev/shm')


def class_folders(root, names=('a', 'b'), per_class=3):
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            noise = np.random.default_rng(number).integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / name / f'{number}.jpg')
    return dict(data_root=str(root), pipeline=IMAGES)


IMAGES = [
    dict(type='LoadImageFromFile'),
    dict(type='FastRandomResizedCrop', scale=32, interpolation='bicubic'),
    dict(type='mmpretrain.PackInputs'),
]


def subset(root):
    settings = class_folders(root / 'images')
    for name in 'abc':
        (root / 'reference' / name).mkdir(parents=True)
    return dict(settings, reference_root=str(root / 'reference'))


def corruptions(root):
    for name in ALEXNET_ERRORS:
        for severity in SEVERITIES:
            class_folders(root / name / str(severity), per_class=1)
    return dict(data_root=str(root), pipeline=IMAGES)


def coco_labels(root):
    class_folders(root, ('photos',))
    images = [dict(id=number, file_name=f'{number}.jpg', width=48, height=40) for number in range(3)]
    box = dict(bbox=[1, 1, 5, 4], area=20.0, iscrowd=0)
    annotations = [dict(box, id=number, image_id=number, category_id=number % 2) for number in range(3)]
    categories = [dict(id=0, name='cat'), dict(id=1, name='dog')]
    (root / 'labels.json').write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return dict(
        data_root=str(root), ann_file='labels.json', data_prefix=dict(img='photos/'),
        metainfo=dict(classes=('cat', 'dog')),
        pipeline=[*IMAGES[:2], dict(type='mmpretrain.PackInputs')],
    )  # fmt: skip


def fashion(root):
    rng = np.random.default_rng(0)
    write_idx(root / 'train-images-idx3-ubyte', rng.integers(0, 256, (6, 28, 28)))
    write_idx(root / 'train-labels-idx1-ubyte', np.arange(6))
    return dict(data_root=str(root), pipeline=[dict(type='mmpretrain.PackInputs')])


def moving_mnist(root):
    rng = np.random.default_rng(0)
    write_idx(root / 'train-images-idx3-ubyte.gz', rng.integers(0, 256, (30, 28, 28)))
    (root / 'cifar').mkdir()
    for name in (*(f'data_batch_{number}' for number in range(1, 6)), 'test_batch'):
        rng.integers(0, 256, (2, 3073), dtype=np.uint8).tofile(root / 'cifar' / f'{name}.bin')
    return dict(data_root=str(root), num_sequences=20, backgrounds='cifar', noise='missing')


def sequence_file(root):
    np.save(root / 'mnist_test_seq.npy', np.random.default_rng(0).integers(0, 256, (20, 8, 32, 32), dtype=np.uint8))
    return dict(data_root=str(root))


def clips(root, names):
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(8):
            noise = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / name / f'image-{number:03}.png')
    return dict(data_root=str(root), num_inputs=3, num_targets=2, size=(20, 24))


def driving(root):
    np.save(root / 'train_data.npy', np.random.default_rng(0).integers(0, 256, (40, 16, 20, 3), dtype=np.uint8))
    np.save(root / 'train_idx.npy', np.array([0, 11, 22]))
    return dict(data_root=str(root))


def taxi(root):
    rng = np.random.default_rng(0)
    arrays = {name: rng.uniform(-1, 1, (6, 4, 2, 32, 32)).astype(np.float32) for name in ('X_train', 'Y_train')}
    np.savez(root / 'dataset.npz', **arrays, X_test=arrays['X_train'], Y_test=arrays['Y_train'])
    return dict(data_root=str(root))


def weather(root):
    values = np.random.default_rng(0).normal(280, 10, (60, 4, 6)).astype(np.float32)
    for year in (2014, 2015):
        write_netcdf(root / f'2m_temperature/2m_temperature_{year}_5.625deg.nc', 't2m', values)
    return dict(data_root=str(root), variables=['2m_temperature'], years=(2014, 2015), train_years=(2014, 2015))


def freihand(root):
    write_hands(root, num_train=5, num_test=2)
    return dict(data_root=str(root / 'freihand'), subset='trainval')


# Class -> function that writes its data to a folder and returns its settings.
DATASETS = {
    'ClassFolders': class_folders,
    'ImageNetV2': lambda root: class_folders(root, ('0', '1')),
    'ImageNetSubset': subset,
    'ImageNetC': corruptions,
    'CocoLabels': coco_labels,
    'FashionMNISTFiles': fashion,
    'MovingMNIST': moving_mnist,
    'MovingDigits': lambda root: dict(num_sequences=20),
    'SequenceFile': sequence_file,
    'FrameFolders': lambda root: clips(root, ('x', 'y')),
    'KTH': lambda root: clips(root, ('boxing/person01_boxing_d1', 'running/person02_running_d2')),
    'KittiCaltech': driving,
    'TaxiBJ': taxi,
    'WeatherBench': weather,
    'FreiHAND': freihand,
}


def task_dataset(task, root):
    """Training data set of a task on the digits, with its whole pipeline."""
    here = os.getcwd()
    killed_runs.prepare(task, root)
    cfg = load_config('config.py')
    dataset = cfg.train_dataloader.dataset
    os.chdir(here)
    inner = dataset.get('dataset', dataset)
    if 'data_root' in inner:
        inner['data_root'] = str(root / inner['data_root'])
    inner.pop('indices', None)
    return cfg.default_scope, dataset


def memory_mb():
    """Memory of this process and its children, without mapped files, whose share depends on other programs."""
    total = 0
    for pid in [os.getpid(), *children()]:
        try:
            rollup = Path(f'/proc/{pid}/smaps_rollup').read_text()
        except OSError:
            continue  # has ended
        shares = (line.split()[:2] for line in rollup.splitlines() if line.startswith(('Pss_Anon:', 'Pss_Shmem:')))
        total += sum(int(kilobytes) for _, kilobytes in shares)
    return total / 1024


def children():
    """Processes that this one has started."""
    pids = []
    for path in Path('/proc/self/task').glob('*/children'):
        pids += [int(pid) for pid in path.read_text().split()]
    return pids


def measure(is_idle):
    """Measurements of this moment; ``is_idle``: after the workers have ended."""
    gc.collect()
    end = time.monotonic() + 10
    while is_idle and multiprocessing.active_children() and time.monotonic() < end:
        time.sleep(0.05)
    handles = [os.readlink(f'/proc/self/fd/{name}') for name in os.listdir('/proc/self/fd')
               if os.path.lexists(f'/proc/self/fd/{name}')]  # fmt: skip
    return dict(
        memory_mb=round(memory_mb(), 2),
        handles=len(handles),
        threads=len(os.listdir('/proc/self/task')),
        children=len(children()),
        shm=len(list(SHM.iterdir())),
        shm_handles=sum(handle.startswith('/dev/shm') for handle in handles),
    )


@DATA_SAMPLERS.register_module()
class RandomIndices(Sampler):
    """``NUM_SAMPLES`` random indices per epoch, for data sets of any size."""

    def __init__(self, dataset, seed):
        self.size, self.rng = len(dataset), random.Random(seed)

    def __len__(self):
        return NUM_SAMPLES

    def __iter__(self):
        return iter(self.rng.choices(range(self.size), k=NUM_SAMPLES))

    def set_epoch(self, epoch):
        pass


def epochs(dataset, scope, is_persistent):
    """Measurements after each of the epochs over a data set, repeated to ``NUM_SAMPLES``."""
    with DefaultScope.overwrite_default_scope(scope):
        loader = build_loader(
            ConfigDict(
                batch_size=4,
                num_workers=NUM_WORKERS,
                persistent_workers=is_persistent,
                collate_fn=dict(type='pseudo_collate'),
                sampler=dict(type='ResumableSampler', sampler=dict(type='RandomIndices')),
                dataset=dict(type='SeededDataset', dataset=dataset),
            ),
            seed=0,
        )
    found = []
    for _ in range(NUM_FIRST + NUM_EPOCHS):
        for _batch in loader:
            pass
        del _batch
        found.append(measure(not is_persistent))
    return found[NUM_FIRST:]


def check_flat(found):
    first, last = found[0], found[-1]
    for name in ('handles', 'threads', 'children', 'shm', 'shm_handles'):
        if last[name] > first[name]:
            raise Failed(f'{name} grow from {first[name]} to {last[name]}')
    growth = last['memory_mb'] - first['memory_mb']
    if growth > LARGEST_GROWTH_MB:
        raise Failed(f'memory grows by {growth:.1f} MB: {[one["memory_mb"] for one in found]}')
    return growth


def in_fork(work):
    """Result of ``work`` in a fork, which starts without the threads and caches of earlier cases."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            os.close(reader)
            result = json.dumps(dict(found=work()))
        except BaseException as error:
            result = json.dumps(dict(error=f'{type(error).__name__}: {error}'))
        with os.fdopen(writer, 'w') as file:
            file.write(result)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        result = json.loads(file.read() or '{"error": "killed"}')
    os.waitpid(pid, 0)
    if 'error' in result:
        raise Failed(result['error'])
    end = time.monotonic() + 5
    while (left := group(pid)) and time.monotonic() < end:
        time.sleep(0.05)
    if left:
        raise Failed(f'processes {left} are left')
    return result['found']


def run_datasets(report, folder, names):
    torch.set_num_threads(1)
    warnings.filterwarnings('ignore', message='.*worker processes in total')
    import_quietly('mmpretrain')
    for name in names:
        root = folder / name
        root.mkdir(parents=True)
        if name in TASKS:
            scope, dataset = task_dataset(name, root)
        else:
            scope, dataset = 'mmpretrain', dict(type=name, **DATASETS[name](root))
        for is_persistent in (False, True):
            kept = 'workers kept' if is_persistent else 'new workers each epoch'
            with report.case('epochs', f'{name}, {kept}') as record:
                found = in_fork(partial(epochs, dataset, scope, is_persistent))
                record['found'] = found
                growth = check_flat(found)
                record['note'] = f'{growth:+.2f} MB, {found[-1]["handles"]} handles, {found[-1]["threads"]} threads'


def run_crashes(report, folder, tasks):
    """Kill a worker or the main process of a training with four workers."""
    for task in tasks:
        lab = Lab(task, folder / f'crash_{task}')
        rng = random.Random(task)
        for victim, how in (('worker', signal.SIGKILL), ('worker', signal.SIGSEGV), ('main', signal.SIGKILL)):
            work_dir = lab.new('crash')
            with report.case('crash', f'{task}, {victim} {how.name}') as record:
                shm = set(SHM.iterdir())
                command = lab.train(work_dir, workers=NUM_WORKERS)
                if not command.wait_for(lab.has_saved(work_dir)):
                    raise Failed(f'no checkpoint: {command.errors()[-3:]}')
                workers = [pid for pid in group(command.pid) if pid != command.pid]
                if not workers:
                    raise Failed('no workers')
                start = time.monotonic()
                if victim == 'worker':
                    os.kill(rng.choice(workers), how)
                    record['note'] = lab.check_line(command, ['worker'])
                else:
                    command.kill()
                    if left := command.left():
                        raise Failed(f'processes {left} are left')
                record['note'] += f' ({time.monotonic() - start:.1f} s until all have ended)'
                if left := set(SHM.iterdir()) - shm:
                    raise Failed(f'/dev/shm has {sorted(map(str, left))}')
                lab.check_same(work_dir)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', choices=[*DATASETS, *TASKS, 'crash'], metavar='NAME')
    parser.add_argument('--tasks', nargs='+', choices=TASKS, default=TASKS, help='tasks that "crash" tries')
    parser.add_argument('--json', metavar='FILE', help='write the cases to this file')
    args = parser.parse_args()
    names = args.only or [*DATASETS, *TASKS, 'crash']
    report, start = Report(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix='mogacore-resources-') as folder:
        if 'crash' in names:
            run_crashes(report, Path(folder), args.tasks)
        run_datasets(report, Path(folder), [name for name in names if name != 'crash'])
        os.chdir(ROOT)
    print(f'{len(report.cases)} cases, {len(report.failures())} failed, {time.monotonic() - start:.0f} s')
    if args.json:
        Path(args.json).write_text(json.dumps(report.cases, indent=2) + '\n')
    sys.exit(1 if report.failures() else 0)


if __name__ == '__main__':
    main()
