"""Messages about weights that do not fit name what the command at hand takes."""

import re

import pytest
import torch
from conftest import ROOT
from small_models import write_small

from mogacore import create_model
from mogacore.cli import main as command
from mogacore.published import results

pytest.importorskip('mmpretrain')

PYTHON_ONLY = re.compile(r'allow_missing|allow_unexpected|new_head|strict=|in_channels=')


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A small config, its weights without one tensor, and those of a network by name with 10 classes."""
    folder = tmp_path_factory.mktemp('trained')
    config, weights = write_small(folder, 'classification/moganet-xtiny_digits')
    state = torch.load(weights)
    del state['head.fc.bias']
    torch.save(state, folder / 'cut.pth')
    torch.save(create_model('moganet_xtiny', 10).state_dict(), folder / 'ten.pth')
    return config, str(folder / 'cut.pth'), str(folder / 'ten.pth')


def error_of(capsys, *arguments):
    """The line of the error of a command."""
    with pytest.raises(SystemExit) as leave:
        command.main(list(map(str, arguments)))
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert leave.value.code == 2
    return line


def test_no_command_advises_a_setting_of_a_python_function(files, tmp_path, capsys):
    config, cut, ten = files
    image = ROOT / 'docs' / 'images' / 'hands.jpg'
    for arguments in (
        ('infer', config, cut, image, '--out-dir', tmp_path, '--device', 'cpu'),
        ('features', config, cut, image, '--out', tmp_path / 'f.npy', '--device', 'cpu'),
        ('export', config, cut, tmp_path / 'net.onnx'),
        ('export', 'moganet_xtiny', ten, tmp_path / 'net.onnx', '--num-classes', '7'),
        ('export', 'moganet_xtiny', ten, tmp_path / 'net.onnx'),
    ):
        line = error_of(capsys, *arguments)
        assert 'fit' in line and 'Use the matching model or file' in line and not PYTHON_ONLY.search(line)
        assert ('--num-classes' in line) == ('moganet_xtiny' in arguments)


def test_another_gate_function_is_refused_with_the_option_that_sets_it(files, tmp_path, capsys):
    """The weights would load, and the accuracy would be lower."""
    config = files[0]
    name = results.official_weights()['moganet_xtiny'].rpartition('/')[2]
    torch.save(torch.load(config.replace('.py', '.pth')), tmp_path / name)
    options = ('--cfg-options', 'model.backbone.attn_force_fp32=True')
    image = ROOT / 'docs' / 'images' / 'hands.jpg'
    line = error_of(capsys, 'infer', config, tmp_path / name, image, '--out-dir', tmp_path / 'out', *options)
    assert 'pass --cfg-options model.backbone.attn_force_fp32=False, or use the config of' in line
