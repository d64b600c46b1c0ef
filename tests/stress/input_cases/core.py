"""What all cases share: how they are declared, run in a folder of their own, and judged."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mogacore import errors
from mogacore.analysis.stats import statistics
from mogacore.errors import UserError
from mogacore.files import PARTIAL_SUFFIX

SECONDS = 60  # limit of a case
MEMORY = 4 << 30  # bytes
UNFINISHED = (PARTIAL_SUFFIX, '.init-data-')  # parts of the names of files that are not complete
NOBODY = 65534


@dataclass(frozen=True)
class Case:
    """A broken or odd input and what is expected of it.

    Args:
        group: Kind of input.
        name: What is odd about it.
        run: Makes the input in an empty folder, which is also the current one, calls mogacore and checks the result
            with assertions.
        refused: Pattern of the line with which it is refused; None if it works.
        is_quick: Whether the test command runs it.
    """

    group: str
    name: str
    run: Callable[[Path], object]
    refused: str | None
    is_quick: bool


@dataclass
class Outcome:
    """What came of a case: ``result`` is 'worked', 'refused' or 'failed', ``text`` the line or the reason."""

    result: str
    text: str = ''
    seconds: float = 0.0
    memory: int = 0


CASES: dict[tuple[str, str], Case] = {}


def train_and_test(project) -> dict:
    """Scores of the test of a project after its training; what training refuses, ``stats`` reports as a problem, too.

    Args:
        project: A ``Project`` of tests/engine/own_data_makers.py.
    """
    config, _, _ = project.write_config()
    try:
        project.call('train')
    except UserError as error:
        problems = statistics(config, ['train'])['splits']['train']['problems']
        assert problems, f'stats reports no problem, but training: {error}'
        raise
    return project.call('test')


def case(group: str, name: str, refused: str | None = None, quick: bool = False) -> Callable:
    """Declare a case whose ``run`` is the decorated function."""

    def add(run: Callable[[Path], object]) -> Callable[[Path], object]:
        assert (group, name) not in CASES, (group, name)
        CASES[group, name] = Case(group, name, run, refused, quick)
        return run

    return add


def attempt(one: Case) -> Outcome:
    """Run a case in a temporary folder."""
    start, before = time.perf_counter(), os.getcwd()
    with tempfile.TemporaryDirectory(prefix='odd inputs ', ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        root.chmod(0o755)
        os.chdir(root)
        try:
            with time_limit(SECONDS):
                one.run(root)
            outcome = Outcome('worked')
        except UserError as error:
            outcome = Outcome('refused', str(error))
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            outcome = Outcome('failed', _summary(error))
        finally:
            os.chdir(before)
        outcome = judge(one, outcome, root)
    outcome.seconds = time.perf_counter() - start
    return outcome


def judge(one: Case, outcome: Outcome, root: Path) -> Outcome:
    """The outcome, or a failed one if it is not as declared or files are left that are not complete."""
    left = [str(path.relative_to(root)) for path in root.rglob('*') if any(part in path.name for part in UNFINISHED)]
    if outcome.result == 'failed':
        return outcome
    if left:
        return Outcome('failed', f'{outcome.result}, but left {left[:3]}')
    if outcome.result == 'worked':
        return outcome if one.refused is None else Outcome('failed', f'worked, expected a line with {one.refused!r}')
    if one.refused is None:
        return Outcome('failed', f'refused, expected to work: {outcome.text}')
    if not outcome.text.isprintable():
        return Outcome('failed', f'not one line of printable text: {outcome.text!r}')
    if not re.search(one.refused, outcome.text):
        return Outcome('failed', f'the line lacks {one.refused!r}: {outcome.text}')
    return outcome


def _summary(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    where = ' < '.join(f'{Path(frame.filename).name}:{frame.lineno}' for frame in reversed(frames))
    return f'{type(error).__name__}: {str(error)[:500]} ({where})'


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the body after some time, also while it waits for a file."""

    def stop(*args: object) -> None:
        raise TimeoutError(f'not done after {seconds} s')

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Let root have the rights of a user without any; another user keeps its own."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def cli(main: Callable[..., int | None], *argv: str) -> str:
    """Run a subcommand in this process as the command does; returns what it prints to stdout.

    Raises:
        UserError: With the line, if it ends with exit code 2 and one line on stderr.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            errors.run(main, list(argv))
        except SystemExit as stopped:
            code = stopped.code or 0
    return _result(code, out.getvalue(), err.getvalue())


def command(*argv: str, timeout_s: float = SECONDS - 5) -> str:
    """Run ``mogacore`` in a process of its own; returns stdout.

    Raises:
        UserError: As :func:`cli`.
    """
    call = [sys.executable, '-m', 'mogacore', *argv]
    done = subprocess.run(call, capture_output=True, timeout=timeout_s, check=False)
    return _result(done.returncode, done.stdout.decode(errors='replace'), done.stderr.decode(errors='replace'))


def _result(code: object, out: str, err: str) -> str:
    if code == 2:
        lines = [line for line in err.splitlines() if line.strip()]
        assert len(lines) == 1 and lines[0].startswith('error: '), f'stderr is not one line: {err!r}'
        raise UserError('\n'.join([*problems(out), lines[0].removeprefix('error: ')]).replace('\n', ' | '))
    assert code in (0, 1), f'exit code {code}: {err[-500:]}'
    return out


def problems(text: str) -> list[str]:
    """The lines on the screen with problems of a folder, without their mark."""
    return [line.removeprefix('problem: ') for line in text.splitlines() if line.startswith('problem: ')]
