"""--device: what is not available is one line, in every tool that has the flag."""

from importlib import import_module
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from mmengine.device import get_device

from mogacore.engine.devices import choose_device
from mogacore.errors import UserError

MISSING = 'cuda:99'
DIGITS = 'classification/moganet-xtiny_digits'
# What each tool with --device needs in addition to its model.
TOOLS = {
    'benchmark': ['moganet_xtiny'],
    'cam': ['x.png', 'moganet_xtiny', '--data', DIGITS, '--out-dir', 'out'],
    'features': [DIGITS, 'x.pth', 'x.png', '--out', 'x.npy'],
    'gpu_check': [],
    'infer': [DIGITS, 'x.pth', 'x.png', '--out-dir', 'out'],
    'interactions': ['moganet_xtiny', '--data', DIGITS, '--out-dir', 'out'],
    'publish': ['run', 'out', '--average', '2'],
    'receptive_field': ['moganet_xtiny', '--data', DIGITS, '--out-dir', 'out'],
}


def test_the_default_device_is_that_of_mmengine_and_available_ones_are_taken():
    assert choose_device() == get_device()
    assert choose_device('cpu') == 'cpu'


@pytest.mark.parametrize('name', [MISSING, 'xyz', 'meta', 'cpu:x'])
def test_devices_that_are_not_available_are_refused_in_one_line(name):
    with pytest.raises(UserError, match=f'--device {name} is not available .*: use another, such as cpu') as caught:
        choose_device(name)
    assert '\n' not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(UserError, match='--device cuda is not available'):
        choose_device('cuda')


def test_every_tool_with_the_flag_is_tested():
    with_flag = {path.stem for path in (ROOT / 'mogacore' / 'cli').glob('*.py') if "'--device'" in path.read_text()}
    assert with_flag == set(TOOLS)


@pytest.mark.parametrize('tool', TOOLS)
def test_every_tool_refuses_a_device_that_is_not_available(tool, tmp_path, monkeypatch):
    pytest.importorskip('mmpretrain')
    monkeypatch.chdir(tmp_path)
    for name in ('x.png', 'x.pth'):
        Path(name).touch()
    with pytest.raises(UserError, match=f'--device {MISSING} is not available'):
        import_module(f'mogacore.cli.{tool}').main([*TOOLS[tool], '--device', MISSING])
