"""How exported files are run: what a backend leaves behind in the process."""

import platform
import subprocess
import sys

import pytest

pytest.importorskip('onnx')
from onnx_files import write_classifier

# Opens a file several times, drops the oldest first, and prints whether the thread's signal stack is memory in use.
OPEN_AND_DROP = """
import ctypes, faulthandler, gc, sys
from pathlib import Path
from mogacore.runtime.backends import open_backend

class Stack(ctypes.Structure):
    _fields_ = [('start', ctypes.c_void_p), ('flags', ctypes.c_int), ('size', ctypes.c_size_t)]

faulthandler.enable()
networks = [open_backend(sys.argv[1], 'openvino') for _ in range(3)]
while networks:
    del networks[0]
    gc.collect()
stack = Stack()
assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0 and stack.start
ranges = [line.split()[0].split('-') for line in Path('/proc/self/maps').read_text().splitlines()]
print(any(int(low, 16) <= stack.start < int(high, 16) for low, high in ranges))
"""


@pytest.mark.skipif(platform.system() != 'Linux', reason='signal stacks of Linux')
def test_signals_can_be_handled_after_networks_are_deleted_in_any_order(tmp_path):
    pytest.importorskip('openvino')
    path = write_classifier(tmp_path / 'net.onnx')
    result = subprocess.run([sys.executable, '-c', OPEN_AND_DROP, path], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, 'True\n'), result.stderr
