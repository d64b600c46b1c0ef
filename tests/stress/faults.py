"""Faults of the machine during training: ``python tests/stress/faults.py [--only KIND ...] [--number N] [--json OUT]``.

Trains tiny networks of five tasks and lets the machine fail. A run must end with exit code 2 and one line, or finish.
It must not hang or leave processes, and a resumed run must end with the same weights, bit for bit, as an undisturbed
one. Mounts and namespaces need root; where they are not permitted, the kinds that need them are skipped.

Prints a line for each case, and exits with 1 if one fails.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / 'engine'), str(TESTS / 'stress')]

import killed_runs  # noqa: E402
from conftest import ROOT, free_ports  # noqa: E402
from forked_commands import CLONE_NEWNET, CLONE_NEWNS, LIMIT_S, Command, unshare  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.registry import HOOKS  # noqa: E402

from mogacore.cli.train import main as train_main  # noqa: E402
from mogacore.engine.launch import EXIT_PEER_LOST, PEER_TIMEOUT_S  # noqa: E402
from mogacore.engine.saving import is_intact, newest_intact_checkpoint  # noqa: E402
from mogacore.errors import EXIT_NO_READER  # noqa: E402
from mogacore.files import PARTIAL_SUFFIX, write_atomic  # noqa: E402

TASKS = ('classification', 'detection', 'segmentation', 'pose', 'video_prediction')
NUM_STEPS = 36
PAGE = 4096
VALIDATION = ['val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False']


@HOOKS.register_module()
class SlowHook(Hook):
    """Makes each step last long enough for something to happen."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        time.sleep(0.3)


class Skip(Exception):
    """A kind cannot be tried here; the message says why."""


class Failed(AssertionError):
    """A case did not behave as it must."""


class Lab:
    """The folder of a task, with an undisturbed run in ``whole`` that others are compared with."""

    def __init__(self, task, folder, num_steps=NUM_STEPS):
        self.task, self.folder, self.num_logs = task, folder, 0
        folder.mkdir(parents=True)
        killed_runs.prepare(task, folder, num_steps)
        self.last = killed_runs.last_checkpoint(task, num_steps)
        command = self.train('whole')
        if command.wait():
            raise RuntimeError('\n'.join(command.errors()[-20:]))
        self.cpu_s = command.cpu_s
        self.number = 0

    def new(self, kind):
        """Name of a new work dir."""
        self.number += 1
        return f'{kind}_{self.number}'

    def train(self, work_dir, *flags, workers=0, before=None, config='config.py'):
        """Start a training with data loader workers."""
        os.chdir(self.folder)
        argv = [config, '--work-dir', str(work_dir), *flags, '--cfg-options', *VALIDATION]
        argv += [f'train_dataloader.num_workers={workers}', f'train_dataloader.persistent_workers={workers > 0}']
        self.num_logs += 1  # several commands may have the same work dir
        return Command(train_main, argv, self.folder / f'{Path(work_dir).name}-{self.num_logs}', before)

    def has_saved(self, work_dir):
        """Condition: the run has saved a checkpoint."""
        return lambda: any((self.folder / work_dir).glob('*_*.pth'))

    def check_line(self, command, words):
        """The command ends by itself with exit code 2 and one line with one of the words, and leaves no process."""
        code, lines = command.wait(), [line for line in command.errors() if line.lstrip('\0').startswith('error: ')]
        if code != 2 or len(lines) != 1 or 'Traceback' in command.err.read_text(errors='replace'):
            raise Failed(f'exit code {code}, stderr: {command.errors()[-5:]}')
        if not any(word in lines[0] for word in words):
            raise Failed(f'the line does not say why: {lines[0]}')
        if left := command.left():
            raise Failed(f'processes {left} are left')
        return lines[0]

    def check_intact(self, work_dir):
        """The newest checkpoint can be read and no other is broken, except partial files of a killed process."""
        folder = self.folder / work_dir
        if broken := [path.name for path in folder.glob('*.pth') if not is_intact(path)]:
            raise Failed(f'{work_dir} has broken checkpoints {broken}')
        return newest_intact_checkpoint(folder)

    def check_same(self, work_dir, resume=True):
        """Resume until the end: the final weights are those of the undisturbed run."""
        self.check_intact(work_dir)
        if resume:
            command = self.train(work_dir, '--resume')
            if command.wait():
                raise Failed(f'resume ends with exit code {command.code}: {command.errors()[-3:]}')
        if differs := killed_runs.difference(self.folder / work_dir / self.last, self.folder / 'whole' / self.last):
            raise Failed(f'{len(differs)} tensors differ, such as {differs[0]}')
        if left := [path.name for path in (self.folder / work_dir).glob(f'*{PARTIAL_SUFFIX}')]:
            raise Failed(f'files {left} are left')
        shutil.rmtree(self.folder / work_dir, ignore_errors=True)


