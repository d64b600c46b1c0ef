"""Every misspelt key of a config is found and named with the right one; no valid key is refused."""

from copy import deepcopy

import pytest
from conftest import ROOT
from mmengine.config import Config, ConfigDict

from mogacore.engine.check_config import DATA, check_keys
from mogacore.engine.config import load_config
from mogacore.errors import UserError

LEAVES = sorted(path for path in (ROOT / 'configs').glob('*/**/*.py') if '_base_' not in path.parts)
LIBRARIES = {'classification': 'mmpretrain', 'detection': 'mmdet', 'segmentation': 'mmseg', 'pose': 'mmpose'}
# One small config per task.
SMALL = (
    'classification/moganet-xtiny_digits',
    'detection/mask-rcnn_moganet-xtiny_fpn_digits',
    'segmentation/upernet_moganet-xtiny_digits',
    'pose/td-hm_moganet-xtiny_digits',
    'pose/hand3d/internet_moganet-xtiny_interhand3d-synthetic',
    'video_prediction/simvp_moganet_moving-digits',
)
PARTS = (
    'model', 'data_preprocessor', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'val_cfg', 'test_cfg',
    'train_dataloader', 'val_dataloader', 'val_evaluator', 'default_hooks', 'custom_hooks', 'env_cfg', 'log_processor',
    'visualizer', 'randomness', 'auto_scale_lr',
)  # fmt: skip
# Valid words themselves, without the letter in the middle.
OTHER_WORDS = {'men'}


def require(path):
    if LIBRARIES.get(str(path).split('/')[0]):
        pytest.importorskip(LIBRARIES[str(path).split('/')[0]])


