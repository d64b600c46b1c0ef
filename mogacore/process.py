"""Settings of this process: its standard files, and what makes torch faster on a CPU, freed memory and waiting threads.

The commands apply all. In your own code, call the last two before the work starts:

    import mogacore

    mogacore.limit_spinning()  # before the import of torch
    mogacore.keep_freed_memory()
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

# Parameters of mallopt, from malloc.h of the GNU C library.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4

# Variables with which a user chooses how threads wait.
WAIT_VARIABLES = ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY', 'KMP_BLOCKTIME')
# About 0.2 ms: longer than the gap between two operators of a network, far shorter than a time slice of the scheduler.
SPIN_COUNT, SPIN_COUNT_SLOW_PAUSE = 10_000, 3_000


def open_standard_files() -> None:
    """Open the null device as stdin, stdout or stderr where the process was started without it.

    Otherwise the next file that is opened, a checkpoint for example, takes the place of stdout and receives what
    libraries print.
    """
    for number, name in enumerate(('stdin', 'stdout', 'stderr')):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, 'w' if number else 'r', encoding='utf-8', closefd=False))


@contextmanager
def exiting_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the body as Ctrl-C does, so that its temporary files are removed; the exit code is 143.

    Raises:
        SystemExit: When the signal arrives.
    """
    previous = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def keep_freed_memory() -> bool:
    """Make malloc keep freed memory for later use, for the lifetime of the process.

    By default glibc returns large blocks to the system at once, and the next step pays a page fault for every 4 KiB:
    half the time of a training step on some machines. The process then keeps its peak memory until it ends, and that
    peak is about a quarter higher, since freed blocks do not always fit the next request.

    Returns:
        Whether the C library supports this.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))  # -1: never


def limit_spinning(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Let torch's CPU threads sleep when they have waited for about 0.2 ms; call this before the import of torch.

    Threads of libgomp wait for the next operator in a loop that lasts up to 20 ms. On a machine whose cores are all in
    use they thereby take the time of the threads that they wait for, and a step of a small network takes up to 50 times
    as long. Without other work on the machine, the limit makes inference in batches of 1 slower: 181 instead of 155 ms
    for MogaNet-S on two cores of an Intel Xeon, see docs/benchmarks.md. Processes started later inherit it. A value of
    ``GOMP_SPINCOUNT``, ``OMP_WAIT_POLICY`` or ``KMP_BLOCKTIME`` that is already set takes precedence.

    Args:
        environ: Environment variables to change, those of this process by default.

    Returns:
        Whether the limit holds for this process: False if torch has been imported, or the user has set a variable.
    """
    if any(name in environ for name in WAIT_VARIABLES):
        return False
    environ['GOMP_SPINCOUNT'] = str(spin_count())
    return 'torch' not in sys.modules


def spin_count(cpuinfo: str | None = None) -> int:
    """Number of turns of the waiting loop that take about 0.2 ms.

    A turn is one pause instruction: about 140 cycles on Intel processors since Skylake, at most 65 on others.

    Args:
        cpuinfo: Content of ``/proc/cpuinfo``; None reads it, where it exists.
    """
    if cpuinfo is None:
        path = Path('/proc/cpuinfo')
        cpuinfo = path.read_text() if path.exists() else ''
    words = set(cpuinfo.split())
    # clflushopt is a feature of all Intel processors since Skylake.
    return SPIN_COUNT_SLOW_PAUSE if {'GenuineIntel', 'clflushopt'} <= words else SPIN_COUNT