class Report:
    """Collects the cases and prints them.

    Args:
        names: Parts of the names of the cases that are wanted where a kind has independent ones; None for all.
    """

    def __init__(self, names=None):
        self.names, self.cases = names, []

    def wants(self, name):
        return self.names is None or any(part in name for part in self.names)

    @contextmanager
    def case(self, kind, name):
        record = dict(kind=kind, name=name, passed=False, note='')
        start = time.monotonic()
        try:
            yield record
            record['passed'] = True
        except Skip as skip:
            record.update(passed=None, note=str(skip))
        except (Failed, TimeoutError) as error:
            record['note'] = str(error)
        record['seconds'] = round(time.monotonic() - start, 2)
        self.cases.append(record)
        word = {True: 'passed', False: 'FAILED', None: 'skipped'}[record['passed']]
        print(f'{word} {kind} {name} ({record["seconds"]} s): {record["note"]}', flush=True)

    def failures(self):
        return [case for case in self.cases if case['passed'] is False]


def run_kills(lab, report, number, rng):
    """Kill runs at random moments, several times in a chain, and every third time while a checkpoint is written."""
    done = 0
    while done < number:
        work_dir, links = lab.new('killed'), rng.randint(4, 10)
        workers = rng.choice((0, 0, 2))
        with report.case('kill', f'{lab.task} {work_dir}') as record:
            moments = []
            while len(moments) < min(links, number - done):
                command = lab.train(work_dir, *(['--resume'] if moments else []), workers=workers)
                moment = _kill(lab, command, work_dir, len(moments) + done, rng)
                if moment is None:  # it ended before
                    if command.code:
                        raise Failed(f'exit code {command.code}: {command.errors()[-3:]}')
                    break
                moments.append(moment)
                if left := command.left():
                    raise Failed(f'processes {left} outlive the killed one')
                lab.check_intact(work_dir)
            done += len(moments)
            writing = sum(moment['writing'] for moment in moments)
            record.update(kills=len(moments), writing=writing, workers=workers, moments=moments)
            record['note'] = f'{len(moments)} kills, {writing} while writing, {workers} workers'
            lab.check_same(work_dir)
        if not record['passed']:
            done = max(done, record.get('kills', 0)) + 1  # a broken chain must not go on forever


def _kill(lab, command, work_dir, number, rng):
    """Kill a run at a random moment, or while it writes a checkpoint; None if it ended before.

    The moment is a time of the processor, so that it is as random on a busy machine.
    """
    partial = lambda: list((lab.folder / work_dir).glob(f'*.pth*{PARTIAL_SUFFIX}'))  # noqa: E731
    start = time.monotonic()
    if number % 3 == 2:
        for _ in range(rng.randint(1, 4)):  # one of the next writes
            command.wait_for(partial)
            time.sleep(rng.choice((0, 0.0005, 0.002)))
            if not partial():
                command.wait_for(lambda: not partial(), limit_s=0.01)
    else:
        moment = rng.uniform(0.1, 0.9) * lab.cpu_s
        command.wait_for(lambda: command.used_cpu_s() > moment)
    if not command.kill():
        return None
    return dict(after_s=round(time.monotonic() - start, 3), writing=bool(partial()))


