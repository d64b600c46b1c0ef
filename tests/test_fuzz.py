"""Damaged files and requests are read, or refused in one line; tests/stress/fuzz.py runs more of them."""

import pytest
from fuzzing.harness import attempt
from fuzzing.targets import MODULES, target
from hypothesis import HealthCheck, given, settings

EXAMPLES = {'checkpoint': 150, 'idx': 300, 'npy': 200, 'coco': 150, 'config': 15, 'server': 150}


@pytest.mark.parametrize('name', MODULES)
def test_a_damaged_input_is_read_or_refused_in_one_line(name):
    if name == 'server':
        pytest.importorskip('fastapi')
        pytest.importorskip('onnx')
    if name == 'config':
        pytest.importorskip('mmpretrain')
    reader = target(name)

    @settings(
        max_examples=EXAMPLES[name], derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(reader.inputs)
    def is_read_or_refused(value):
        attempt(reader, value)

    is_read_or_refused()
