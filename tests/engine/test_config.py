import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope

from mogacore.engine.config import (
    enable_tta,
    load_config,
    locate_data,
    prepare_for_device,
    restored_scope,
    show_predictions,
)
from mogacore.errors import UserError

CONFIG = """
data_help = 'write it with tools/make_it.py'
model = dict(type='M', backbone=dict(norm_cfg=dict(type='SyncBN')), heads=[dict(conv_norm_type='SyncBN')])
train_dataloader = dict(dataset=dict(type='RepeatDataset', dataset=dict(type='A', data_root='data/a')))
val_dataloader = dict(dataset=dict(type='ConcatDataset', datasets=[dict(type='B', data_root='data/b', ann_file='x')]))
test_dataloader = dict(dataset=dict(type='B', data_root='data/b'))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
"""


@pytest.fixture
def project(tmp_path):
    """A folder with configs/toy/model.py and data/{a,b}."""
    config = tmp_path / 'configs' / 'toy' / 'model.py'
    config.parent.mkdir(parents=True)
    config.write_text(CONFIG)
    (tmp_path / 'data' / 'a').mkdir(parents=True)
    (tmp_path / 'data' / 'b').mkdir()
    (tmp_path / 'data' / 'b' / 'x').touch()
    return tmp_path


def load(project, **options):
    return load_config(project / 'configs' / 'toy' / 'model.py', options)


def test_options_override_the_file(project):
    assert load(project, **{'optim_wrapper.optimizer.lr': 0.5}).optim_wrapper.optimizer.lr == 0.5


@pytest.mark.parametrize(
    'content, message',
    [
        ('a = (', 'cannot be read'),
        ("_base_ = './none.py'", 'cannot be read'),
        ('a = modle', "cannot be read: name 'modle' is not defined"),
        ('a = 1 / 0', 'cannot be read: division by zero'),
        ('a = [][0]', 'cannot be read: list index out of range'),
        ("a = '\0'", 'cannot be read'),
        ('assert False', 'cannot be read: AssertionError'),
        ('default_scope = None', 'default_scope is None: use one of mmengine, mmpretrain'),
        ("default_scope = ['mmdet']", r"default_scope is \['mmdet'\]: use one of"),
        ("default_scope = '..'", r"default_scope is '\.\.': use one of"),
    ],
)
def test_broken_config_is_reported_in_one_line(tmp_path, content, message):
    path = tmp_path / 'broken.py'
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        load_config(path)
    assert '\n' not in str(error.value)


def test_deeply_nested_options_are_reported(project):
    value = 1
    for _ in range(2000):
        value = [value]
    with pytest.raises(UserError, match=r"--cfg-options \{'a': \[+\.\.\.\]+\} cannot be applied to .*recursion"):
        load(project, a=value)


def test_missing_config_is_reported(tmp_path):
    with pytest.raises(UserError, match=r'none\.py not found'):
        load_config(tmp_path / 'none.py')


def test_data_is_found_next_to_the_configs_from_any_directory(project, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp('elsewhere'))
    cfg = load(project)
    locate_data(cfg, 'train')
    assert cfg.train_dataloader.dataset.dataset.data_root == str(project / 'data' / 'a')
    assert cfg.val_dataloader.dataset.datasets[0].data_root == str(project / 'data' / 'b')
    assert cfg.test_dataloader.dataset.data_root == 'data/b'


def test_data_below_the_current_directory_comes_first(project, tmp_path_factory, monkeypatch):
    here = tmp_path_factory.mktemp('here')
    (here / 'data' / 'b').mkdir(parents=True)
    monkeypatch.chdir(here)
    cfg = load(project)
    locate_data(cfg, 'test')
    assert cfg.test_dataloader.dataset.data_root == str(here / 'data' / 'b')


def test_a_config_beside_its_data_does_not_take_data_of_the_same_name_elsewhere(project, tmp_path_factory, monkeypatch):
    here = tmp_path_factory.mktemp('here')
    shutil.copytree(project / 'data', here / 'data')
    own = project / 'own.py'
    own.write_text(CONFIG)
    monkeypatch.chdir(here)
    cfg = load_config(own)
    locate_data(cfg, 'train')
    assert cfg.train_dataloader.dataset.dataset.data_root == str(project / 'data' / 'a')
    shutil.rmtree(project / 'data')
    cfg = load_config(own)
    locate_data(cfg, 'train')
    assert cfg.train_dataloader.dataset.dataset.data_root == str(here / 'data' / 'a')


def test_a_folder_without_the_annotations_is_not_taken_for_one_that_has_them(project, tmp_path_factory, monkeypatch):
    here = tmp_path_factory.mktemp('here')
    (here / 'data' / 'b').mkdir(parents=True)
    (here / 'data' / 'a').mkdir()
    monkeypatch.chdir(here)
    cfg = load(project)
    locate_data(cfg, 'train')
    assert cfg.train_dataloader.dataset.dataset.data_root == str(here / 'data' / 'a')
    assert cfg.val_dataloader.dataset.datasets[0].data_root == str(project / 'data' / 'b')  # which has x


