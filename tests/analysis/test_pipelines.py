"""Whole models and exported files are timed in turn, from the same image to its predictions."""

import json

import numpy as np
import pytest
from small_models import write_small

from mogacore.analysis import pipelines
from mogacore.analysis.pipelines import measure_pipelines, read_image
from mogacore.cli.benchmark import main
from mogacore.errors import UserError
from mogacore.files import write_png
from mogacore.inference.predictor import Predictor

pytest.importorskip('mmdet')
onnx_files = pytest.importorskip('onnx_files')


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    """Config and weight file of a small Mask R-CNN."""
    return write_small(tmp_path_factory.mktemp('detector'), 'detection/mask-rcnn_moganet-xtiny_fpn_digits')


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    return str(onnx_files.write_detector(tmp_path_factory.mktemp('exported') / 'red.onnx'))


def test_the_command_times_a_detector_from_config_and_checkpoint_and_an_exported_file(
    detector, exported, tmp_path, capsys
):
    config, checkpoint = detector
    photo = np.zeros((40, 60, 3), np.uint8)
    photo[10:20, 10:30] = (255, 0, 0)
    write_png(tmp_path / 'photo.png', photo)
    main([config, exported, '--checkpoint', checkpoint, '--image', str(tmp_path / 'photo.png'), '--rounds', '2',
          '--device', 'cpu', '--json', str(tmp_path / 'b.json')])  # fmt: skip
    report = json.loads((tmp_path / 'b.json').read_text())
    assert report['image'] == [40, 60]
    torch_row, onnx_row = report['measurements']
    assert onnx_row['found'] == 1  # the red rectangle
    expected = Predictor(config, checkpoint, 'cpu').predict_one(photo[..., ::-1].copy(), None)[1]
    assert torch_row['found'] == len(expected['scores'])
    assert torch_row['ratio'] == 1 and onnx_row['ratio'] > 1
    for row in report['measurements']:
        assert row['images_per_s'] == pytest.approx(1e3 / row['ms'])
        assert row['quartiles'][0] <= row['ms'] <= row['quartiles'][1]
    assert 'red.onnx' in capsys.readouterr().out


def test_networks_are_timed_in_turn(exported, monkeypatch):
    order = []
    monkeypatch.setattr(pipelines, 'timed', lambda run, device: order.append(run) or float(len(order)))
    report = measure_pipelines([exported, exported], read_image(None, (3, 32, 48)), rounds=3, device='cpu')
    assert order[0] is order[2] is order[4] and order[1] is order[3] is order[5] and order[0] is not order[1]
    assert [row['ms'] for row in report['measurements']] == [3e3, 4e3]  # medians of 1, 3, 5 and of 2, 4, 6 s
    assert report['image'] == [32, 48]


@pytest.mark.parametrize('args, message', [
    (['CONFIG', 'red.onnx'], 'is a config, so its predictions need weights: give --checkpoint'),
    (['red.onnx', 'moganet_tiny'], "'moganet_tiny' is no config"),
    (['red.onnx', '--mode', 'train'], 'only predict: omit --mode train'),
    (['red.onnx', '--image', 'none.png'], 'image none.png does not exist'),
    (['red.onnx', '--rounds', '0'], '0 rounds are invalid'),
    (['missing.onnx'], 'model missing.onnx does not exist'),
])  # fmt: skip
def test_wrong_networks_are_one_line(args, message, detector, exported, monkeypatch):
    monkeypatch.chdir(exported.rpartition('/')[0])
    with pytest.raises(UserError, match=message):
        main([detector[0] if arg == 'CONFIG' else arg for arg in args])


@pytest.mark.parametrize('args, message', [
    (['--dtype', 'bf16'], '--dtype bf16 has no effect on whole models and exported files'),
    (['--backends', 'onnx', 'openvino'], '--backends onnx openvino has no effect on whole models'),
    (['--batch-size', '4'], '--batch-size 4 has no effect'),
    (['--sizes', '32', '64'], '--sizes 32 64 has no effect'),
    (['--batch-sizes', '1'], '--batch-sizes 1 has no effect'),
    (['--plot', 'x.png'], '--plot x.png has no effect'),
    (['--image', 'photo.png', '--shape', '3', '32', '32'], '--shape 3 32 32 has no effect with --image'),
    (['--device', 'cuda'], '--device cuda has no effect on exported files'),
    (['--checkpoint', 'x.pth'], '--checkpoint x.pth has no effect on exported files'),
])  # fmt: skip
def test_an_option_without_effect_on_exported_files_is_refused(args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        main(['red.onnx', *args])