def mount(*arguments):
    """Call mount.

    Raises:
        Skip: If it is not permitted.
    """
    done = subprocess.run(['mount', *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise Skip(f'mount is not permitted: {done.stderr.strip()}')


@contextmanager
def tmpfs(folder, options):
    folder.mkdir(parents=True, exist_ok=True)
    mount('-t', 'tmpfs', '-o', options, 'tmpfs', folder)
    try:
        yield folder
    finally:
        subprocess.run(['umount', '-l', str(folder)], check=True)


def run_disk_full(lab, report, number, rng):
    """Give the work dir a disk of growing size, so that it is full at every write once; then enlarge it and resume."""
    used = sum((path.stat().st_size + PAGE - 1) // PAGE + 1 for path in (lab.folder / 'whole').rglob('*'))
    largest = used + 2 * ((lab.folder / 'whole' / lab.last).stat().st_size // PAGE + 1)
    for pages in sorted({round(1 + largest * step / number) for step in range(number + 1)}):
        work_dir = lab.new('full')
        case = report.case('disk full', f'{lab.task} {pages} pages')
        with case as record, tmpfs(lab.folder / work_dir, f'size={pages * PAGE}'):
            command = lab.train(work_dir)
            if command.wait():
                record['note'] = lab.check_line(command, ['the disk is full'])
                if partial := [path.name for path in (lab.folder / work_dir).glob(f'*{PARTIAL_SUFFIX}')]:
                    raise Failed(f'files {partial} are left')
                mount('-o', 'remount,size=64m', lab.folder / work_dir)
                lab.check_same(work_dir)
            else:
                record['note'] = 'finishes'
                lab.check_same(work_dir, resume=False)


def run_read_only(lab, report, number, rng):
    """A work dir that cannot be written, from the start and after the first checkpoint."""
    for name, options in (('from the start', 'ro'), ('no space for file names', 'nr_inodes=1')):
        case = report.case('read-only', f'{lab.task} {name}')
        with case as record, tmpfs(lab.folder / lab.new('readonly'), options) as folder:
            record['note'] = lab.check_line(lab.train(folder.name), ['cannot be written'])
    work_dir = lab.new('readonly')
    with report.case('read-only', f'{lab.task} after the first checkpoint') as record:
        command = lab.train(work_dir, workers=2)
        if not command.wait_for(lab.has_saved(work_dir)):
            raise Failed('no checkpoint')
        with tmpfs(lab.folder / work_dir, 'ro'):
            record['note'] = lab.check_line(command, ['read-only'])
        lab.check_same(work_dir)
    work_dir = lab.new('immutable')
    with report.case('read-only', f'{lab.task} permission withdrawn') as record:
        command = lab.train(work_dir)
        if not command.wait_for(lab.has_saved(work_dir)):
            raise Failed('no checkpoint')
        if subprocess.run(['chattr', '+i', work_dir], capture_output=True).returncode:
            command.wait()
            raise Skip('chattr +i is not supported here')
        try:
            record['note'] = lab.check_line(command, ['ermi'])
        finally:
            subprocess.run(['chattr', '-i', work_dir], check=True)
        lab.check_same(work_dir)


def run_data_removed(lab, report, number, rng):
    """The data disappears mid-run, and comes back later; the work dir disappears."""
    for workers in (0, 2):
        work_dir = lab.new('data')
        with report.case('data removed', f'{lab.task} {workers} workers') as record:
            command = lab.train(work_dir, workers=workers)
            if not command.wait_for(lab.has_saved(work_dir)):
                raise Failed('no checkpoint')
            os.rename('data', 'gone')
            try:
                if command.wait():
                    record['note'] = lab.check_line(command, ['not found'])
            finally:
                os.rename('gone', 'data')
            record['note'] = record['note'] or 'finishes, since the data is generated or in memory'
            lab.check_same(work_dir)
    work_dir = lab.new('removed')
    with report.case('work dir removed', lab.task) as record:
        command = lab.train(work_dir)
        if not command.wait_for(lab.has_saved(work_dir)):
            raise Failed('no checkpoint')
        shutil.rmtree(work_dir, ignore_errors=True)
        command.wait()
        record['note'] = lab.check_line(command, ['was removed while it was in use'])


def run_two_runs(lab, report, number, rng):
    """A second run in the same work dir is refused, and the first one is not disturbed."""
    work_dir = lab.new('twice')
    with report.case('two runs', lab.task) as record:
        first = lab.train(work_dir)
        if not first.wait_for(lambda: Path(work_dir, '.lock').exists()):
            raise Failed('no lock')
        for flags in ([], ['--resume']):
            second = lab.train(work_dir, *flags)
            second.wait()
            if not first.is_running():
                raise Skip('the first run was too short: use more --steps')
            record['note'] = lab.check_line(second, ['in use by another run', 'already contains checkpoints'])
        if first.wait():
            raise Failed(f'the first run ends with exit code {first.code}')
        if Path(work_dir, '.lock').exists():
            raise Failed('the lock is left')
        lab.check_same(work_dir, resume=False)
    work_dir = lab.new('twice')
    with report.case('two runs', f'{lab.task} at the same moment'):
        pair = [lab.train(work_dir), lab.train(work_dir)]
        codes = sorted(command.wait() for command in pair)
        if codes != [0, 2]:
            raise Failed(f'exit codes {codes}')
        lab.check_same(work_dir, resume=False)


def run_shared_memory(lab, report, number, rng):
    """/dev/shm is too small for the batches of four workers."""

    def small_shm(size):
        def before():
            unshare(CLONE_NEWNS)
            subprocess.run(['mount', '--make-rprivate', '/'], check=True)
            subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', '/dev/shm'], check=True)

        return before

    for size in ('4k', '64k', '256k'):
        work_dir = lab.new('shm')
        with report.case('/dev/shm full', f'{lab.task} {size}') as record:
            command = lab.train(work_dir, workers=4, before=small_shm(size))
            if command.wait():
                record['note'] = lab.check_line(command, ['/dev/shm'])
            record['note'] = record['note'] or 'finishes'
            lab.check_same(work_dir)


def run_memory(lab, report, number, rng):
    """Address space for a few more MiB than the process has at the start; then a control group with little memory."""
    for megabytes in (1, 32, 128):
        work_dir = lab.new('memory')

        def limit(megabytes=megabytes):
            pages = int(Path('/proc/self/statm').read_text().split()[0])
            size = pages * PAGE + megabytes * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (size, size))

        with report.case('no memory', f'{lab.task} {megabytes} MiB of address space') as record:
            command = lab.train(work_dir, workers=2 * (megabytes % 3 == 0), before=limit)
            if command.wait():
                record['note'] = lab.check_line(command, ['memory', 'threads'])
            record['note'] = record['note'] or 'finishes'
            lab.check_same(work_dir)
    for megabytes, workers in ((16, 0), (64, 0), (64, 2), (128, 2), (512, 2)):
        work_dir = lab.new('memory')
        name = f'{lab.task} {megabytes} MiB in a control group, {workers} workers'
        with report.case('no memory', name) as record, memory_group(megabytes) as join:
            command = lab.train(work_dir, workers=workers, before=join)
            if command.wait() == -signal.SIGKILL:
                record['note'] = 'the kernel kills the process'
            elif command.code:
                record['note'] = lab.check_line(command, ['memory', 'killed'])
            record['note'] = record['note'] or 'finishes'
            if left := command.left(grace_s=20):
                raise Failed(f'processes {left} are left')
            lab.check_same(work_dir)


@contextmanager
def memory_group(megabytes):
    """A control group; yields a function that moves the process into it, whose new memory then has a limit."""
    old = Path('/sys/fs/cgroup/memory')
    root, limit = (old, 'memory.limit_in_bytes') if old.exists() else (old.parent, 'memory.max')
    folder = root / f'mogacore-faults-{os.getpid()}'
    try:
        folder.mkdir()
        (folder / limit).write_text(str(megabytes * 2**20))
    except OSError as error:
        raise Skip(f'no control groups: {error}') from None
    try:
        yield lambda: (folder / 'cgroup.procs').write_text(str(os.getpid()))
    finally:
        folder.rmdir()


def run_limits(lab, report, number, rng):
    """Few open files, and a largest size of a file that the checkpoint, or the log, exceeds."""
    size = (lab.folder / 'whole' / lab.last).stat().st_size
    limits = [('open files', resource.RLIMIT_NOFILE, more) for more in (0, 4, 8, 16, 64)]
    limits += [('bytes of a file', resource.RLIMIT_FSIZE, more) for more in (2000, size - 1)]
    for name, kind, more in limits:
        work_dir = lab.new('limit')

        def limit(kind=kind, more=more):
            used = len(os.listdir('/proc/self/fd')) if kind == resource.RLIMIT_NOFILE else 0
            resource.setrlimit(kind, (used + more, used + more))

        with report.case('limit', f'{lab.task} {more} {name}') as record:
            command = lab.train(work_dir, workers=2 * (kind == resource.RLIMIT_NOFILE), before=limit)
            if command.wait():
                record['note'] = lab.check_line(command, ['open', 'size', 'written', 'cannot be read'])
            record['note'] = record['note'] or 'finishes'
            lab.check_same(work_dir)


def run_clock(lab, report, number, rng):
    """The clock jumps by ten years, forward and backward, at every second look at it."""
    work_dir = lab.new('clock')

    def jump():
        now, count = time.time, [0]

        def wrong():
            count[0] += 1
            return now() + (315_360_000 if count[0] % 4 > 1 else -315_360_000)

        time.time = wrong

    with report.case('clock', f'{lab.task} time.time jumps'):
        command = lab.train(work_dir, before=jump, workers=2)
        if command.wait():
            raise Failed(f'exit code {command.code}: {command.errors()[-3:]}')
        lab.check_same(work_dir, resume=False)
    with report.case('clock', f'{lab.task} system clock jumps, by libfaketime') as record:
        libraries = list(Path('/usr/lib').glob('*/faketime/libfaketimeMT.so.1'))
        if not libraries:
            raise Skip('libfaketime is not installed')
        _train_in_false_time(lab, libraries[0], record)
    work_dir = lab.new('clock')
    with report.case('clock', f'{lab.task} killed, then resumed ten years earlier'):
        command = lab.train(work_dir)
        command.wait_for(lab.has_saved(work_dir))
        command.kill()

        def earlier():
            now = time.time
            time.time = lambda: now() - 315_360_000

        again = lab.train(work_dir, '--resume', before=earlier)
        if again.wait():
            raise Failed(f'exit code {again.code}: {again.errors()[-3:]}')
        lab.check_same(work_dir, resume=False)


def close(*numbers):
    """The process has been started without these standard files."""

    def before():
        for number in numbers:
            os.close(number)
            setattr(sys, ('stdin', 'stdout', 'stderr')[number], None)

    return before


def redirect_stdout(path, flags=os.O_WRONLY):
    def before():
        descriptor = os.open(path, flags)
        os.dup2(descriptor, 1)
        os.close(descriptor)

    return before


def no_reader():
    reader, writer = os.pipe()
    os.dup2(writer, 1)
    os.close(reader)
    os.close(writer)


def unknown_user():
    os.environ.pop('HOME', None)
    os.setreuid(54321, -1)  # has no name and no home; the permissions are those of the effective user


# What is unusual -> changes in the process before the command, exit codes that are allowed. All of these processes lack
# a terminal. A command whose work is done but whose last output is lost ends with 2.
SURROUNDINGS = {
    'stdin closed': (close(0), (0,)),
    'stdout closed': (close(1), (0,)),
    'stderr closed': (close(2), (0,)),
    'stdout full': (redirect_stdout('/dev/full'), (0, 2)),
    'stdout without reader': (no_reader, (0, EXIT_NO_READER)),
    'HOME unset': (lambda: os.environ.pop('HOME', None), (0,)),
    'HOME missing': (lambda: os.environ.update(HOME='/nonexistent'), (0,)),
    'unknown user without HOME': (unknown_user, (0,)),
}
# In processes of their own, since Python reads the language when it starts: shell that starts "$@", environment.
SHELLS = {
    'stdin, stdout and stderr closed': ('exec "$@" <&- >&- 2>&-', {}),
    'LANG=C': ('exec "$@"', {'LANG': 'C', 'LC_ALL': None, 'LC_CTYPE': None}),
    'ASCII only': ('exec "$@"', {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}),
}


def run_environment(lab, report, number, rng):
    """Unusual standard files, users and languages."""
    for name, (before, codes) in SURROUNDINGS.items():
        if not report.wants(name):
            continue
        work_dir = lab.new('surroundings')
        with report.case('environment', name) as record:
            command = lab.train(work_dir, before=before, workers=2)
            _check_output(command.wait(), command.err.read_text(errors='replace'), codes)
            record['note'] = f'exit code {command.code}'
            lab.check_same(work_dir, resume=False)
    Path('größe.py').write_text("# Größe\n_base_ = './config.py'\n", encoding='utf-8')
    for name, (shell, changes) in SHELLS.items():
        if not report.wants(name):
            continue
        environ = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', **changes}
        environ = {key: value for key, value in environ.items() if value is not None}
        work_dir = lab.new('größe')
        argv = ['größe.py', '--work-dir', work_dir, '--cfg-options', 'train_dataloader.num_workers=2', *VALIDATION]
        with report.case('environment', name) as record:
            done = subprocess.run(
                ['bash', '-c', shell, '-', sys.executable, '-W', 'ignore', str(ROOT / 'tools' / 'train.py'), *argv],
                env=environ, capture_output=True, text=True, errors='replace', timeout=LIMIT_S,
            )  # fmt: skip
            _check_output(done.returncode, done.stderr, (0,))
            lab.check_same(work_dir, resume=False)


def _check_output(code, stderr, codes):
    lines = [line for line in stderr.splitlines() if line.startswith('error: ')]
    if code not in codes or 'Traceback' in stderr or 'Exception ignored' in stderr:
        raise Failed(f'exit code {code}, stderr {stderr[-600:]}')
    if len(lines) != (code == 2):
        raise Failed(f'exit code {code} with {len(lines)} error lines: {stderr[-600:]}')


def _train_in_false_time(lab, library, record):
    """Train in a process of its own, whose clock jumps by years ten times a second; the monotonic clock stays."""
    work_dir, offset = lab.new('clock'), lab.folder / 'offset'
    offset.write_text('+0')
    environ = {**os.environ, 'PYTHONPATH': str(ROOT), 'LD_PRELOAD': str(library), 'FAKETIME_NO_CACHE': '1'}
    environ |= {'FAKETIME_TIMESTAMP_FILE': str(offset), 'FAKETIME_DONT_FAKE_MONOTONIC': '1'}
    argv = ['config.py', '--work-dir', work_dir, '--cfg-options', 'train_dataloader.num_workers=2', *VALIDATION]
    process = subprocess.Popen(
        [sys.executable, '-W', 'ignore', str(ROOT / 'tools' / 'train.py'), *argv], env=environ,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    jumps, end = 0, time.monotonic() + LIMIT_S
    while process.poll() is None:
        if time.monotonic() > end:
            process.kill()
            raise Failed(f'still running after {LIMIT_S} s')
        jumps += 1
        write_atomic(offset, ('+0', '+10y', '-10y')[jumps % 3].encode(), sync=False)
        time.sleep(0.1)
    if process.returncode:
        raise Failed(f'exit code {process.returncode}: {process.stderr.read()[-600:]}')
    record['note'] = f'{jumps} jumps'
    lab.check_same(work_dir, resume=False)


def run_network_cut(lab, report, number, rng):
    """Two processes in two network namespaces; the link between them goes down without a word."""
    names = [f'moga{os.getpid()}{side}' for side in 'ab']
    with report.case('network cut', lab.task) as record:
        for name in names:
            if subprocess.run(['ip', 'netns', 'add', name], capture_output=True).returncode:
                raise Skip('network namespaces are not permitted here')
        try:
            _cut(lab, names, record)
        finally:
            for name in names:
                subprocess.run(['ip', 'netns', 'del', name], check=False)


def _cut(lab, names, record):
    def ip(*arguments):
        subprocess.run(['ip', *arguments], check=True, capture_output=True)

    links = [f'v{os.getpid() % 100000}{side}' for side in 'ab']
    ip('link', 'add', links[0], 'type', 'veth', 'peer', 'name', links[1])
    for number, (name, link) in enumerate(zip(names, links, strict=True)):
        ip('link', 'set', link, 'netns', name)
        ip('-n', name, 'addr', 'add', f'10.99.0.{number + 1}/24', 'dev', link)
        ip('-n', name, 'link', 'set', link, 'up')
        ip('-n', name, 'link', 'set', 'lo', 'up')
    port = free_ports(1)[0]

    def enter(rank):
        def before():
            descriptor = os.open(f'/run/netns/{names[rank]}', os.O_RDONLY)
            if ctypes.CDLL(None).setns(descriptor, CLONE_NEWNET):
                raise OSError('setns failed')
            os.environ.update(RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK='0', GLOO_SOCKET_IFNAME=links[rank])
            os.environ.update(MASTER_ADDR='10.99.0.1', MASTER_PORT=str(port))

        return before

    work_dir = lab.new('cut')
    Path('slow.py').write_text("_base_ = './config.py'\ncustom_hooks = [dict(type='SlowHook')]\n")
    pair = [lab.train(work_dir, '--launcher', 'pytorch', before=enter(rank), config='slow.py') for rank in range(2)]
    if not pair[0].wait_for(lab.has_saved(work_dir)):
        raise Failed(f'no checkpoint: {[command.errors()[-3:] for command in pair]}')
    ip('-n', names[0], 'link', 'set', links[0], 'down')
    start = time.monotonic()
    codes = [command.wait(limit_s=3 * PEER_TIMEOUT_S) for command in pair]
    record['note'] = f'exit codes {codes} after {time.monotonic() - start:.0f} s'
    for command in pair:
        lines = [line for line in command.errors() if line.startswith('error: ')]
        if command.code not in (2, EXIT_PEER_LOST) or len(lines) != 1:
            raise Failed(f'exit code {command.code}, stderr {command.errors()[-5:]}')
    lab.check_intact(work_dir)


KINDS = {
    'kill': (run_kills, TASKS),
    'disk-full': (run_disk_full, ('classification',)),
    'read-only': (run_read_only, ('classification',)),
    'data-removed': (run_data_removed, TASKS),
    'two-runs': (run_two_runs, ('classification',)),
    'shm': (run_shared_memory, ('classification', 'detection')),
    'memory': (run_memory, ('classification', 'detection')),
    'limits': (run_limits, ('classification',)),
    'clock': (run_clock, ('classification',)),
    'environment': (run_environment, ('classification',)),
    'network': (run_network_cut, ('classification',)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', choices=list(KINDS), default=list(KINDS))
    parser.add_argument('--cases', nargs='+', metavar='NAME', help='parts of names of the cases of "environment"')
    parser.add_argument('--tasks', nargs='+', choices=TASKS, default=TASKS)
    parser.add_argument('--number', type=int, default=20, help='kills per task, and sizes of the disk')
    parser.add_argument('--steps', type=int, default=NUM_STEPS, help='length of a training: 12, 24, ...')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', metavar='FILE', help='write the cases to this file')
    args = parser.parse_args()
    report, start = Report(args.cases), time.monotonic()
    with tempfile.TemporaryDirectory(prefix='mogacore-faults-') as folder:
        for task in args.tasks:
            kinds = [kind for kind in args.only if task in KINDS[kind][1]]
            if not kinds:
                continue
            lab = Lab(task, Path(folder) / task, args.steps)
            for kind in kinds:
                KINDS[kind][0](lab, report, args.number, random.Random(f'{task} {kind} {args.seed}'))
        os.chdir(ROOT)
    kills = sum(case.get('kills', 0) for case in report.cases)
    counts = {word: sum(case['passed'] is value for case in report.cases)
              for word, value in (('passed', True), ('failed', False), ('skipped', None))}  # fmt: skip
    print(f'{counts}, {kills} kills, {time.monotonic() - start:.0f} s')
    if args.json:
        Path(args.json).write_text(json.dumps(dict(counts=counts, kills=kills, cases=report.cases), indent=2) + '\n')
    sys.exit(1 if report.failures() else 0)


if __name__ == '__main__':
    main()