@pytest.mark.parametrize('missing, kind', [('a', 'data folder data/a'), ('b/x', 'annotation file .*b/x')])
def test_missing_data_is_reported_with_instructions(project, missing, kind):
    path = project / 'data' / missing
    path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=f'{kind} is missing: write it with tools/make_it.py'):
        locate_data(load(project), 'train')


@pytest.mark.skipif(torch.cuda.is_available(), reason='tests the behavior without a GPU')
def test_mixed_precision_without_a_gpu_becomes_cpu_autocast(project):
    cfg = load(project)
    prepare_for_device(cfg, precision='bf16')
    assert cfg.optim_wrapper == dict(type='CpuAmpOptimWrapper', optimizer=dict(type='SGD', lr=0.1))


def test_full_precision_is_unchanged(project):
    cfg = load(project)
    prepare_for_device(cfg)
    assert cfg.optim_wrapper.type == 'OptimWrapper'


@pytest.mark.skipif(torch.cuda.is_available(), reason='tests the behavior without a GPU')
def test_sync_bn_becomes_bn_without_a_gpu(project):
    cfg = load(project)
    prepare_for_device(cfg)
    assert cfg.model.backbone.norm_cfg.type == cfg.model.heads[0].conv_norm_type == 'BN'


def test_show_dir_needs_a_hook_that_draws(project):
    with pytest.raises(UserError, match=r'--show-dir needs default_hooks\.visualization'):
        show_predictions(load(project), 'images')


def test_show_dir_turns_the_hook_on():
    cfg = Config(dict(default_hooks=dict(visualization=dict(type='VisualizationHook', enable=False))))
    show_predictions(cfg, 'images')
    assert cfg.default_hooks.visualization == dict(
        type='ShowPredictionsHook',
        hook=dict(type='VisualizationHook', enable=True, interval=1),
        out_dir=str(Path('images').resolve()),
    )


def test_tta_needs_views(project):
    with pytest.raises(UserError, match='--tta needs tta_model and tta_views'):
        enable_tta(load(project))


@pytest.mark.parametrize(
    'model, steps, before, after',
    [
        ('Mean', ['Load', 'Resize', 'Pad', 'LoadAnnotations', 'Pack'], ['Load'], ['Pad', 'LoadAnnotations', 'Pack']),
        ('Mean', ['Load', 'Pad', 'LoadAnnotations', 'Pack'], ['Load', 'Pad'], ['LoadAnnotations', 'Pack']),
        ('Mean', ['Load', 'Pad', 'Pack'], ['Load', 'Pad'], ['Pack']),
        ('InstanceTTAModel', ['Load', 'Pad', 'Pack'], ['Load'], ['Pad', 'Pack']),
    ],
)
def test_tta_views_replace_steps_of_their_type_or_precede_the_annotations(model, steps, before, after):
    pipeline = [dict(type=name, size=9) if name == 'Resize' else dict(type=name) for name in steps]
    views = [[dict(type='Resize', size=1), dict(type='Resize', size=2)], [dict(type='Flip')]]
    dataset = dict(type='Data', pipeline=pipeline)
    cfg = Config(
        dict(model=dict(type='Model'), tta_model=dict(type=model), tta_views=views,
             test_dataloader=dict(dataset=dataset))
    )  # fmt: skip
    enable_tta(cfg)
    *found, augment = cfg.test_dataloader.dataset.pipeline
    assert [step.type for step in found] == before
    assert augment == dict(type='TestTimeAug', transforms=[*views, *([dict(type=name)] for name in after)])
    assert cfg.model == dict(type=model, module=dict(type='Model'))


@pytest.mark.parametrize(
    'meta_keys, packed', [(['img_id', 'flip'], ('img_id', 'flip', 'flip_direction')), (None, None)]
)
def test_listed_metadata_records_the_flips_of_tta(meta_keys, packed):
    pack = dict(type='Pack') if meta_keys is None else dict(type='Pack', meta_keys=meta_keys)
    dataset = dict(type='Data', pipeline=[dict(type='Load'), pack])
    cfg = Config(
        dict(model=dict(type='Model'), tta_model=dict(type='Mean'), tta_views=[[dict(type='RandomFlip')]],
             test_dataloader=dict(dataset=dataset))
    )  # fmt: skip
    enable_tta(cfg)
    ((step,),) = cfg.test_dataloader.dataset.pipeline[-1].transforms[1:]
    assert step.get('meta_keys') == packed


def test_the_default_scope_is_given_back():
    def names():
        return list(DefaultScope._instance_dict)

    with restored_scope():
        init_default_scope('mmdet')
    assert names() == []
    init_default_scope('mmseg')
    with pytest.raises(ValueError, match='stop'), restored_scope():
        init_default_scope('mmpose')
        raise ValueError('stop')
    assert DefaultScope.get_current_instance().scope_name == 'mmseg' and len(names()) == 1
