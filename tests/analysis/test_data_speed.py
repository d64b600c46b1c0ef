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


@pytest.mark.parametrize('config, library, images', [
    ('detection/mask-rcnn_moganet-tiny_fpn_1x_coco', 'mmdet', 'photos of 640 x 480 px with 7 objects each'),
    ('segmentation/semantic-fpn_moganet-tiny_80k_ade20k-512x512', 'mmseg', 'photos and class maps of 683 x 512 px'),
    ('pose/td-hm_moganet-tiny_210e_coco-256x192', 'mmpose', 'photos of 640 x 480 px with 2 objects each'),
])  # fmt: skip
def test_data_of_dense_tasks_are_made_up_where_they_are_absent(config, library, images, tmp_path, monkeypatch):
    pytest.importorskip(library)
    from mogacore.analysis.data_speed import measure_data

    monkeypatch.chdir(tmp_path)
    report = measure_data(config, 2, 1, lambda line: None)
    assert report['images'] == f'2 made-up {images}'
    names = [row['name'] for row in report['pipelines']]
    assert names == (['config'] if library == 'mmpose' else ['config', 'fast_data=True'])
    for row in report['pipelines']:
        assert row['steps'][0]['name'].startswith('LoadImage') and row['steps'][1]['ms'] > 0
        assert row['ms'] == pytest.approx(sum(step['ms'] for step in row['steps']))


def test_made_up_objects_pass_the_checks_of_the_data(tmp_path, monkeypatch):
    pytest.importorskip('mmdet')
    from mogacore.analysis.made_up_data import make_up
    from mogacore.datasets.checks import Expected, Sample, find_problems
    from mogacore.engine.config import leaves, load_config, use_library

    for config in ('detection/mask-rcnn_moganet-tiny_fpn_1x_coco', 'pose/td-hm_moganet-tiny_210e_coco-256x192'):
        cfg = load_config(config)
        use_library(cfg)
        dataset = next(leaves(cfg.train_dataloader))
        make_up(dataset, cfg.default_scope, 3, tmp_path / cfg.default_scope)
        assert find_problems(dataset, Expected.of(cfg.model), Sample()) == []


def test_data_of_the_config_are_used(tmp_path, monkeypatch):
    from mogacore.analysis.data_speed import measure_data

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match='data'):
        measure_data('video_prediction/simvp_gsta_50e_taxibj', 2, 1)
    from mogacore.datasets.digits import write_digits

    write_digits(tmp_path / 'data' / 'digits', ('scenes',), 4, 1)
    config = tmp_path / 'scenes.py'
    config.write_text(
        "_base_ = 'detection/mask-rcnn_moganet-xtiny_fpn_digits'\n"
        f"train_dataloader = dict(dataset=dict(data_root='{tmp_path}/data/digits/scenes'))\n"
    )
    report = measure_data(str(config), 3, 1)
    assert report['images'] == '3 images of the training set'
    row = report['pipelines'][0]
    assert [step['name'] for step in row['steps']] == ['LoadImageFromFile', 'LoadAnnotations', 'PackDetInputs']


@pytest.mark.parametrize(
    'more',
    [
        ['--checkpoint', 'x.pth'], ['--plot', 'x.png'], ['--image', 'x.png'], ['--backends', 'fused'],
        ['--shape', '3', '64', '64'], ['--batch-size', '8'], ['--sizes', '64'], ['--batch-sizes', '1', '2'],
        ['--dtype', 'fp32'], ['--device', 'cpu'], ['moganet_xtiny'],
    ],
)  # fmt: skip
def test_options_of_the_other_modes_are_refused(more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = f'{" ".join(more)} has no effect with --mode data' if more[1:] else '--mode data times one config'
    with pytest.raises(UserError, match=message):
        benchmark.main(['--mode', 'data', 'classification/moganet-small_8xb128_in1k-224', *more])
