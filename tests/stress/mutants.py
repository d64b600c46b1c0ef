"""Mutation testing: how many small changes of the source the tests notice.

    python tests/stress/mutants.py [--number 300] [--seed 0] [--only MODULE] [--json OUT] [--again]

Draws mutants of the files below (see mutations.py, which runs in a temporary environment with mutmut), and runs the
tests of each. A process that has imported torch and mmengine forks for every mutant; there, an import hook puts the
mutated source in the place of the file, which is not changed, and pytest runs the tests that execute the mutated line,
fast ones first, until one fails. With ``--json`` results are appended to a file of JSON lines, and a second call
resumes; ``--again`` repeats those that survived, after tests were added. A mutant is

* killed, if a test fails or pytest cannot import the tests;
* timed out, if a test takes much longer than without the mutant (endless loops);
* survived, if all tests pass, or no test executes the line.

Needs the environment of the tests. Run it on an idle machine, since limits are multiples of times.
"""

from __future__ import annotations

import argparse
import ast
import collections
import contextlib
import hashlib
import importlib.util
import json
import mmap
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOL = 'mutmut==3.8.1'
HOOK = Path(__file__).parent / 'mutated_process' / 'sitecustomize.py'

# Files to mutate -> files with their tests, of which those that execute a mutated line run.
GROUPS = {
    'models': (
        ['mogacore/models/layers.py', 'mogacore/models/accelerated.py'],
        [
            f'tests/models/test_{name}.py'
            for name in ('layers', 'accelerated', 'moganet', 'untouched', 'convolutions', 'recompute', 'norms')
        ],
    ),
    'checkpoint': (['mogacore/checkpoint/*.py'], ['tests/checkpoint/test_*.py']),
    'evaluation': (['mogacore/evaluation/*.py'], ['tests/evaluation/test_*.py']),
    'resume': (
        ['mogacore/engine/resume.py'],
        [f'tests/engine/test_{name}.py' for name in ('resume', 'length', 'restore', 'ema', 'saving', 'loaders')],
    ),
}
STATUSES = ('killed', 'timed out', 'survived')
IMPORTED = ('torch', 'mmengine.runner', 'mmengine.hooks', 'mmengine.evaluator', 'mmengine.dataset', 'scipy', 'pytest')
MEMORY_LIMIT = 12 * 2**30  # bytes of address space
START_S = 60  # to import and collect the tests
FAILED = 99  # exit code of a fork whose error is not one of the tests or the mutant


def files_of(patterns):
    return [str(path.relative_to(ROOT)) for pattern in patterns for path in sorted(ROOT.glob(pattern))]


def digest(*names):
    return hashlib.sha256(b''.join((ROOT / name).read_bytes() for name in names)).hexdigest()[:16]


