"""Run the parts of the check one by one, within a budget of time, and report each result as it comes."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import torch

from mogacore.engine.devices import choose_device
from mogacore.errors import UserError
from mogacore.files import writable_folder

from . import PARTS, machine, numerics, parallel, report, speed, training
from .results import FAILED, OK, SKIPPED, Result, Skip
from .subjects import Plan

# Function of each part, and the seconds that it takes about: on a GPU, and quick on one core of a CPU.
RUN: dict[str, tuple[Callable[[Plan], Iterator[Result]], int, int]] = {
    'golden': (numerics.golden, 10, 1),
    'float64': (numerics.float64, 5, 1),
    'precisions': (numerics.precisions, 60, 6),
    'layouts': (numerics.layouts, 15, 3),
    'compiled': (numerics.compiled, 90, 15),
    'losses': (training.losses, 15, 4),
    'memory': (training.memory, 15, 1),
    'parallel': (parallel.data_parallel, 40, 15),
}


class OutOfTime(BaseException):
    """Raised in a part at the end of the time; not an Exception, which torch.compile would take for a failure."""


class Budget:
    """Time that a check may take.

    Args:
        minutes: All of it.
        clock: Seconds, monotonic.
    """

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic):
        self.clock, self.total_s = clock, 60 * minutes
        self.start = clock()

    @property
    def used_s(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.start

    def has(self, seconds: float) -> bool:
        """Whether this many seconds are left."""
        return self.used_s + seconds <= self.total_s

    @contextmanager
    def limit(self) -> Iterator[None]:
        """Context that raises :class:`OutOfTime` in its body at the end of the time; without effect in a thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number, frame):
            raise OutOfTime

        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, max(0.01, self.total_s - self.used_s))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def __str__(self) -> str:
        return f'{_minutes(self.used_s)} of {_minutes(self.total_s)}'


def _minutes(seconds: float) -> str:
    return f'{int(seconds) // 60}:{int(seconds) % 60:02}'


def check_device(name: str) -> str:
    """``name``, if this machine has the device.

    Raises:
        UserError: If it does not, or the device is neither a GPU nor the CPU.
    """
    kind = name.partition(':')[0]
    if kind not in ('cuda', 'cpu'):
        raise UserError(f'--device {name} is unknown: choose cuda, cuda:N or cpu')
    if kind == 'cuda' and not torch.cuda.is_available():
        raise UserError(
            f'--device {name} is not available (torch finds no GPU): check the driver and that torch is built for it, '
            'or try the command on the CPU with --device cpu --quick'
        )
    device = choose_device(name)
    if kind == 'cuda':
        torch.cuda.set_device(torch.device(device).index or 0)
    return device


