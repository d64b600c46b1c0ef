"""Fuzzing of what reads files and requests of others: an input is read or refused in one line, or it found a bug.

    python tests/stress/fuzz.py [--minutes 10] [--only idx] [--seed 1] [--json FILE] [--out DIR]

Needs atheris (pip install atheris; it has wheels for Python 3.11 to 3.13), which mutates the inputs and keeps those
that reach new code of mogacore. Inputs that are no files, such as configs, are drawn by Hypothesis from the bytes of
atheris. Each target runs in a process of its own, which is started again if it ends or hangs. The smallest input of
each bug is written to the folder --out. Exit code 1 if there is one.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))
NAMES = ('checkpoint', 'idx', 'npy', 'coco', 'config', 'server')
# Packages whose code guides atheris, in addition to the functions of `instrument`.
GUIDES = ('mogacore', 'PIL', 'starlette', 'python_multipart')
LARGEST_BYTES = {'checkpoint': 20_000, 'idx': 4_000, 'npy': 4_000}
DRAWN_BYTES = 4_096  # of an input that Hypothesis draws
MEMORY_GIB = 24  # of addresses; allocations above it fail
SILENT_S = 60  # after which a process is taken to hang


class Worker:
    """Runs inputs until the time is over, and counts what came of them in a file.

    Args:
        target: Runs an input.
        end: Time of the end, in seconds since the epoch.
        folder: Folder of the worker's files.
    """

    def __init__(self, target, end, folder):
        self.target, self.end, self.folder = target, end, folder
        self.file = folder / 'counts.json'
        self.counts = json.loads(self.file.read_text()) if self.file.exists() else {'accepted': 0, 'refused': 0}
        self.bugs = self.counts.setdefault('bugs', {})
        self.written = 0.0

    def run(self, value):
        """Run one input; a bug is recorded and does not end the worker."""
        from fuzzing.harness import attempt, place_of, show

        now = time.time()
        if now > self.end:
            self.write()
            os._exit(0)
        if now > self.written + 1:
            self.write()
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
        self.written = time.time()
        partial = self.file.with_suffix('.partial')
        partial.write_text(json.dumps(self.counts))
        partial.replace(self.file)


def work(name, end, seed, folder):
    """Run a target in this process until the end."""
    import atheris

    stderr = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # atheris lists each module
    with atheris.instrument_imports(include=GUIDES):
        from fuzzing.harness import limit_memory
        from fuzzing.targets import target

        made = target(name)
    instrument(atheris)
    os.dup2(stderr, 2)
    limit_memory(MEMORY_GIB)
    worker = Worker(made, end, folder)
    if made.is_bytes:
        test, seeds, largest = worker.run, made.valid, LARGEST_BYTES[name]
    else:
        from hypothesis import HealthCheck, given, settings

        @settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))
        @given(made.inputs)
        def draw_and_run(value):
            worker.run(value)

        rng = random.Random(seed)
        test, largest = draw_and_run.hypothesis.fuzz_one_input, DRAWN_BYTES
        seeds = [rng.randbytes(rng.randrange(100, largest)) for _ in range(100)]
    corpus = folder / 'corpus'
    if not corpus.exists():
        corpus.mkdir()
        for number, data in enumerate(seeds):
            (corpus / f'seed{number}').write_bytes(data)
    flags = [f'-seed={seed}', f'-max_len={largest}', '-len_control=0', '-rss_limit_mb=0', '-verbosity=0', '-timeout=0']
    atheris.Setup([sys.argv[0], str(corpus), *flags], test)
    atheris.Fuzz()


def instrument(atheris):
    """Let functions outside of ``GUIDES`` guide atheris."""
    import ast

    import numpy as np
    from torch import _weights_only_unpickler as unpickler

    unpickler.Unpickler.load = atheris.instrument_func(unpickler.Unpickler.load)
    for module, names in ((np.lib.format, ('_read_array_header', 'descr_to_dtype')), (ast, ('literal_eval',))):
        for one in names:
            if hasattr(module, one):
                atheris.instrument_func(getattr(module, one))


def watch(name, minutes, seed, folder):
    """Run a target in processes until the time is over; returns the counts, with the processes that ended early."""
    end = time.time() + 60 * minutes
    counts_file = folder / 'counts.json'
    ended = []
    while time.time() < end - 1:
        command = [sys.executable, '-W', 'ignore', __file__, '--work', name, str(end), str(seed + len(ended))]
        with (folder / 'log').open('ab') as log:
            process = subprocess.Popen([*command, str(folder)], stdout=log, stderr=log)
        start = last = time.time()
        while process.poll() is None:
            time.sleep(0.5)
            if counts_file.exists():
                last = max(last, counts_file.stat().st_mtime, start)
            if time.time() - last > SILENT_S + (SILENT_S if last == start else 0):
                process.kill()
                process.wait()
        if process.returncode:
            kept = folder / f'ended{len(ended)}'
            if (folder / 'input').exists():
                kept.write_bytes((folder / 'input').read_bytes())
            ended.append(f'the process ended with {process.returncode} in {kept.name}')
            if not counts_file.exists() or len(ended) > 20:
                break
    counts = json.loads(counts_file.read_text()) if counts_file.exists() else {'accepted': 0, 'refused': 0, 'bugs': {}}
    return {**counts, 'ended': ended, 'minutes': minutes}


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
        name, end, seed, folder = args.work
        work(name, float(end), int(seed), Path(folder))
    out = args.out or Path(tempfile.mkdtemp(prefix='fuzz'))
    found = {}
    for name in [args.only] if args.only else NAMES:
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'counts.json').unlink(missing_ok=True)
        found[name] = counts = watch(name, args.minutes, args.seed, folder)
        total = counts['accepted'] + counts['refused'] + sum(bug['inputs'] for bug in counts['bugs'].values())
        print(
            f'{name}: {total:,} inputs in {args.minutes:g} minutes, {counts["accepted"]:,} accepted, '
            f'{counts["refused"]:,} refused, {len(counts["bugs"]) + len(counts["ended"])} bugs',
            flush=True,
        )
        for number, (place, bug) in enumerate(counts['bugs'].items()):
            print(f'  {place}: {bug["inputs"]:,} inputs, such as {folder / f"bug{number}"}')
        for line in counts['ended']:
            print(f'  {line} of {folder}')
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + '\n')
    sys.exit(any(counts['bugs'] or counts['ended'] for counts in found.values()))


if __name__ == '__main__':
    main()
