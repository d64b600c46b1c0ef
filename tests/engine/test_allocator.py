"""Whether the C library keeps freed memory, measured by page faults."""

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


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='needs the GNU C library')
def test_freed_memory_is_reused_without_page_faults():
    faults = {
        how: int(subprocess.run([sys.executable, '-c', COUNT_FAULTS, how], capture_output=True, check=True).stdout)
        for how in ('keep', 'give back')
    }
    # numpy requests huge pages where possible, so the other count does not follow from 4 KiB pages.
    assert faults['keep'] < 50 < faults['give back']
