"""Broken and odd inputs: ``python tests/stress/inputs.py [--only PART] [--json FILE]``.

Every case makes its input in a temporary folder, calls what a command calls, and either works as the input's author
would expect, which the case checks, or is refused in one line that has a stated part. Each runs in its own process,
which may take a minute and 4 GiB. Prints a table of the groups and every failure; exits with 1 if there is one.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
import warnings
from collections import Counter, defaultdict
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

import mogacore  # noqa: E402

mogacore.limit_spinning()

import cv2  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from stress.input_cases import CASES  # noqa: E402
from stress.input_cases.core import MEMORY, SECONDS, Outcome, attempt  # noqa: E402

from mogacore.libraries import import_quietly  # noqa: E402

GRACE = 15  # seconds after the limit of a case until its process is ended
ADDRESSES = 24 << 30  # bytes of virtual memory, of which the libraries take a part


def in_child(one) -> Outcome:
    """Run a case in a copy of this process; a crash, a hang and too much memory are failures."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _child(one, reader, writer)
    os.close(writer)
    end = time.monotonic() + SECONDS + GRACE
    status, usage = 0, None
    while usage is None and time.monotonic() < end:
        done, status, usage_now = os.wait4(child, os.WNOHANG)
        usage = usage_now if done else None
        time.sleep(0.01)
    if usage is None:
        os.kill(child, 9)
        _, status, usage = os.wait4(child, 0)
        return Outcome('failed', f'hangs: ended after {SECONDS + GRACE} s')
    with os.fdopen(reader, 'rb') as pipe:
        text = pipe.read()
    memory = usage.ru_maxrss * 1024
    if not text:
        return Outcome('failed', f'the process ended with status {status} (139, 11: crash)', memory=memory)
    outcome = Outcome(**json.loads(text))
    outcome.memory = memory
    if memory > MEMORY:
        return Outcome('failed', f'{outcome.result} with {memory / 2**30:.1f} GiB', outcome.seconds, memory)
    return outcome


def _child(one, reader: int, writer: int) -> None:
    import resource

    os.close(reader)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    warnings.simplefilter('ignore')
    try:
        outcome = attempt(one)
        outcome.text = outcome.text[:2000]  # fits into the pipe
        text = json.dumps(vars(outcome)).encode()
        with os.fdopen(writer, 'wb') as pipe:
            pipe.write(text)
    finally:
        os._exit(0)


def warm_up(chosen: list) -> None:
    """Run one case of each group here, so that its imports are not repeated in every child."""
    first = {one.group: one for one in reversed(chosen) if one.refused is None}
    with open(os.devnull, 'w') as null, redirect_stdout(null), redirect_stderr(null), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for one in first.values():
            attempt(one)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', metavar='PART', help='cases whose group or name contains this')
    parser.add_argument('--json', metavar='FILE', help='write each outcome')
    parser.add_argument(
        '--again', metavar='FILE', help='run only cases that failed in, or are not in, a file of --json'
    )
    args = parser.parse_args()
    cv2.setNumThreads(1)  # a process of threads must not be copied
    chosen = [one for one in CASES.values() if not args.only or args.only in f'{one.group}: {one.name}']
    if args.again:
        earlier = json.loads(Path(args.again).read_text())
        passed = {(row['group'], row['name']) for row in earlier if row['result'] != 'failed'}
        chosen = [one for one in chosen if (one.group, one.name) not in passed]
    for library in ('mmpretrain', 'mmdet', 'mmseg', 'mmpose'):  # once, not in every child
        import_quietly(library)
    warm_up(chosen)
    # Leave out what takes most of the time: collecting garbage, describing the machine, formatting configs.
    gc.collect()
    gc.freeze()
    Runner._log_env = lambda self, env_cfg: None
    Config.pretty_text = property(str)
    table: dict[str, Counter] = defaultdict(Counter)
    failures, rows = [], []
    for number, one in enumerate(chosen, 1):
        outcome = in_child(one)
        table[one.group][outcome.result] += 1
        rows.append({'group': one.group, 'name': one.name, 'expected': one.refused or 'works', **vars(outcome)})
        print(f'\r{number}/{len(chosen)} ', end='', file=sys.stderr, flush=True)
        if args.json:
            Path(args.json).write_text(json.dumps(rows, indent=1))  # after each, in case of a stop
        if outcome.result == 'failed':
            failures.append(f'{one.group}: {one.name}: {outcome.text}')
            print(f'FAILED {failures[-1]}', flush=True)
    width = max(map(len, table), default=5)
    print(f'| {"group":{width}} | tried | worked | refused | failed |')
    print(f'|{"-" * (width + 2)}|-------|--------|---------|--------|')
    total: Counter = sum(table.values(), Counter())
    for name, counts in [*table.items(), ('all', total)]:
        cells = [counts.total(), counts['worked'], counts['refused'], counts['failed']]
        print(f'| {name:{width}} | {cells[0]:5} | {cells[1]:6} | {cells[2]:7} | {cells[3]:6} |')
    if rows:
        inputs = len({(row['group'].partition(':')[0], row['name']) for row in rows})
        slowest, largest = (max(rows, key=lambda row, key=key: row[key]) for key in ('seconds', 'memory'))
        print(f'{inputs} different inputs')
        print(f'longest: {slowest["seconds"]:.1f} s, {slowest["group"]}: {slowest["name"]}')
        print(f'most memory: {largest["memory"] / 2**30:.2f} GiB, {largest["group"]}: {largest["name"]}')
    return bool(failures)


if __name__ == '__main__':
    sys.exit(main())
