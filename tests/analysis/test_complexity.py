import json
import runpy
import sys

import pytest
import torch
from conftest import ROOT
from torch import nn

from mogacore import create_model
from mogacore.analysis.complexity import build_on_meta, complexity, count_macs
from mogacore.engine.config import load_config
from mogacore.errors import UserError

DIGITS = ROOT / 'configs' / 'classification' / 'moganet-xtiny_digits.py'
MASK_RCNN = ROOT / 'configs' / 'detection' / 'mask-rcnn_moganet-xtiny_fpn_digits.py'


def test_multiply_adds_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(), nn.Flatten(), nn.Linear(200, 7))
    net.eval().requires_grad_(False)
    assert count_macs(net, torch.randn(1, 3, 5, 5)) == 25 * 8 * 27 + 2 * 25 * 8 + 200 * 7
    assert count_macs(net.to('meta'), torch.empty(1, 3, 5, 5, device='meta')) == 25 * 8 * 27 + 2 * 25 * 8 + 200 * 7


# Counted by fvcore on the published code.
@pytest.mark.parametrize('name, gmacs', [('moganet_xtiny', 0.7865), ('moganet_small', 4.9412)])
def test_multiply_adds_agree_with_fvcore(name, gmacs):
    with torch.device('meta'):
        model = create_model(name).eval().requires_grad_(False)
    assert count_macs(model, torch.empty(1, 3, 224, 224, device='meta')) / 1e9 == pytest.approx(gmacs, rel=2e-3)


def test_multiply_adds_grow_with_the_area():
    pytest.importorskip('mmpretrain')
    small, large = (complexity(DIGITS, (1, length, length))[0].macs for length in (64, 128))
    assert large == pytest.approx(4 * small, rel=3e-3)  # plus a term that does not depend on the area


def test_second_stage_is_counted_for_1000_boxes_and_100_masks():
    pytest.importorskip('mmdet')
    parts = {part.name: part for part in complexity(MASK_RCNN)}
    assert set(parts) == {'backbone', 'neck', 'rpn_head', 'roi_head'}
    box = 49 * 64 * 256 + 256 * 256 + 256 * (11 + 40)
    norms = 4 * 2 * 64 * 196
    mask = 4 * 196 * 64 * 64 * 9 + 4 * 196 * 64 * 64 + 4 * 196 * 64 * 10
    assert parts['roi_head'].macs == pytest.approx(1000 * box + 100 * mask, rel=1e-3, abs=100 * norms)


def test_parameters_are_those_of_the_model():
    pytest.importorskip('mmdet')
    model = build_on_meta(load_config(MASK_RCNN))
    assert sum(part.params for part in complexity(MASK_RCNN)) == sum(p.numel() for p in model.parameters())


def test_missing_input_size_is_reported(tmp_path):
    config = tmp_path / 'bare.py'
    config.write_text("model = dict(type='MogaNet', arch='xtiny')\n")
    with pytest.raises(UserError, match='has no input_shape: give --shape'):
        complexity(config)
    with pytest.raises(UserError, match='a MogaNet has no backbone'):
        complexity(config, (3, 32, 32))


def test_table_in_the_docs_has_a_row_per_config():
    """Names only: tests/test_dense_configs.py checks the figures."""
    rows = (ROOT / 'docs' / 'complexity.md').read_text().splitlines()
    names = [row.split('|')[1].strip() for row in rows if row.startswith('|')][2:]
    configs = sorted(path.relative_to(ROOT / 'configs').as_posix() for path in (ROOT / 'configs').glob('[!_]*/*.py'))
    assert names == [config.removesuffix('.py') for config in configs]


def test_tool_prints_json(capsys, monkeypatch):
    pytest.importorskip('mmpretrain')
    monkeypatch.setattr(sys, 'argv', ['complexity.py', str(DIGITS), '--json'])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / 'tools' / 'complexity.py'), run_name='__main__')
    report = json.loads(capsys.readouterr().out)
    assert report['input_shape'] == [1, 32, 32]
    assert report['macs'] == sum(part['macs'] for part in report['parts'].values())


@pytest.mark.parametrize('shape', [(4, 64, 64), (1, 0, 32), (1, -1, 32)])
def test_a_shape_that_does_not_fit_is_one_line(shape):
    pytest.importorskip('mmpretrain')
    text = ' x '.join(map(str, shape))
    with pytest.raises(
        UserError, match=f'moganet-xtiny_digits does not accept inputs of {text}|{text} is invalid'
    ) as caught:
        complexity(DIGITS, shape)
    assert '\n' not in str(caught.value)