class Plugin:
    """For pytest in a fork: runs only ``order`` (test -> seconds that it may take) if given, and stores the outcome.

    Without an order, notes the seconds of each test, the lines of ``targets`` that it executes, and whether it starts a
    process, which may execute others.
    """

    def __init__(self, order=None, deadline=None, targets=()):
        self.order, self.deadline, self.targets = order, deadline, set(targets)
        self.failed, self.seconds, self.lines, self.starters = [], {}, {}, set()
        self.shared = {}  # lines that fixtures execute, by test file; those of a session's may serve later tests
        self.current = self.phase = None

    def pytest_collection_modifyitems(self, items):
        if self.order is not None:
            rank = {name: number for number, name in enumerate(self.order)}
            items[:] = sorted((item for item in items if item.nodeid in rank), key=lambda item: rank[item.nodeid])

    def pytest_runtest_logstart(self, nodeid):
        self.current = nodeid
        if self.order is not None:
            struct.pack_into('d', self.deadline, 0, time.monotonic() + self.order[nodeid])

    def pytest_runtest_setup(self):
        self.phase = 'setup'

    def pytest_runtest_call(self):
        self.phase = 'call'

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_runtest_logfinish(self):
        self.current = self.phase = None

    def trace(self, frame, event, argument):
        code = frame.f_code
        if code.co_filename not in self.targets or not code.co_flags & 1:  # bit 0: a function, not a module or class
            return None
        name = os.path.relpath(code.co_filename, ROOT)
        if self.phase == 'call':
            lines = self.lines.setdefault(self.current, {}).setdefault(name, set())
        else:
            owner = self.current.partition('::')[0] if self.current else ''  # '': while tests are collected
            lines = self.shared.setdefault(owner, {}).setdefault(name, set())

        def line(frame, event, argument):
            lines.add(frame.f_lineno)
            return line

        return line(frame, event, argument)

    def note_processes(self):
        def note(*args):
            self.starters.add(self.current)

        os.register_at_fork(before=note)
        start = subprocess.Popen.__init__
        subprocess.Popen.__init__ = lambda *args, **kwargs: (note(), start(*args, **kwargs))[1]

    def results(self):
        tests = {}
        for name, seconds in self.seconds.items():
            lines = collections.defaultdict(set)
            shared = [self.shared.get(owner, {}) for owner in (name.partition('::')[0], '')]
            for part in (self.lines.get(name, {}), *shared):
                for file, numbers in part.items():
                    lines[file] |= numbers
            tests[name] = dict(
                seconds=seconds, lines={file: sorted(numbers) for file, numbers in lines.items()},
                is_unknown=name in self.starters,
            )  # fmt: skip
        return dict(failed=self.failed, tests=tests)


def run_in_fork(test_files, folder, plugin, mutant=None, limit_s=3600.0):
    """Run pytest in a fork; return (how it ended: exit code of pytest, 'signal N' or 'timed out'; its results)."""
    outcome = Path(folder, 'outcome.json')
    plugin.deadline = mmap.mmap(-1, 8)
    struct.pack_into('d', plugin.deadline, 0, time.monotonic() + (limit_s if plugin.order is None else START_S))
    end = time.monotonic() + limit_s
    pid = os.fork()
    if pid == 0:
        code = FAILED
        try:
            code = _pytest(test_files, folder, plugin, mutant, outcome)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    status = 0
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > min(end, struct.unpack_from('d', plugin.deadline)[0]):
            status = None
            break
        time.sleep(0.02)
    for kill in (os.killpg, os.kill):  # also what it started; at first the fork may not lead its group yet
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    ended = os.waitpid(pid, 0)[1]
    if status is None:
        how = 'timed out'
    else:
        how = f'signal {os.WTERMSIG(ended)}' if os.WIFSIGNALED(ended) else os.WEXITSTATUS(ended)
    if how == FAILED:
        sys.exit(f'error: pytest was not started: {_log(folder)}')
    return how, json.loads(outcome.read_text()) if outcome.exists() else dict(failed=[], tests={})


def _log(folder):
    return Path(folder, 'log.txt').read_text(errors='replace')[-3000:]


def _pytest(test_files, folder, plugin, mutant, outcome):
    os.setsid()
    with open(Path(folder, 'log.txt'), 'wb') as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ['TMPDIR'] = tempfile.tempdir = folder
    work = Path(folder, 'work')  # a mutant may write files into the current folder
    work.mkdir()
    os.chdir(work)
    sys.path[:0] = [str(ROOT)]
    if mutant is not None:
        module = mutant['file'].removesuffix('.py').removesuffix('/__init__').replace('/', '.')
        record = Path(folder, 'mutant.json')
        record.write_text(json.dumps(dict(module=module, file=str(ROOT / mutant['file']), source=mutant['source'])))
        spec = importlib.util.spec_from_file_location('mutated_process', HOOK)
        hook = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(hook)
        hook.install(record)
    import pytest

    if plugin.targets:
        plugin.note_processes()
        threading.settrace(plugin.trace)
        sys.settrace(plugin.trace)
    options = ['-q', '-p', 'no:cacheprovider', '-p', 'no:xdist', '--basetemp', str(Path(folder, 'pytest'))]
    options += ['--rootdir', str(ROOT), '-c', str(ROOT / 'pyproject.toml')]
    stop = ['-x'] if plugin.order is not None else []
    code = pytest.main([*options, *stop, *(str(ROOT / name) for name in test_files)], plugins=[plugin])
    sys.settrace(None)
    outcome.write_text(json.dumps(plugin.results()))
    return int(code)


