"""Short names of configs and the location of data, in a checkout and in an installed package."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from mogacore import locations
from mogacore.engine.config import load_config, locate_data
from mogacore.engine.rescale import follow_length
from mogacore.errors import UserError
from mogacore.locations import config_names, data_folder, find_config, is_config_name, project

DIGITS = 'classification/moganet-xtiny_digits'
TOY = """
data_help = 'bring it'
train_dataloader = dict(dataset=dict(type='A', data_root='data/a'))
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty current folder."""
    folder = tmp_path / 'elsewhere'
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Folder of a fake installed package with one config in .mim."""
    package = tmp_path / 'site-packages' / 'mogacore'
    config = package / '.mim' / 'configs' / 'toy' / 'model.py'
    config.parent.mkdir(parents=True)
    config.write_text(TOY)
    monkeypatch.setattr(locations, 'PACKAGE', package)
    return package


@pytest.mark.parametrize('name', [DIGITS, f'{DIGITS}.py', f'configs/{DIGITS}', f'configs/{DIGITS}.py', Path(DIGITS)])
def test_short_name_is_found_in_the_checkout_from_anywhere(name, elsewhere):
    assert find_config(name) == ROOT / 'configs' / f'{DIGITS}.py'


def test_every_config_has_a_short_name(elsewhere):
    leaves = {path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts}
    assert {find_config(name) for name in config_names()} == leaves
    assert all(is_config_name(name) for name in config_names())


def test_existing_path_takes_precedence_over_a_short_name(elsewhere):
    path = elsewhere / f'{DIGITS}.py'
    path.parent.mkdir()
    path.write_text(TOY)
    assert find_config(f'{DIGITS}.py').resolve() == path
    assert find_config(DIGITS).resolve() == path
    assert load_config(DIGITS).data_help == 'bring it'


def test_configs_of_the_current_folder_take_precedence_over_the_checkout(elsewhere):
    path = elsewhere / 'configs' / f'{DIGITS}.py'
    path.parent.mkdir(parents=True)
    path.write_text(TOY)
    assert find_config(DIGITS).resolve() == path
    assert find_config('detection/mask-rcnn_moganet-xtiny_fpn_digits').is_relative_to(ROOT)


@pytest.mark.parametrize(
    'name, near',
    [
        ('detection/mask-rcnn_moganet-xtiny_fpn_digit', 'did you mean detection/mask-rcnn_moganet-xtiny_fpn_digits'),
        ('configs/classification/moganet-xtiny_digitz.py', f'did you mean {DIGITS}'),
        ('moganet-xtiny_digits', f'did you mean {DIGITS}'),  # without its folder
        ('qqq', f'give the path of a file, or a short name such as {DIGITS}'),
    ],
)
def test_wrong_name_is_a_one_line_error_with_the_nearest_names(name, near, elsewhere):
    with pytest.raises(UserError) as error:
        load_config(name)
    assert str(error.value).startswith(f'config {name} not found: {near}')
    assert '\n' not in str(error.value)


def test_existing_file_that_is_not_a_config_is_rejected(elsewhere):
    (elsewhere / 'weights.pth').touch()
    with pytest.raises(UserError, match=r'config weights\.pth is not a Python config'):
        load_config('weights.pth')


@pytest.mark.parametrize(
    'name, is_config',
    [('my.py', True), (DIGITS, True), ('moganet_small', False), ('timm:hf-hub:org/model', False), ('resnet18', False)],
)
def test_config_names_differ_from_network_names(name, is_config):
    assert is_config_name(name) is is_config


def test_installed_package_has_configs_and_writes_data_to_the_current_folder(installed, elsewhere):
    assert project() == installed / '.mim'
    assert find_config('toy/model') == installed / '.mim' / 'configs' / 'toy' / 'model.py'
    assert data_folder('digits') == Path('data/digits')


def test_checkout_keeps_its_data_in_one_place(elsewhere):
    assert project() == ROOT
    assert data_folder('digits') == ROOT / 'data' / 'digits'


def test_installed_config_reads_data_from_the_current_folder_only(installed, elsewhere):
    (installed / '.mim' / 'data' / 'a').mkdir(parents=True)
    cfg = load_config('toy/model')
    cfg.val_dataloader = cfg.train_dataloader
    with pytest.raises(UserError, match='data folder data/a is missing: bring it'):
        locate_data(cfg.copy(), 'train')
    (elsewhere / 'data' / 'a').mkdir(parents=True)
    locate_data(cfg, 'train')
    assert cfg.train_dataloader.dataset.data_root == str(elsewhere / 'data' / 'a')


def test_shell_scripts_find_configs_without_torch(elsewhere):
    code = "import sys, runpy; sys.argv = ['x', 'a/b']; runpy.run_module('mogacore.locations', run_name='__main__')"
    blocker = "import sys; sys.modules.update(dict.fromkeys(('torch', 'mmengine', 'numpy'))); "
    done = subprocess.run(
        [sys.executable, '-c', blocker + code.replace('a/b', DIGITS)], capture_output=True, text=True,
        env={'PYTHONPATH': str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(ROOT / 'configs' / f'{DIGITS}.py')


@pytest.mark.parametrize('base', [DIGITS, f'{DIGITS}.py', f'configs/{DIGITS}', str(ROOT / 'configs' / f'{DIGITS}.py')])
def test_base_of_a_config_outside_the_project_may_be_a_short_name(base, tmp_path, elsewhere):
    own = tmp_path / 'own.py'
    own.write_text(f'_base_ = {base!r}\ntrain_cfg = dict(max_epochs=9)')
    cfg = load_config(own)
    expected = load_config(DIGITS, {'train_cfg.max_epochs': 9})
    assert cfg.to_dict() == expected.to_dict()
    assert follow_length(cfg) == follow_length(expected, {'train_cfg.max_epochs': 9}) != []


def test_parts_of_a_recipe_may_be_bases_by_short_name(tmp_path, elsewhere):
    parts = ('models/moganet', 'datasets/digits', 'schedules/adamw_5e', 'default_runtime')
    bases = [f'classification/_base_/{part}' for part in parts]
    (tmp_path / 'own.py').write_text(f'_base_ = {bases}\nhelp = _base_.data_help')
    assert load_config(tmp_path / 'own.py').help == load_config(DIGITS).data_help


def test_file_beside_a_config_comes_before_a_short_name(tmp_path, elsewhere):
    (tmp_path / 'classification').mkdir()
    (tmp_path / f'{DIGITS}.py').write_text(TOY)
    (tmp_path / 'own.py').write_text(f"_base_ = '{DIGITS}.py'")
    assert load_config(tmp_path / 'own.py').data_help == 'bring it'


@pytest.mark.parametrize(
    'base, hint',
    [
        ('detection/moganet-xtiny_fashion-mnis', 'did you mean classification/moganet-xtiny_fashion-mnist'),
        ('./none.py', 'give a path'),
    ],
)
def test_missing_base_is_reported_with_the_nearest_name(base, hint, tmp_path):
    (tmp_path / 'own.py').write_text(f'_base_ = {base!r}')
    with pytest.raises(UserError, match=rf'own\.py cannot be read: _base_ .* not found in {tmp_path}: {hint}'):
        load_config(tmp_path / 'own.py')
