"""Explains in one line what the machine does to a command: a full disk, no memory, a killed worker."""

from __future__ import annotations

import errno
import os
import re
import resource
from typing import NamedTuple


class Failure(NamedTuple):
    """What failed, in the words of mogacore and of the system, and what to do about it."""

    what: str
    detail: str
    remedy: str

    def __str__(self) -> str:
        return f'{self.what} ({self.detail}): {self.remedy}'


MEMORY = (
    'there is not enough memory',
    'lower batch_size, num_workers or the size of the inputs, or use a machine with more memory',
)
ACCESS = ('access is refused', 'correct the permissions, or choose another file or folder')
FILES = ('too many files are open', 'raise the limit with ulimit -n, or lower num_workers')
PROCESSES = (
    'no more processes or threads can be started',
    'raise the limit with ulimit -u or that of the container, or lower num_workers',
)
SHARED_MEMORY = (
    'shared memory, /dev/shm, is full',
    'free some, enlarge it (docker run --shm-size), or lower num_workers or batch_size',
)
WORKER = (
    'a data loader worker was killed, usually because memory was used up',
    'lower num_workers or batch_size, or use a machine with more memory',
)

CRASH = ('a data loader worker crashed', 'set num_workers=0 to find the image or library that is the cause')

SYSTEM = {
    errno.ENOSPC: ('the disk is full', 'free some space'),
    errno.EDQUOT: ('the disk quota is used up', 'free some space'),
    errno.EFBIG: ('a file would exceed the largest size that is allowed', 'raise the limit with ulimit -f'),
    errno.EROFS: ('the disk is read-only', 'mount it for writing, or choose another folder'),
    errno.EIO: ('the disk or network file system has failed', 'check it'),
    errno.ESTALE: ('the network file system was remounted', 'check it'),
    errno.EACCES: ACCESS,
    errno.EPERM: ACCESS,
    errno.ENOMEM: MEMORY,
    errno.EMFILE: FILES,
    errno.ENFILE: FILES,
    errno.EAGAIN: PROCESSES,
}

# Of a data loader worker that could not pass on a batch, since it may open no more files, or for lack of shared memory.
EXIT_NO_FILES, EXIT_NOT_SHARED = 73, 74

# Messages of torch, OpenCV and Python, the more specific ones first. In an exception from a data loader worker they
# stand in a traceback.
MESSAGES = (
    (rf'DataLoader worker \(pid.*exit code {EXIT_NO_FILES}\b', FILES),
    (rf'DataLoader worker \(pid.*exit code {EXIT_NOT_SHARED}\b', SHARED_MEMORY),
    (r'DataLoader worker \(pid.*signal: Bus error', SHARED_MEMORY),
    (r'Too many open files|received \d+ items of ancdata', FILES),
    (r'unable to .*</torch_', SHARED_MEMORY),
    (r'DataLoader worker \(pid.*killed by signal: (?!Killed|Unknown)', CRASH),
    (r'DataLoader worker \(pid.*(?:killed by signal|exited unexpectedly)', WORKER),
    (r"can't start new thread", PROCESSES),
    (
        r"MemoryError: |(?:can't|Cannot) allocate memory|bad_alloc|(?:CUDA|HIP) out of memory|Insufficient memory"
        r'|failed to map segment from shared object(?!: Operation)',  # of an import; it has the suffix on a noexec disk
        MEMORY,
    ),
)

# The text of oneDNN, which runs convolutions on CPUs, where it gets no memory, and where an operator is not supported.
ONEDNN = 'could not (?:create|execute) a primitive'


def explain(error: BaseException) -> Failure | None:
    """Explain an exception that the machine causes, not the code; None for any other."""
    if isinstance(error, MemoryError):
        return Failure(MEMORY[0], _last_line(error) or 'MemoryError', MEMORY[1])
    if isinstance(error, OSError) and (known := SYSTEM.get(_number(error))):
        if _number(error) == errno.ENOSPC and error.filename is None and _is_full('/dev/shm'):
            known = SHARED_MEMORY  # semaphores and tensors of data loader workers
        return Failure(known[0], _last_line(error), known[1])
    if isinstance(error, UNRELATED):
        return None
    if re.search(ONEDNN, str(error)) and resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return Failure(MEMORY[0], _last_line(error, ONEDNN), f'{MEMORY[1]}, or raise the limit with ulimit -v')
    for pattern, (what, remedy) in MESSAGES:
        if re.search(pattern, _text(error)):
            return Failure(what, _last_line(error, pattern), remedy)
    return None


# Their texts quote values and names.
UNRELATED = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)


def _text(error: BaseException) -> str:
    """The text of an exception after that of its cause: torch names the signal or exit code of a worker only there."""
    return f'{error.__cause__ or ""}\n{error}'


def _number(error: OSError) -> int:
    """Number of a system error; that of a data loader worker is only in its text."""
    numbers = re.findall(r'\[Errno (\d+)\]', str(error))
    return error.errno or int(numbers[-1] if numbers else 0)


def _is_full(folder: str) -> bool:
    try:
        return os.statvfs(folder).f_bavail == 0
    except OSError:
        return False


def _last_line(error: BaseException, pattern: str = '') -> str:
    """The last line of a text that matches, without the type that starts the last line of a traceback."""
    lines = [line.strip() for line in _text(error).splitlines() if line.strip() and re.search(pattern, line)]
    line = re.sub(r'^[\w.]*Error: ', '', lines[-1]) if lines else ''
    return line.partition('. Details are lost')[0][:200]  # torch's advice differs
