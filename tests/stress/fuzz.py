"""Fuzzing of what reads files and requests of others: an input is read or refused in one line, or it found a bug.

    python tests/stress/fuzz.py [--minutes 10] [--only idx] [--seed 1] [--json FILE] [--out DIR]

Needs atheris (pip install atheris; it has wheels for Python 3.11 to 3.13), which mutates the inputs and keeps those
that reach new code of mogacore. Inputs that are no files, such as configs, are drawn by Hypothesis from the bytes of
atheris. Each target runs in a process of its own, which is started again if it ends or hangs. The smallest input of
each bug is written to the folder --out. Exit code 1 if there is one.
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))
NAMES = ('checkpoint', 'idx', 'npy', 'coco', 'config', 'server')
# Modules, and packages with all their loaded modules, whose functions guide atheris.
GUIDES = {
    'checkpoint': ('mogacore.checkpoint', 'torch._weights_only_unpickler'),
    'idx': ('mogacore.datasets.idx', 'gzip'),
    'npy': (
        'mogacore.datasets.arrays', 'mogacore.datasets.sequences', 'mogacore.datasets.taxibj', 'numpy.lib.format',
        'numpy.lib._format_impl', 'zipfile',
    ),
    'coco': ('mogacore.datasets', 'mogacore.runtime.inputs', 'mogacore.images'),
    'config': ('mogacore.engine', 'mogacore.libraries', 'mogacore.analysis.configs', 'mmengine.config'),
    'server': ('mogacore.runtime', 'mogacore.images', 'PIL', 'starlette', 'python_multipart'),
}  # fmt: skip
LARGEST_BYTES = {'checkpoint': 20_000, 'idx': 4_000, 'npy': 4_000}
DRAWN_BYTES = 4_096  # of an input that Hypothesis draws
MEMORY_GIB = 24  # of addresses; allocations above it fail
SILENT_S = 60  # after which a process is taken to hang
STARTUP_S = 240  # for imports, in addition
MOST_ENDED = 10  # processes that end early, after which a target is given up


class Worker:
    """Runs inputs until the time is over, and counts what came of them in a file, to which a restarted worker adds.

    Args:
        target: Runs an input.
        seconds: Time for the inputs of all workers.
        folder: Folder of the worker's files.
    """

    def __init__(self, target, seconds, folder):
        self.target, self.seconds, self.folder = target, seconds, folder
        self.file = folder / 'counts.json'
        self.counts = read_counts(folder)
        self.bugs = self.counts['bugs']
        self.last = time.monotonic()
        self.write()

    def run(self, value):
        """Run one input; a bug is recorded and does not end the worker."""
        from fuzzing.harness import attempt, place_of, show

        if time.monotonic() > self.last + 1:
            self.write()
        if self.counts['seconds'] > self.seconds:
            os._exit(0)
        (self.folder / 'input').write_bytes(value if isinstance(value, bytes) else ascii(value).encode())
        try:
            self.counts[attempt(self.target, value)] += 1
        except Exception as error:
            place = place_of(error)
            bug = self.bugs.setdefault(place, {'inputs': 0, 'error': show(error)})
            bug['inputs'] += 1
            size = (self.folder / 'input').stat().st_size
            if size < bug.get('size', size + 1):
                bug['size'] = size
                kept = self.folder / f'bug{list(self.bugs).index(place)}'
                kept.write_bytes((self.folder / 'input').read_bytes())

    def write(self):
        """Write the counts; another file is renamed, so that a reader never sees a part."""
        now = time.monotonic()
        self.counts['seconds'] += now - self.last
        self.last = now
        partial = self.file.with_suffix('.partial')
        partial.write_text(json.dumps(self.counts))
        partial.replace(self.file)


def read_counts(folder):
    """The counts of a folder; zeros if no worker has written any."""
    file = folder / 'counts.json'
    return json.loads(file.read_text()) if file.exists() else {'accepted': 0, 'refused': 0, 'bugs': {}, 'seconds': 0}


def work(name, seconds, seed, folder):
    """Run a target in this process until the time is over."""
    import atheris
    from fuzzing.harness import limit_memory
    from fuzzing.targets import module_of, target

    module_of(name)
    instrument(atheris, GUIDES[name])
    made = target(name)
    limit_memory(MEMORY_GIB)
    worker = Worker(made, seconds, folder)
    if made.is_bytes:
        test, seeds, largest = worker.run, made.valid, LARGEST_BYTES[name]
    else:
        from hypothesis import HealthCheck, given, settings

        @settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))
        @given(made.inputs)
        def draw_and_run(value):
            worker.run(value)

        def test(data):
            with contextlib.suppress(RecursionError):  # of drawing an input: the worker records those of the target
                draw_and_run.hypothesis.fuzz_one_input(data)

        rng, largest = random.Random(seed), DRAWN_BYTES
        seeds = [rng.randbytes(rng.randrange(100, largest)) for _ in range(100)]
    corpus = folder / 'corpus'
    if not corpus.exists():
        corpus.mkdir()
        for number, data in enumerate(seeds):
            (corpus / f'seed{number}').write_bytes(data)
    flags = [f'-seed={seed}', f'-max_len={largest}', '-len_control=0', '-rss_limit_mb=0', '-verbosity=0']
    flags += [f'-timeout={10 * SILENT_S}', f'-artifact_prefix={folder}/']  # `attempt` and `watch` have shorter limits
    atheris.Setup([sys.argv[0], str(corpus), *flags], test)
    atheris.Fuzz()


def instrument(atheris, names):
    """Let the functions of the loaded modules ``names``, and of modules below them, guide atheris."""
    modules = [module for name, module in sys.modules.items() if any(f'{name}.'.startswith(f'{n}.') for n in names)]
    for module in modules:
        values = [value for value in vars(module).values() if getattr(value, '__module__', '') == module.__name__]
        methods = [method for value in values if isinstance(value, type) for method in vars(value).values()]
        for function in values + [getattr(method, '__func__', method) for method in methods]:
            if isinstance(function, FunctionType):
                atheris.instrument_func(function)


def watch(name, seconds, seed, folder):
    """Run a target in processes until the time is over; returns the counts, with the processes that ended early."""
    counts_file, ended = folder / 'counts.json', []
    while read_counts(folder)['seconds'] < seconds and len(ended) < MOST_ENDED:
        command = [sys.executable, '-W', 'ignore', __file__, '--work', name, str(seconds), str(seed + len(ended))]
        with (folder / 'log').open('ab') as log:
            process = subprocess.Popen([*command, str(folder)], stdout=log, stderr=log)
        started = time.time()
        while process.poll() is None:
            time.sleep(0.5)
            written = counts_file.stat().st_mtime if counts_file.exists() else 0
            silent = time.time() - written if written > started else time.time() - started - STARTUP_S
            if silent > SILENT_S:
                process.kill()
                process.wait()
        if process.returncode:
            kept = folder / f'ended{len(ended)}'
            kept.write_bytes((folder / 'input').read_bytes() if (folder / 'input').exists() else b'')
            ended.append(f'a process ended with {process.returncode}, see {folder / "log"} and its last input {kept}')
    return {**read_counts(folder), 'ended': ended}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=10, help='for each target')
    parser.add_argument('--only', choices=NAMES, help='one target')
    parser.add_argument('--seed', type=int, default=1, help='of atheris, 1 or more')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the counts')
    parser.add_argument('--out', type=Path, metavar='DIR', help='folder of inputs that found bugs; default: a new one')
    parser.add_argument('--work', nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if find_spec('atheris') is None:
        print('error: atheris is not installed: pip install atheris', file=sys.stderr)
        sys.exit(2)
    if args.work:
        name, seconds, seed, folder = args.work
        work(name, float(seconds), int(seed), Path(folder))
    out = args.out or Path(tempfile.mkdtemp(prefix='fuzz'))
    found = {}
    for name in [args.only] if args.only else NAMES:
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'counts.json').unlink(missing_ok=True)
        found[name] = counts = watch(name, 60 * args.minutes, args.seed, folder)
        total = counts['accepted'] + counts['refused'] + sum(bug['inputs'] for bug in counts['bugs'].values())
        print(
            f'{name}: {total:,} inputs in {counts["seconds"] / 60:.1f} minutes, {counts["accepted"]:,} accepted, '
            f'{counts["refused"]:,} refused, {len(counts["bugs"]) + len(counts["ended"])} bugs',
            flush=True,
        )
        for number, (place, bug) in enumerate(counts['bugs'].items()):
            print(f'  {place}: {bug["inputs"]:,} inputs, such as {folder / f"bug{number}"}')
        for line in counts['ended']:
            print(f'  {line}')
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + '\n')
    sys.exit(any(counts['bugs'] or counts['ended'] for counts in found.values()))


if __name__ == '__main__':
    main()
