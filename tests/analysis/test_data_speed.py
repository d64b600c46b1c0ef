"""The benchmark of training pipelines: every step of each pipeline is timed, on the same images."""

import json

import pytest

pytest.importorskip('mmpretrain')
pytest.importorskip('timm')

from mogacore.cli import benchmark
from mogacore.errors import UserError


def test_pipelines_of_a_classifier(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where there is no data/imagenet
    monkeypatch.setattr('mogacore.analysis.data_speed.measure_data.__defaults__', (2, 1, print))
    benchmark.main(
        ['--mode', 'data', 'classification/moganet-small_8xb128_in1k-224', '--rounds', '1', '--json', 'speed.json']
    )
    report = json.loads((tmp_path / 'speed.json').read_text())
    rows = {row['name']: row for row in report['pipelines']}
    assert list(rows) == ['config', 'fast_data=True', 'timm', 'torchvision']
    for row in rows.values():
        times = [step['ms'] for step in row['steps']]
        assert all(ms >= 0 for ms in times) and sum(times) == pytest.approx(row['ms'])
        assert row['images_per_s'] == pytest.approx(1000 / row['ms'])
        assert row['ratio'] == pytest.approx(rows['config']['ms'] / row['ms'])
    assert [step['name'] for step in rows['fast_data=True']['steps']][1:4:2] == [
        'FastRandomResizedCrop',
        'FastRandAugment',
    ]
    shown = capsys.readouterr().out
    assert '2 made-up photos of 500 x 375 px' in shown and 'FastRandAugment' in shown


def test_data_of_the_config_is_used_and_must_exist_for_other_tasks(tmp_path, monkeypatch):
    from mogacore.analysis.data_speed import measure_data

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match='data'):
        measure_data('detection/mask-rcnn_moganet-small_fpn_1x_coco', 2, 1)
    from mogacore.datasets.digits import write_digits

    write_digits(tmp_path / 'data' / 'digits', ('scenes',), 4, 1)
    config = tmp_path / 'scenes.py'
    config.write_text(
        "_base_ = 'detection/mask-rcnn_moganet-xtiny_fpn_digits'\n"
        f"train_dataloader = dict(dataset=dict(data_root='{tmp_path}/data/digits/scenes'))\n"
    )
    report = measure_data(str(config), 3, 1)
    assert report['images'] == '3 images of the training set'
    (row,) = report['pipelines']
    assert [step['name'] for step in row['steps']] == ['LoadImageFromFile', 'LoadAnnotations', 'PackDetInputs']


@pytest.mark.parametrize('more', [['moganet_xtiny'], ['--checkpoint', 'x.pth'], ['--plot', 'x.png']])
def test_options_of_the_other_modes_are_refused(more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match='--mode data times one config'):
        benchmark.main(['--mode', 'data', 'classification/moganet-small_8xb128_in1k-224', *more])