class Store:
    """Records, also in a file of JSON lines if one is given."""

    def __init__(self, path):
        self.path, self.records = path, []
        if path and path.exists():
            self.records = [json.loads(line) for line in path.read_text().splitlines()]

    def add(self, **record):
        self.records.append(record)
        if self.path:
            with self.path.open('a') as file:
                file.write(json.dumps(record) + '\n')

    def last(self, **fields):
        found = (one for one in reversed(self.records) if all(one.get(key) == value for key, value in fields.items()))
        return next(found, None)


def draw(files, number, seed):
    """The sample from mutations.py, in a temporary environment with mutmut."""
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder, 'bin', 'python')
        subprocess.run([sys.executable, '-m', 'venv', folder], check=True)
        subprocess.run([python, '-m', 'pip', 'install', '--quiet', TOOL], check=True)
        command = [python, Path(__file__).with_name('mutations.py'), '--number', str(number), '--seed', str(seed)]
        done = subprocess.run([*command, *files], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    possible, *mutants = map(json.loads, done.stdout.splitlines())
    return possible['possible'], mutants


def baseline(name, store):
    """Seconds and executed lines of every test of a group, without a mutant."""
    sources, test_files = (files_of(patterns) for patterns in GROUPS[name])
    key = digest(*sources, *test_files)
    record = store.last(baseline=name, key=key)
    if record is None:
        print(f'{name}: running its tests without a mutant', flush=True)
        targets = [str(ROOT / source) for source in sources]
        with tempfile.TemporaryDirectory() as folder:
            how, results = run_in_fork(test_files, folder, Plugin(targets=targets))
            if how not in (0, 1):
                sys.exit(f'error: the tests of {name} cannot run ({how}): {_log(folder)}')
        for failed in sorted(set(results['failed'])):
            with tempfile.TemporaryDirectory() as folder:  # again without tracing, which torch.compile does not support
                if run_in_fork([failed.partition('::')[0]], folder, Plugin({failed: 600}))[0] == 0:
                    results['tests'][failed]['is_unknown'] = True
                else:
                    print(f'  left out, since it fails without a mutant: {failed}: {_log(folder)}')
                    del results['tests'][failed]
        store.add(baseline=name, key=key, tests=results['tests'])
        record = store.records[-1]
    seconds = sum(test['seconds'] for test in record['tests'].values())
    print(f'{name}: {len(record["tests"])} tests, {seconds:.0f} s with tracing')
    return record['tests']


def statement_lines(source, first, last):
    """Lines of the statement around the lines ``first`` to ``last``, and whether a function executes it."""
    lines, is_in_function = (first, last), False

    def visit(node, inside):
        nonlocal lines, is_in_function
        for child in ast.iter_child_nodes(node):
            below = inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            if isinstance(child, ast.stmt) and child.lineno <= first and child.end_lineno >= last:
                body = getattr(child, 'body', None)
                end = max(body[0].lineno - 1, child.lineno) if body else child.end_lineno
                if first <= end:
                    lines, is_in_function = (child.lineno, end), below
                visit(child, below)
            elif not isinstance(child, ast.stmt):
                visit(child, below)

    visit(ast.parse(source), False)
    return range(lines[0], lines[1] + 1), is_in_function


def plan(mutant, tests):
    """Tests to run for a mutant, in order, with the seconds that each may take."""
    numbers, is_in_function = statement_lines((ROOT / mutant['file']).read_text(), mutant['first'], mutant['last'])
    ranks = {}
    for name, test in tests.items():
        lines = test['lines'].get(mutant['file'], [])
        if not set(lines).isdisjoint(numbers):
            ranks[name] = 0
        elif test['is_unknown'] or (lines and not is_in_function):
            ranks[name] = 1
    order = sorted(ranks, key=lambda name: (ranks[name], tests[name]['seconds']))
    return {name: 30 + 5 * tests[name]['seconds'] for name in order}


def try_mutant(mutant, tests, test_files):
    order = plan(mutant, tests)
    if not order:
        return dict(status='survived', by='no test executes it', number=0)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        used = {name.partition('::')[0] for name in order}
        how, results = run_in_fork([name for name in test_files if name in used], folder, Plugin(order), mutant)
    if how in (0, 5):  # 5: no tests; a mutant may change their names
        missing = f'only {len(results["tests"])} of {len(order)} tests ran'
        return dict(status='survived', by=missing if set(results['tests']) != set(order) else '', number=len(order))
    if how == 'timed out':
        return dict(status='timed out', by='', number=len(order))
    by = results['failed'][0] if results['failed'] else how if isinstance(how, str) else 'import of the tests'
    return dict(status='killed', by=by, number=len(results['tests']))


def table(mutants, results, possible):
    """Print a row for each file and one for all."""
    rows = collections.defaultdict(collections.Counter)
    for mutant in mutants:
        if mutant['mutant'] in results:
            for name in (mutant['file'], 'all'):
                rows[name][results[mutant['mutant']]] += 1
    possible = {**possible, 'all': sum(possible.values())}
    print('| file | possible | sampled | killed | timed out | survived | killed or timed out, % |\n' + '|---' * 7 + '|')
    for name in sorted(rows, key=lambda name: (name == 'all', name)):
        total, parts = sum(rows[name].values()), [rows[name][status] for status in STATUSES]
        share = 100 * (1 - parts[2] / total)
        print(f'| {name} | {possible[name]} | {total} | {" | ".join(map(str, parts))} | {share:.0f} |')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--number', type=int, default=300, help='size of the sample')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', metavar='MODULE', default='', help='only files whose name contains this')
    parser.add_argument('--json', type=Path, metavar='OUT', help='file for the results; an existing one is continued')
    parser.add_argument('--again', action='store_true', help='repeat the mutants of OUT that survived')
    args = parser.parse_args()
    store = Store(args.json.resolve() if args.json else None)
    files = files_of([pattern for patterns, _ in GROUPS.values() for pattern in patterns])
    drawn = dict(number=args.number, seed=args.seed, key=digest(*files))
    sample = store.last(sample=drawn)
    if sample is None:
        print(f'drawing {args.number} mutants with {TOOL}', flush=True)
        possible, mutants = draw(files, args.number, args.seed)
        store.add(sample=drawn, possible=possible, mutants=mutants)
        sample = store.records[-1]
    possible, mutants = sample['possible'], [one for one in sample['mutants'] if args.only in one['file']]

    os.environ.update(OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    for name in IMPORTED:  # once, for all forks; nothing of mogacore
        __import__(name)
    results = {}
    pending = []
    for mutant in mutants:
        known = store.last(mutant=mutant['mutant'], source=digest(mutant['file']))
        if known and not (args.again and known['status'] == 'survived'):
            results[mutant['mutant']] = known['status']
        else:
            pending.append(mutant)
    start = time.monotonic()
    number = 0
    for name, (sources, test_patterns) in GROUPS.items():
        chosen = [mutant for mutant in pending if mutant['file'] in files_of(sources)]
        if not chosen:
            continue
        tests, test_files = baseline(name, store), files_of(test_patterns)
        for mutant in chosen:
            began = time.monotonic()
            found = try_mutant(mutant, tests, test_files)
            took = round(time.monotonic() - began, 1)
            results[mutant['mutant']] = found['status']
            store.add(mutant=mutant['mutant'], source=digest(mutant['file']), seconds=took, **found)
            number += 1
            left_min = (time.monotonic() - start) / number * (len(pending) - number) / 60
            line = f'{number}/{len(pending)}, {left_min:.0f} min left: {found["status"]} {mutant["mutant"]}, {took} s'
            print(line + (f', by {found["by"]}' if found['by'] else ''), flush=True)
            if found['status'] == 'survived':
                print('\n'.join(f'    {changed}' for changed in mutant['diff']), flush=True)
    table(mutants, results, possible)


if __name__ == '__main__':
    main()
