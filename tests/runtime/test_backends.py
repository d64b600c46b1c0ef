"""How exported files are run: what a backend leaves behind in the process."""

import platform
import subprocess
import sys

import pytest

pytest.importorskip('onnx')
from onnx_files import write_classifier

from mogacore.errors import UserError
from mogacore.runtime.backends import open_backend

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


@pytest.mark.parametrize(
    ('name', 'change', 'message'),
    [
        ('net.xml', lambda content: content[: len(content) // 2], 'is not XML, or truncated'),
        ('net.xml', lambda _: b'<html></html>', 'is not a model of OpenVINO: give a file of mogacore export'),
        ('other.xml', lambda content: content, r'lacks its weights: copy other\.bin to the same folder'),
        ('net.onnx', lambda content: content[: len(content) // 2], 'cannot be loaded .*: export it again'),
        ('net.onnx', lambda _: b'', 'has no description of mogacore: write it with mogacore export'),
    ],
)
def test_openvino_reports_a_broken_file_in_one_line_and_prints_nothing(name, change, message, tmp_path, capfd):
    openvino = pytest.importorskip('openvino')
    path = write_classifier(tmp_path / 'net.onnx')
    openvino.save_model(openvino.convert_model(path), tmp_path / 'net.xml')
    content = (tmp_path / f'net{(tmp_path / name).suffix}').read_bytes()
    (tmp_path / name).write_bytes(change(content))
    capfd.readouterr()
    with pytest.raises(UserError, match=message) as raised:
        open_backend(tmp_path / name, 'openvino')
    assert '\n' not in str(raised.value) and not capfd.readouterr().err