def keys_of(value, path=()):
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            if key not in DATA:
                yield from keys_of(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from keys_of(item, (*path, index))


def misspell(cfg, path):
    """The config with a letter missing in the middle of a key, and the misspelt key."""
    content = deepcopy(cfg.to_dict())
    *parents, key = path
    part = content
    for parent in parents:
        part = part[parent]
    wrong = key[: len(key) // 2] + key[len(key) // 2 + 1 :]
    part[wrong] = part.pop(key)
    return Config(ConfigDict(content), filename=cfg.filename, cfg_text=cfg.text), wrong


@pytest.mark.parametrize('name', SMALL)
def test_every_misspelt_key_is_named_with_the_right_one(name):
    require(name)
    cfg = load_config(name)
    check_keys(cfg)
    paths = [path for path in keys_of(cfg.to_dict()) if path[0] in PARTS and path[-1] != 'type']
    paths = [path for path in paths if isinstance(path[-1], str) and len(path[-1]) > 3]
    assert len(paths) > 60
    for path in paths:
        wrong_cfg, wrong = misspell(cfg, path)
        if wrong in OTHER_WORDS:
            continue
        with pytest.raises(UserError) as error:
            check_keys(wrong_cfg)
        assert '.'.join(map(str, (*path[:-1], wrong))) in str(error.value), path
        assert path[-1] in str(error.value).partition(f'{wrong} ')[2], (path, str(error.value))
        assert '\n' not in str(error.value)


def test_every_config_of_the_repository_passes():
    for path in LEAVES:
        require(path.relative_to(ROOT / 'configs').as_posix())
        check_keys(load_config(path))


VIDEO = 'video_prediction/simvp_moganet_moving-digits'


@pytest.mark.parametrize(
    'option, names',
    [
        ({'optim_wraper.optimizer.lr': 1}, ('optim_wraper', 'optim_wrapper')),
        ({'train_cfg.max_epoch': 2}, ('train_cfg.max_epoch', 'max_epochs')),
        ({'workdir': 'here'}, ('workdir', 'work_dir')),
        ({'load_form': 'x.pth'}, ('load_form', 'load_from')),
        ({'allow_missing': ['head.*']}, ('allow_missing', 'load_allow_missing')),
        ({'val_evaluator.data_range': 1}, ('val_evaluator.data_range', 'choose from')),
        ({'model.type': 'SimVPP'}, ('model.type', 'SimVP')),
        ({'syncbn': 'torch'}, ('syncbn', 'sync_bn')),
        ({'vis_backend': []}, ('vis_backend', 'vis_backends')),  # a name that the config's files define
        ({'optim_wrapper.optimizer.lr': 'fast'}, ("optim_wrapper.optimizer.lr is the text 'fast'",)),
        ({'train_cfg.max_epochs': 'two'}, ("train_cfg.max_epochs is the text 'two'",)),
        ({'model.drop_path_rate': 'none'}, ("model.drop_path_rate is the text 'none'",)),
        ({'train_dataloader.batch_size': 0}, ('train_dataloader.batch_size is 0',)),
        ({'model': 3}, ('model is 3: it must be a dict',)),
        ({'model.type': ['SimVP']}, ("model.type is ['SimVP']: it must be the name of a class",)),
        ({'model.type': '.SimVPP'}, ('model.type', '.SimVPP is not registered: did you mean SimVP?')),
        ({'default_hooks.timer.type': [[1]]}, ('default_hooks.timer.type is [[1]]: it must be the name of a class',)),
        ({'allow_unknown_keys': 'model.*'}, ("allow_unknown_keys is 'model.*': use a list of paths",)),
        ({'allow_unknown_keys': [5]}, ('allow_unknown_keys is [5]: use a list of paths',)),
    ],
)
def test_option_of_the_command_line_is_checked(option, names):
    with pytest.raises(UserError) as error:
        check_keys(load_config(VIDEO, option))
    assert all(name in str(error.value) for name in names)


def test_names_of_the_users_own_are_accepted(tmp_path):
    path = tmp_path / 'own.py'
    base = ROOT / 'configs' / f'{VIDEO}.py'
    path.write_text(f"_base_ = '{base}'\nnote = 'mine'\nmax_epoch = 3\ntrain_cfgs = dict(max_epochs=max_epoch)\n"
                    'train_cfg = train_cfgs\n')  # fmt: skip
    cfg = load_config(path)
    assert cfg.train_cfg.max_epochs == 3
    check_keys(cfg)  # train_cfgs resembles train_cfg, but is used
    path.write_text(f"_base_ = '{base}'\ntrain_cfgs = dict(max_epochs=3)\n")
    with pytest.raises(UserError, match='train_cfgs is not a setting: did you mean train_cfg'):
        check_keys(load_config(path))


@pytest.mark.parametrize(
    'text, option, message',
    [
        ('lr = 0.1', {}, r'lr has no effect at the top level: did you mean optim_wrapper\.optimizer\.lr'),
        ('max_epochs = 3', {}, r'max_epochs has no effect .*: did you mean train_cfg\.max_epochs\?'),
        ('', {'batch_size': 3}, r'batch_size has no effect .*: did you mean train_dataloader\.batch_size, val_'),
        ('pieces = []', {}, 'pieces has no effect, since the files of the config have used its value already'),
        ('', {'pieces.0.num': 3}, 'pieces has no effect, since the files'),
        ('model = {5: 1}', {}, r'model\.5 is not a parameter of SimVP'),
        ('default_hooks = {5: None}\nmodel = {None: 1}', {}, r'model\.None is not a parameter of SimVP'),
        ('pieces = []\nnote = dict(pieces=1)', {}, 'pieces has no effect, since the files'),
    ],
)
def test_names_that_nothing_reads_are_reported(text, option, message, tmp_path):
    (tmp_path / 'base.py').write_text(f"_base_ = '{VIDEO}'\npieces = [dict(num=1)]\n")
    path = tmp_path / 'own.py'
    path.write_text(f"_base_ = './base.py'\n{text}\n")
    with pytest.raises(UserError, match=message):
        check_keys(load_config(path, option))


def test_names_of_options_are_no_patterns():
    check_keys(load_config(VIDEO, {'[': 1, '(': 2, '*': 3, 'a\\': 4}))


def test_names_that_the_file_uses_are_accepted(tmp_path):
    (tmp_path / 'base.py').write_text(f"_base_ = '{VIDEO}'\nepochs = 3\n")
    path = tmp_path / 'own.py'
    path.write_text("_base_ = './base.py'\nepochs = 2\nmax_epochs = epochs + 1\n"
                    'train_cfg = dict(max_epochs=max_epochs)\nauthor = "me"\n')  # fmt: skip
    cfg = load_config(path)
    check_keys(cfg)
    assert cfg.train_cfg.max_epochs == 3


def test_heads_in_a_list_need_a_type(tmp_path):
    """In a config, a list replaces that of its base; an option changes one entry."""
    require('detection')
    base = 'detection/cascade-rcnn_moganet-small_fpn_ms-3x_coco'
    path = tmp_path / 'own.py'
    path.write_text(
        f"_base_ = '{ROOT}/configs/{base}.py'\nmodel = dict(roi_head=dict(bbox_head=[dict(num_classes=3)] * 3))\n"
    )
    with pytest.raises(UserError, match=r'model\.roi_head\.bbox_head\.0 has no type: a list replaces that of the base'):
        check_keys(load_config(path))
    options = {f'model.roi_head.bbox_head.{index}.num_classes': 3 for index in range(3)}
    cfg = load_config(base, options)
    check_keys(cfg)
    assert [head.num_classes for head in cfg.model.roi_head.bbox_head] == [3, 3, 3]


def test_listed_keys_are_allowed():
    options = {'model.num_target': 5, 'model.drop_rat': 0.1}
    with pytest.raises(UserError, match=r'model\.num_target .*; model\.drop_rat '):
        check_keys(load_config(VIDEO, options))
    check_keys(load_config(VIDEO, {**options, 'allow_unknown_keys': ['model.*']}))


def test_several_optimizers_are_checked():
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3))
    options = {'optim_wrapper': dict(_delete_=True, constructor='Mine', enc=wrapper, dec=wrapper)}
    check_keys(load_config(VIDEO, options))
    with pytest.raises(UserError, match=r'optim_wrapper\.dec\.clip_gra'):
        check_keys(load_config(VIDEO, {**options, 'optim_wrapper.dec.clip_gra': dict(max_norm=1)}))
