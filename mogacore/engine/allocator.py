"""Memory allocation during training on a CPU."""

from __future__ import annotations

import ctypes

# Parameters of mallopt, from malloc.h of the GNU C library.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Make malloc keep freed memory for the next step, for the lifetime of the process.

    By default glibc returns large blocks to the system at once, and the next step pays a page fault for every 4 KiB:
    half the time of a training step on some machines. Peak memory grows by about a quarter.

    Returns:
        Whether the C library supports this.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
