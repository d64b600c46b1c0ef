"""What the C library does with freed memory, by the page faults that follow."""

import platform
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys
import numpy as np
from mogacore.engine.allocator import keep_freed_memory
if sys.argv[1] == 'keep':
    assert keep_freed_memory()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(2**23)  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='for the GNU C library alone')
def test_freed_memory_is_used_again_without_a_page_fault():
    faults = {
        how: int(subprocess.run([sys.executable, '-c', COUNT_FAULTS, how], capture_output=True, check=True).stdout)
        for how in ('keep', 'give back')
    }
    # numpy asks for huge pages where it can, so the other count is no multiple of 4 KiB pages.
    assert faults['keep'] < 50 < faults['give back']