def gpu_check(
    device: str = 'cuda',
    quick: bool = False,
    minutes: float = 8.0,
    out: str | Path = 'gpu-check',
    batch_size: int = 128,
    only: Collection[str] = PARTS,
    show: Callable[[str], None] = print,
    clock: Callable[[], float] = time.monotonic,
) -> dict:
    """Check a device, show each result in a line, and write gpu-check.json and gpu-check.md after each part.

    A check that fails does not end the others. What does not fit into the time is skipped.

    Args:
        device: 'cuda', 'cuda:N' or 'cpu'.
        quick: Tiny networks, see :class:`Plan`.
        minutes: Largest duration; a part that runs at its end is stopped.
        out: Folder of the report.
        batch_size: Images per batch in the measurements of speed.
        only: Parts to run, of ``PARTS``.
        show: Called with each line.
        clock: Monotonic seconds.

    Returns:
        The content of gpu-check.json: ``settings``, ``machine``, ``counts`` by status, ``checks``, ``speed``,
        ``started``, ``seconds``, ``complete``.

    Raises:
        UserError: If the device is missing, a number is out of range, or ``out`` cannot be written.
    """
    if not 0 < minutes < float('inf') or batch_size < 1:
        raise UserError(f'{minutes:g} minutes and batch size {batch_size} are invalid: give numbers above 0')
    if unknown := sorted(set(only) - set(PARTS)):
        raise UserError(f'part {unknown[0]!r} is unknown: choose from {", ".join(PARTS)}')
    plan = Plan(check_device(device), quick, batch_size)
    folder = writable_folder(out)
    budget = Budget(minutes, clock)
    content: dict = {
        'settings': {'device': device, 'quick': quick, 'minutes': minutes, 'batch_size': batch_size, 'only': [*only]},
        'machine': machine.describe(plan.device),
        'started': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'seconds': 0.0,
        'complete': False,
        'counts': {OK: 0, FAILED: 0, SKIPPED: 0},
        'checks': [],
        'speed': [],
    }

    def add(part: str, result: Result) -> None:
        show(result.line())
        content['checks'].append({'part': part, **asdict(result)})
        content['counts'][result.status] += 1

    show(', '.join(f'{name} {value}' for name, value in content['machine'].items()))
    parts = [part for part in PARTS if part in only]
    for number, part in enumerate(parts, 1):
        heading = f'[{number}/{len(parts)}, {budget}] {part}'
        if part == 'speed' and not (quick or plan.is_cuda):
            show(heading)
            results = iter([Result(part, SKIPPED, note='mogacore benchmark measures the speed of a CPU')])
        elif part == 'speed':
            todo = speed.cases(plan)
            show(f'{heading}: {len(todo)} measurements, as far as the time allows')
            results = _speed(todo, plan, budget, content['speed'])
        else:
            function, on_gpu, on_cpu = RUN[part]
            estimate = on_cpu if quick else on_gpu
            summary = (function.__doc__ or '').partition('\n')[0]
            show(f'{heading}: {summary} About {estimate} s.')
            if not budget.has(estimate):
                add(part, Result(part, SKIPPED, note=f'no time left: it takes about {estimate} s'))
                continue
            results = _guarded(part, function, plan, budget)
        for result in results:
            add(part, result)
            if part == 'speed':
                _write(folder, content, budget)
        speed.release(plan)
        _write(folder, content, budget)
    content['complete'] = True
    _write(folder, content, budget)
    return content


def _write(folder: Path, content: dict, budget: Budget) -> None:
    content['seconds'] = round(budget.used_s, 1)
    report.write(folder, content)


def _guarded(name: str, function: Callable[[Plan], Iterator[Result]], plan: Plan, budget: Budget) -> Iterator[Result]:
    """Results of a part; an exception, or the end of the time, is the last one."""
    results = function(plan)
    try:
        while True:
            with budget.limit():  # only while the part runs, not while its results are used
                result = next(results, None)
            if result is None:
                return
            yield result
    except OutOfTime:
        yield Result(name, SKIPPED, note='stopped, since the time is over')
    except Skip as reason:
        yield Result(name, SKIPPED, note=str(reason))
    except torch.cuda.OutOfMemoryError:
        yield Result(name, SKIPPED, note='out of memory')
    except Exception as error:  # the other checks go on; the traceback is in the report
        line = str(error).strip().partition('\n')[0]
        yield Result(name, FAILED, note=f'{type(error).__name__}: {line}', traceback=traceback.format_exc())


def _speed(cases: list[speed.Case], plan: Plan, budget: Budget, rows: list[dict]) -> Iterator[Result]:
    """Measure the cases that fit into the budget, and add them to ``rows``."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True  # as in training
    try:
        for case in cases:
            estimate = 5 if plan.quick else case.estimate_s
            if not budget.has(estimate):
                yield Result(case.label, SKIPPED, note=f'no time left: it takes up to {estimate:.0f} s')
                continue
            yield from _guarded(case.label, partial(_row, case, rows), plan, budget)
            speed.release(plan)
    finally:
        torch.backends.cudnn.benchmark = before


def _row(case: speed.Case, rows: list[dict], plan: Plan) -> Iterator[Result]:
    row = speed.measure(case, plan)
    rows.append(row)
    peak = '' if row['peak_bytes'] is None else f', {row["peak_bytes"] / 2**30:.2f} GiB'
    note = f', {row["note"]}' if row['note'] else ''
    figures = f'{row["images_per_s"]:.1f} images/s, {row["ms"]:.1f} ms for {row["batch_size"]} images{peak}{note}'
    yield Result(case.label, OK, note=figures)
