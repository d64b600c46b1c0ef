import json

import cv2
import numpy as np
import pytest
from onnx_files import write_classifier
from small_models import write_small
from torch import nn

from mogacore.cli.export import main
from mogacore.deploy import Predictor
from mogacore.deploy.report import alternate, compare, describe, export_smaller
from mogacore.deploy.source import Source
from mogacore.errors import UserError
from mogacore.runtime.backends import open_backend


def test_functions_run_in_turn():
    calls = []
    seconds = alternate([lambda: calls.append('a'), lambda: calls.append('b')], rounds=3)
    assert ''.join(calls) == 'ab' * 4 and len(seconds) == 2 and all(value >= 0 for value in seconds)


@pytest.mark.parametrize(
    ('seconds', 'has_instructions', 'advice'),
    [
        (
            [1.0, 2.0],
            False,
            'int8 takes 2.00 times as long as fp32 on this CPU, which has no 8-bit dot products (VNNI)',
        ),
        ([1.0, 2.0], True, 'int8 takes 2.00 times as long as fp32 on this machine: use fp16'),
        ([1.0, 0.5], True, ''),
    ],
)
def test_the_report_compares_both_files(tmp_path, monkeypatch, seconds, has_instructions, advice):
    before, after = write_classifier(tmp_path / 'a.onnx'), write_classifier(tmp_path / 'b.onnx', precision='int8')
    monkeypatch.setattr('mogacore.deploy.report.has_int8_instructions', lambda: has_instructions)
    monkeypatch.setattr(
        'mogacore.deploy.report.alternate',
        lambda runs: [run() and value for run, value in zip(runs, seconds, strict=True)],
    )
    report = compare(before, after, {'images': np.zeros((1, 3, 24, 20), np.uint8)})
    assert report['size'] == [before.stat().st_size, after.stat().st_size]
    assert report['precision'] == ['fp32', 'int8'] and report['shape'] == [1, 3, 24, 20]
    assert report['latency_ms'] == [1e3 * value for value in seconds]
    assert report['advice'].startswith(advice) and bool(report['advice']) == bool(advice)
    lines = describe(report | {'accuracy': {'top1': [98.5, 98.25]}, 'num_images': 40})
    assert f'latency for 1 x 3 x 24 x 20: fp32 1000.0 ms, int8 {1e3 * seconds[1]:.1f} ms' in lines
    assert 'top1: fp32 98.5, int8 98.25 (40 test images)' in lines


def test_the_command_writes_a_smaller_file_and_its_report(tmp_path, capsys):
    config, weights = write_small(tmp_path, 'segmentation/semantic-fpn_moganet-xtiny_digits')
    (tmp_path / 'images').mkdir()
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8), (128, 128))
    assert cv2.imwrite(str(tmp_path / 'images/0.png'), image)
    out = tmp_path / 'int8.onnx'
    flags = [
        '--precision',
        'int8',
        '--calibration',
        str(tmp_path / 'images'),
        '--report',
        str(tmp_path / 'report.json'),
    ]
    options = ['--cfg-options', f'test_dataloader.dataset.data_root={tmp_path / "no_data"}']
    main([config, weights, str(out), *flags, *options])
    (report,) = json.loads((tmp_path / 'report.json').read_text())
    assert report['path'] == str(out) and report['precision'] == ['fp32', 'int8']
    assert report['size'][1] == out.stat().st_size < report['size'][0]
    assert 'no_data' in report['no_accuracy'] and 'not measured' in capsys.readouterr().out
    assert open_backend(out).metadata['precision'] == 'int8'
    assert Predictor(out).predict([image])[0].class_map.shape == (128, 128)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith('.')]


@pytest.mark.parametrize(
    ('change', 'files', 'message'),
    [
        ({}, {}, 'calibration: input .* contains no image'),
        ({}, {'a.png': b'no image', 'b.jpg': b''}, 'has no readable image: give a folder of at least one'),
        ({'shape': (10, 1, 64, 64)}, {}, 'a video predictor has no int8 form, since its inputs are not images'),
        ({'raw': True}, {}, '--raw and --features have no int8 form: use fp16, or omit them'),
        ({'features': True}, {}, '--raw and --features have no int8 form: use fp16, or omit them'),
    ],
)
def test_what_has_no_int8_form_is_refused_before_the_network_is_exported(tmp_path, monkeypatch, change, files, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    exported = []
    monkeypatch.setattr('mogacore.deploy.report.export', lambda *args: exported.append(args))
    with pytest.raises(UserError, match=message):
        export_smaller(Source(nn.Identity(), **change), [tmp_path / 'net.onnx'], (), 'int8', tmp_path)
    assert not exported and sorted(path.name for path in tmp_path.iterdir()) == sorted(files)


def test_a_failed_export_names_the_file_of_the_user(tmp_path, monkeypatch):
    def fail(source, paths, *settings):
        raise UserError(f'{paths[1]} was not written')

    monkeypatch.setattr('mogacore.deploy.report.export', fail)
    targets = [tmp_path / 'a.onnx', tmp_path / 'b.onnx']
    with pytest.raises(UserError, match=rf'^{targets[1]} was not written$'):
        export_smaller(Source(nn.Identity()), targets, (), 'fp16')
    assert not list(tmp_path.iterdir())
