"""The small comparison: equal search, no choice by the test set, no run repeated."""

import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from conftest import ROOT, TINY_ARCH

pytest.importorskip('mmpretrain')

from mogacore.datasets.digits import write_digits
from mogacore.engine.config import load_config
from mogacore.errors import UserError
from mogacore.zoo import compare

CONFIGS = ROOT / 'configs' / 'classification'


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A folder with the digits and configs of two small networks."""
    folder = tmp_path_factory.mktemp('comparison')
    write_digits(folder / 'data' / 'digits', parts=('classification',))
    for name, width in (('wide', 32), ('narrow', 16)):
        arch = dict(TINY_ARCH, embed_dims=(8, 8, 16, width))
        (folder / f'{name}_digits.py').write_text(
            f"_base_ = '{CONFIGS / 'moganet-xtiny_digits.py'}'\n"
            f'model = dict(backbone=dict(arch=dict(_delete_=True, **{arch})), head=dict(in_channels={width}))\n'
            'train_dataloader = dict(dataset=dict(dataset=dict(indices=200)))\n'
        )
    return folder


def compare_alone(folder, *arguments, **settings):
    """Rows and progress of a comparison in a new process: one cannot fork after backward passes of other tests."""
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        return pool.submit(_compare, folder, *arguments, **settings).result()


def _compare(folder, *arguments, **settings):
    os.chdir(folder)
    seen = []
    rows = compare.compare(*arguments, progress=lambda done, total, name: seen.append((done, total)), **settings)
    return rows, seen


def test_every_run_is_done_once_and_the_best_rate_of_the_search_is_used(project, monkeypatch):
    monkeypatch.chdir(project)
    configs = sorted(project.glob('*_digits.py'))
    settings = dict(epochs=2, rates=(1e-6, 3e-3), seeds=(0, 1), jobs=2)
    rows, seen = compare_alone(project, configs, 'work', **settings)
    assert seen == [(number, 8) for number in range(1, 9)]
    assert [row.name for row in rows] == ['narrow', 'wide']
    results = {path: json.loads(path.read_text()) for path in Path('work').rglob('result.json')}
    assert len(results) == 8 and not list(Path('work').rglob('*.pth'))
    for row in rows:
        own = [result for result in results.values() if Path(result['config']).stem == f'{row.name}_digits']
        search = {result['rate']: result['accuracy'] for result in own if result['is_search']}
        assert search == row.rates and row.rate == max(search, key=search.get)
        finals = [result for result in own if not result['is_search']]
        assert [r['accuracy'] for r in sorted(finals, key=lambda r: r['seed'])] == row.accuracies
        assert {result['rate'] for result in finals} == {row.rate} and {result['seed'] for result in finals} == {0, 1}
    again = compare.compare(configs, 'work', **settings)
    assert again == rows and {path: json.loads(path.read_text()) for path in results} == results
    # A rerun in another work dir gives the same row.
    ((repeated,), _) = compare_alone(project, configs[:1], 'again', **settings)
    assert abs(repeated.mean - rows[0].mean) <= max(rows[0].spread, 1.0)


@pytest.mark.parametrize('is_search', [True, False])
def test_the_search_uses_training_images_only_and_holds_out_a_fold(project, monkeypatch, is_search):
    monkeypatch.chdir(project)
    cfg = load_config(CONFIGS / 'resnet18_digits.py')
    cfg = compare.derive(cfg, compare.Run('x', 0.01, 0, 7, is_search))
    train, val = cfg.train_dataloader.dataset, cfg.val_dataloader.dataset
    assert train.data_prefix == 'train' and train.type == 'CustomDataset'
    if is_search:
        assert val.data_prefix == 'train' and not set(train.indices) & set(val.indices)
        assert len(train.indices) + len(val.indices) == 1442 and len(val.indices) == 289
        assert val.pipeline == load_config(CONFIGS / 'resnet18_digits.py').val_dataloader.dataset.pipeline
    else:
        assert val.data_prefix == 'val' and 'indices' not in train
    assert cfg.optim_wrapper.optimizer.lr == 0.01 and cfg.train_cfg.max_epochs == cfg.train_cfg.val_interval == 7
    assert cfg.param_scheduler[1].end == 7 and cfg.param_scheduler[1].T_max == 6


@pytest.mark.parametrize('is_search', [True, False])
def test_runs_can_use_a_part_of_the_training_set(project, monkeypatch, is_search):
    monkeypatch.chdir(project)
    run = compare.Run('x', 0.01, 0, 7, is_search, images=100)
    cfg = compare.derive(load_config(CONFIGS / 'resnet18_digits.py'), run)
    used = set(cfg.train_dataloader.dataset.indices) | set(cfg.val_dataloader.dataset.get('indices', ()))
    assert used == set(range(100)) and '100images' in run.folder
    for images in (2000, -1):
        with pytest.raises(UserError, match=f'{images} images are invalid: choose from 1 to 1442'):
            compare.derive(
                load_config(CONFIGS / 'resnet18_digits.py'), compare.Run('x', 0.01, 0, 7, is_search, images=images)
            )
    with pytest.raises(UserError, match='4 images are too few'):
        compare.compare([], 'few', epochs=2, images=4)


@pytest.mark.parametrize('settings, message', [
    (dict(jobs=0), '--jobs 0 is out of range: give 1 or more'),
    (dict(threads=-1), '--threads -1 is out of range'),
    (dict(epochs=0), '--epochs 0 is out of range'),
    (dict(rates=(0.1, -1.0)), '--rates 0.1 -1 are not all positive: correct them'),
])  # fmt: skip
def test_settings_out_of_range_are_refused_before_anything_is_trained(settings, message, tmp_path):
    with pytest.raises(UserError, match=message):
        compare.compare([CONFIGS / 'resnet18_digits.py'], tmp_path / 'out', **{'epochs': 1, **settings})
    assert not (tmp_path / 'out').exists()


def test_a_failed_run_is_reported_with_its_last_line(project, monkeypatch):
    monkeypatch.chdir(project)
    (project / 'broken.py').write_text(
        f"_base_ = '{CONFIGS / 'moganet-xtiny_digits.py'}'\nmodel = dict(backbone=dict(arch='huge'))\n"
    )
    ending = r"failed \(exit code [12]\): .*arch 'huge' is unknown.* \(see .*output\.txt\)"
    with pytest.raises(UserError, match=rf'run broken/search_.* {ending}'):
        compare.compare([project / 'broken.py'], 'broken', epochs=2, rates=(1e-3,))


def test_tables_and_plot(tmp_path):
    rows = [
        compare.Row('a', 1_000_000, 2_000_000, {0.1: 50.0}, 0.1, [90.0, 92.0], 3.0),
        compare.Row('moganet', 2_000_000, 3_000_000, {0.1: 50.0}, 0.1, [95.0, 95.0], 4.0),
    ]
    lines = compare.markdown(rows).splitlines()
    assert lines[2].startswith('| moganet | 2.00 | 3.0 | 0.1 | 95.00 % | 0.00 |')
    assert '91.00 % | 1.41 | 90.00 to 92.00 | 3 |' in lines[3]
    compare.draw(rows, 'title', tmp_path / 'a.png')
    assert (tmp_path / 'a.png').read_bytes()[:4] == b'\x89PNG'


def test_both_sets_have_the_same_backbones():
    sets = ('digits', 'fashion-mnist')
    names = [{path.stem.rpartition('_')[0] for path in CONFIGS.glob(f'*_{data}.py')} for data in sets]
    assert names[0] == names[1] and {'moganet-xtiny', 'moganet-tiny', 'resnet18', 'deit-tiny'} < names[0]
