"""A part of the broken and odd inputs of ``tests/stress/inputs.py``: each works, or is refused in one line."""

import pytest

pytest.importorskip('mmpretrain')
pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpose')
pytest.importorskip('fastapi')
pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
from stress.input_cases import CASES
from stress.input_cases.core import attempt

pytestmark = pytest.mark.usefixtures('frozen_objects', 'fast_runs')
QUICK = [key for key, one in CASES.items() if one.is_quick]


def test_there_are_enough_inputs():
    assert len(CASES) >= 200 and len({(group.partition(':')[0], name) for group, name in CASES}) >= 200


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('group, name', QUICK, ids=[': '.join(key) for key in QUICK])
def test_an_odd_input_works_or_is_refused_in_one_line(group, name):
    outcome = attempt(CASES[group, name])
    assert outcome.result != 'failed', outcome.text
