"""Mutation testing: how many small changes of the source the tests notice.

    python tests/stress/mutants.py [--number 300] [--seed 0] [--only MODULE] [--json OUT] [--again] [--own]

Draws mutants of the files below (see mutations.py, which runs in a temporary environment with mutmut), and runs the
tests of each. A process that has imported torch and mmengine forks for every mutant; there, an import hook puts the
mutated source in the place of the file, which is not changed, and pytest runs the tests that execute the mutated line,
fast ones first, until one fails. With ``--json`` results are appended to a file of JSON lines, and a second call
resumes; ``--again`` repeats those that survived, after tests were added. ``--own`` runs only the test file of the same
name, in its order, without running all tests first to find out which lines they execute. A mutant is

* killed, if a test fails or pytest cannot import the tests;
* timed out, if a test takes much longer than without the mutant (endless loops);
* survived, if all tests pass, or no test executes the line.

Needs the environment of the tests. Limits are mostly of processor time, so the machine may be busy.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import collections
import contextlib
import hashlib
import importlib.util
import json
import mmap
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOL = 'mutmut==3.8.1'
HOOK = Path(__file__).parent / 'mutated_process' / 'sitecustomize.py'

# Files to mutate -> files with their tests, of which those that execute a mutated line run.
GROUPS = {
    'evaluation': (['mogacore/evaluation/*.py'], ['tests/evaluation/test_*.py']),
    'checkpoint': (['mogacore/checkpoint/*.py'], ['tests/checkpoint/test_*.py']),
    'resume': (
        ['mogacore/engine/resume.py'],
        [f'tests/engine/test_{name}.py' for name in ('resume', 'restore', 'length', 'ema')],
    ),
    'models': (
        ['mogacore/models/layers.py', 'mogacore/models/accelerated.py'],
        [f'tests/models/test_{name}.py' for name in ('layers', 'accelerated', 'convolutions', 'untouched', 'moganet')],
    ),
}
STATUSES = ('killed', 'timed out', 'survived')
IMPORTED = (
    'torch', 'mmengine.runner', 'mmengine.hooks', 'mmengine.evaluator', 'mmengine.dataset', 'huggingface_hub', 'scipy',
    'sklearn', 'PIL.Image', 'rich.progress', 'pytest', '_pytest.assertion.rewrite',
)  # fmt: skip
FIRST = 12  # tests in a first process, which usually needs few of the test files
MEMORY_LIMIT = 12 * 2**30  # bytes of address space
START_S = 300  # to import and collect the tests
WAITING = 6  # limit of a test in seconds by the clock / in seconds of processor time
FAILED = 99  # exit code of a fork whose error is not one of the tests or the mutant


def files_of(patterns):
    return [str(path.relative_to(ROOT)) for pattern in patterns for path in sorted(ROOT.glob(pattern))]


def digest(*names):
    return hashlib.sha256(b''.join((ROOT / name).read_bytes() for name in names)).hexdigest()[:16]


class Plugin:
    """For pytest in a fork: runs only ``order`` (test -> seconds without a mutant) if given, and stores the outcome.

    Without an order, notes the seconds of each test, the lines of ``targets`` that it executes, and whether it starts a
    process, which may execute others.
    """

    def __init__(self, order=None, targets=(), skip='', stop=False):
        self.order, self.targets, self.skip, self.deadline = order, set(targets), skip, None
        self.stop = stop or order is not None  # at the first test that fails
        self.failed, self.seconds, self.lines, self.starters = [], {}, {}, set()
        self.shared = {}  # lines that fixtures execute, by test file; those of a session's may serve later tests
        self.current = self.phase = None

    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if not (self.skip and re.search(self.skip, item.nodeid))]
        if self.order is not None:
            rank = {name: number for number, name in enumerate(self.order)}
            items[:] = sorted((item for item in items if item.nodeid in rank), key=lambda item: rank[item.nodeid])

    def pytest_runtest_logstart(self, nodeid):
        self.current = nodeid
        if self.stop:
            limit_s = 20 + 5 * (10 if self.order is None else self.order[nodeid])
            signal.setitimer(signal.ITIMER_PROF, limit_s)  # of processor time, whatever else the machine does
            struct.pack_into('d', self.deadline, 0, time.monotonic() + WAITING * limit_s)

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

    def note_line(self, name, number):
        if self.phase == 'call':
            lines = self.lines.setdefault(self.current, {})
        else:  # '': while tests are collected
            lines = self.shared.setdefault(self.current.partition('::')[0] if self.current else '', {})
        lines.setdefault(name, set()).add(number)

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


def module_of(file):
    return file.removesuffix('.py').removesuffix('/__init__').replace('/', '.')


def with_notes(name):
    """Syntax tree of a file in which every statement of a function is preceded by a call of ``note_line``."""
    tree = ast.parse((ROOT / name).read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    inside = {id(node): node for function in functions for node in ast.walk(function)}
    for node in inside.values():
        for field in ('body', 'orelse', 'finalbody'):
            statements = getattr(node, field, None)
            if isinstance(statements, list):
                noted = []
                for statement in statements:
                    is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
                    if not is_docstring:
                        note = ast.parse(f'note_line({name!r}, {statement.lineno})').body[0]
                        noted.append(ast.copy_location(note, statement))
                    noted.append(statement)
                statements[:] = noted
    return ast.fix_missing_locations(tree)


def run_in_fork(test_files, folder, plugin, mutant=None, limit_s=3600.0):
    """Run pytest in a fork; return (how it ended: exit code of pytest, 'signal N' or 'timed out'; its results)."""
    outcome = Path(folder, 'outcome.json')
    plugin.deadline = mmap.mmap(-1, 8)
    struct.pack_into('d', plugin.deadline, 0, time.monotonic() + (START_S if plugin.stop else limit_s))
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
    if how == f'signal {int(signal.SIGPROF)}':
        how = 'timed out'
    if how == FAILED:
        sys.exit(f'error: pytest was not started: {_log(folder)}')
    return how, json.loads(outcome.read_text()) if outcome.exists() else dict(failed=[], tests={})


def _log(folder):
    return Path(folder, 'log.txt').read_text(errors='replace')[-3000:]


def _pytest(test_files, folder, plugin, mutant, outcome):
    from torch.multiprocessing import _prctl_pr_set_pdeathsig

    _prctl_pr_set_pdeathsig(signal.SIGKILL)  # also if this script is killed, nothing of it runs on
    os.setsid()
    with open(Path(folder, 'log.txt'), 'wb') as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ['TMPDIR'] = tempfile.tempdir = folder
    os.environ['PYTEST_DISABLE_PLUGIN_AUTOLOAD'] = '1'  # looking for plugins takes half a second
    work = Path(folder, 'work')  # a mutant may write files into the current folder
    work.mkdir()
    os.chdir(work)
    sys.path[:0] = [str(ROOT)]
    spec = importlib.util.spec_from_file_location('mutated_process', HOOK)
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    if mutant is not None:
        record, file = Path(folder, 'mutant.json'), str(ROOT / mutant['file'])
        record.write_text(json.dumps(dict(module=module_of(mutant['file']), file=file, source=mutant['source'])))
        hook.install(record)
    import pytest

    if plugin.targets:
        plugin.note_processes()
        builtins.note_line = plugin.note_line
        for name in plugin.targets:
            sys.meta_path.insert(0, hook.Finder(module_of(name), str(ROOT / name), with_notes(name)))
    options = ['-q', '-p', 'no:cacheprovider', '--basetemp', str(Path(folder, 'pytest'))]
    options += ['--rootdir', str(ROOT), '-c', str(ROOT / 'pyproject.toml')]
    stop = ['-x'] if plugin.stop else []
    code = pytest.main([*options, *stop, *(str(ROOT / name) for name in test_files)], plugins=[plugin])
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
        subprocess.run([python, '-m', 'pip', 'install', '-qq', TOOL], check=True)
        command = [python, Path(__file__).with_name('mutations.py'), '--number', str(number), '--seed', str(seed)]
        done = subprocess.run([*command, *files], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    possible, *mutants = map(json.loads, done.stdout.splitlines())
    return possible['possible'], mutants


def baseline(name, store, skip):
    """Seconds and executed lines of every test of a group, without a mutant."""
    sources, test_files = (files_of(patterns) for patterns in GROUPS[name])
    key = f'{digest(*sources, *test_files)} {skip}'
    record = store.last(baseline=name, key=key)
    if record is None:
        print(f'{name}: running its tests without a mutant', flush=True)
        with tempfile.TemporaryDirectory() as folder:
            how, results = run_in_fork(test_files, folder, Plugin(targets=sources, skip=skip))
            if how not in (0, 1):
                sys.exit(f'error: the tests of {name} cannot run ({how}): {_log(folder)}')
        for failed in sorted(set(results['failed'])):
            with tempfile.TemporaryDirectory() as folder:  # again without notes, which torch.compile may not support
                if run_in_fork([failed.partition('::')[0]], folder, Plugin({failed: 600}))[0] == 0:
                    results['tests'][failed]['is_unknown'] = True
                else:
                    print(f'  left out, since it fails without a mutant: {failed}: {_log(folder)}')
                    del results['tests'][failed]
        store.add(baseline=name, key=key, tests=results['tests'])
        record = store.records[-1]
    seconds = sum(test['seconds'] for test in record['tests'].values())
    print(f'{name}: {len(record["tests"])} tests, {seconds:.0f} s')
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
    """Tests to run for a mutant, in order, with the seconds that each takes without it."""
    numbers, is_in_function = statement_lines((ROOT / mutant['file']).read_text(), mutant['first'], mutant['last'])
    ranks = {}
    for name, test in tests.items():
        lines = test['lines'].get(mutant['file'], [])
        if not set(lines).isdisjoint(numbers):
            ranks[name] = 0
        elif test['is_unknown'] or (lines and not is_in_function):
            ranks[name] = 1
    order = sorted(ranks, key=lambda name: (ranks[name], tests[name]['seconds']))
    return {name: tests[name]['seconds'] for name in order}


def try_mutant(mutant, tests, test_files):
    order = plan(mutant, tests)
    if not order:
        return dict(status='survived', by='no test executes it', number=0)
    names = list(order)
    for part in (names[:FIRST], names[FIRST:]):
        if not part:
            break
        used = {name.partition('::')[0] for name in part}
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            plugin = Plugin({name: order[name] for name in part})
            how, results = run_in_fork([name for name in test_files if name in used], folder, plugin, mutant)
        if how not in (0, 5):
            return outcome_of(how, results)
        if set(results['tests']) != set(part):  # a mutant may change their names
            return dict(status='survived', by=f'{len(results["tests"])} of {len(part)} tests ran', number=len(order))
    return dict(status='survived', by='', number=len(order))


def try_own_tests(mutant, skip):
    """As :func:`try_mutant`, with all tests of the file of the same name, in its order."""
    folder, name = mutant['file'].removeprefix('mogacore/').rsplit('/', 1)
    own = f'tests/{folder}/test_{name}'
    if not (ROOT / own).exists():
        return dict(status='survived', by=f'there is no {own}', number=0)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        how, results = run_in_fork([own], folder, Plugin(skip=skip, stop=True), mutant)
    if how not in (0, 5):
        return outcome_of(how, results)
    return dict(status='survived', by='', number=len(results['tests']))


def outcome_of(how, results):
    if how == 'timed out':
        return dict(status='timed out', by='', number=len(results['tests']))
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
    parser.add_argument('--skip', metavar='REGEX', default='', help='leave out tests whose name matches')
    parser.add_argument('--own', action='store_true', help='run only the tests of the same name, all of them')
    parser.add_argument('--again', action='store_true', help='repeat the mutants of OUT that survived')
    args = parser.parse_args()
    store = Store(args.json.resolve() if args.json else None)
    files = sorted(files_of([pattern for patterns, _ in GROUPS.values() for pattern in patterns]))
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
        if not args.own:
            tests, test_files = baseline(name, store, args.skip), files_of(test_patterns)
        for mutant in chosen:
            began = time.monotonic()
            found = try_own_tests(mutant, args.skip) if args.own else try_mutant(mutant, tests, test_files)
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
