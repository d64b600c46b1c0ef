"""Whether the C library keeps freed memory, by page faults, and how long threads wait, by libgomp's own report."""

import os
import platform
import re
import subprocess
import sys

import pytest

from mogacore.process import SPIN_COUNT, SPIN_COUNT_SLOW_PAUSE, limit_spinning, spin_count

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='needs the GNU C library')
COUNT_FAULTS = """
import resource, sys
import numpy as np
from mogacore import keep_freed_memory
if sys.argv[1] == 'keep':
    assert keep_freed_memory()
size = int(sys.argv[2])
np.ones(size)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(int(sys.argv[3])):
    np.ones(size)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_faults(how, num_values, repeats):
    command = [sys.executable, '-c', COUNT_FAULTS, how, str(num_values), str(repeats)]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


@needs_glibc
def test_freed_memory_is_reused_without_page_faults():
    faults = {how: count_faults(how, 2**23, 10) for how in ('keep', 'give back')}  # 64 MiB
    # numpy requests huge pages where possible, so the other count does not follow from 4 KiB pages.
    assert faults['keep'] < 50 < faults['give back']


@needs_glibc
def test_more_than_two_gigabytes_are_kept_as_well():
    assert count_faults('keep', 2**28 + 2**20, 1) < 50  # an int, the type of the setting, ends at 2 GiB


def reported_by_libgomp(command, **variables):
    """Spin count that libgomp reports when it is loaded, in a process that has no settings of ours but these."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(('GOMP_', 'OMP_', 'KMP_'))}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=True,
        env=inherited | {'OMP_DISPLAY_ENV': 'verbose'} | variables,
    )  # fmt: skip
    return {int(value) for value in re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)}


IMPORT = 'from mogacore.errors import run\nrun(lambda: print(__import__("torch").ones(1)))'


@pytest.mark.skipif(sys.platform != 'linux', reason='torch contains libgomp on Linux')
def test_commands_limit_the_spinning_of_torch_unless_the_user_did():
    assert reported_by_libgomp(['-c', IMPORT]) == {spin_count()}
    assert reported_by_libgomp(['-c', IMPORT], GOMP_SPINCOUNT='77') == {77}
    assert reported_by_libgomp(['-c', IMPORT], OMP_WAIT_POLICY='passive') == {0}


def test_limit_spinning_reports_whether_it_has_an_effect(monkeypatch):
    environ = {'OMP_NUM_THREADS': '2'}
    assert not limit_spinning(environ)  # torch has been imported
    assert environ == {'OMP_NUM_THREADS': '2', 'GOMP_SPINCOUNT': str(spin_count())}
    monkeypatch.delitem(sys.modules, 'torch')
    assert limit_spinning({})
    for name in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY', 'KMP_BLOCKTIME'):
        environ = {name: '1'}
        assert not limit_spinning(environ)
        assert environ == {name: '1'}


@pytest.mark.parametrize(
    ('vendor', 'flags', 'expected'),
    [
        ('GenuineIntel', 'fpu sse4_2 avx2 clflushopt avx512f', SPIN_COUNT_SLOW_PAUSE),
        ('GenuineIntel', 'fpu sse4_2 avx2', SPIN_COUNT),  # Broadwell
        ('AuthenticAMD', 'fpu sse4_2 avx2 clflushopt', SPIN_COUNT),
    ],
)
def test_spin_count_depends_on_the_length_of_a_pause(vendor, flags, expected):
    assert spin_count(f'processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n') == expected
    assert spin_count('') == SPIN_COUNT
