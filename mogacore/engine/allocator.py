"""Memory of a training on a CPU."""

from __future__ import annotations

import ctypes

# Parameters of mallopt, from malloc.h of the GNU C library.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Let malloc keep what a step frees for the next one, for as long as the process lives.

    glibc gives large blocks back to the system at once, and the next step pays a page fault for every 4 KiB of them:
    half the time of a training step on some machines. The peak of the memory grows, by a quarter or so.

    Returns:
        Whether the C library is one that can be told so.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
