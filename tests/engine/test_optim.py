"""Parameter groups: the published ones, and invalid settings."""

import pytest
import torch
from conftest import ROOT, TINY_ARCH
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from torch import nn
from toy_runs import toy_run

import mogacore.registry  # noqa: F401, registers the constructor
from mogacore.engine.config import build_on_meta, load_config
from mogacore.engine.optim import RECIPE_NAMES, check_paramwise
from mogacore.engine.runner import dry_run
from mogacore.errors import UserError
from mogacore.models import MogaNet

CASCADE = ROOT / 'configs' / 'detection' / 'cascade-mask-rcnn_moganet-base_fpn_4conv1fc-giou_ms-3x_coco.py'


def groups_of(model, wrapper):
    """Map from parameter name to (learning rate, weight decay)."""
    optimizer = build_optim_wrapper(model, wrapper).optimizer
    names = {id(param): name for name, param in model.named_parameters()}
    assert sum(len(group['params']) for group in optimizer.param_groups) == len(names)
    for group in optimizer.param_groups:
        assert group['param_names'] == [names[id(param)] for param in group['params']]
    return {
        names[id(param)]: (group['lr'], group['weight_decay'])
        for group in optimizer.param_groups
        for param in group['params']
    }


def published_multiplier(name):
    """The published layer-decay multipliers as a table."""
    if not name.startswith('backbone.') or name.startswith('backbone.norm'):
        return 1.0
    _, part, *rest = name.split('.')
    if part == 'blocks3':
        table = [0.107374, 0.134218, 0.167772, 0.209715, 0.262144, 0.327680, 0.409600, 0.512000]
        return table[int(rest[0]) // 2] if int(rest[0]) < 16 else 0.640000
    return {
        'patch_embed1': 0.054976, 'blocks1': 0.085899, 'patch_embed2': 0.107374, 'blocks2': 0.107374,
        'patch_embed3': 0.134218, 'patch_embed4': 0.8, 'blocks4': 0.8,
    }[part]  # fmt: skip


def test_layer_decay_of_cascade_base_is_the_published_one():
    pytest.importorskip('mmdet')
    cfg = Config.fromfile(CASCADE)
    model = build_on_meta(cfg).requires_grad_(True)
    found = groups_of(model, cfg.optim_wrapper)
    for name, param in model.named_parameters():
        rate, weight_decay = found[name]
        assert rate == pytest.approx(1e-4 * published_multiplier(name), rel=1e-5), name
        is_free = name.endswith('.bias') or param.squeeze().ndim <= 1
        assert weight_decay == (0.0 if is_free else 0.05), name
    assert found['backbone.blocks1.0.mlp.decompose.weight'][1] == 0
    assert found['backbone.blocks1.0.mlp.fc1.weight'][1] == 0.05


def test_no_decay_names_exempt_scales_and_norms_but_not_the_norms_of_the_stem():
    pytest.importorskip('mmdet')
    cfg = Config.fromfile(ROOT / 'configs' / 'detection' / 'retinanet_moganet-tiny_fpn_1x_coco.py')
    model = build_on_meta(cfg).requires_grad_(True)
    found = groups_of(model, cfg.optim_wrapper)
    free = {name for name, (_, weight_decay) in found.items() if weight_decay == 0}
    assert free == {name for name in found if 'layer_scale' in name or 'scale' in name or 'norm' in name}
    assert 'backbone.patch_embed1.projection.1.weight' not in free
    assert {rate for rate, _ in found.values()} == {1e-4}


def wrapper(**paramwise):
    return dict(
        type='OptimWrapper', constructor='MogaNetOptimWrapperConstructor',
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1), paramwise_cfg=paramwise,
    )  # fmt: skip


def test_frozen_parameters_are_left_out():
    model = MogaNet(TINY_ARCH, frozen_stages=0)
    optimizer = build_optim_wrapper(model, wrapper(no_decay_vectors=True)).optimizer
    names = [name for group in optimizer.param_groups for name in group['param_names']]
    assert names and not any(name.startswith(('patch_embed1', 'blocks1', 'norm1')) for name in names)


@pytest.mark.parametrize(
    'paramwise, message',
    [
        (dict(no_decay_name=['norm']), "no setting 'no_decay_name': did you mean no_decay_names"),
        (dict(layer_decay_rate=1.5), 'layer_decay_rate 1.5 is out of range'),
        (dict(layer_decay_rate=0.8), 'needs a backbone with get_layer_depth'),
    ],
)
def test_invalid_settings_are_reported(paramwise, message):
    with pytest.raises(UserError, match=message):
        build_optim_wrapper(nn.Linear(2, 2), wrapper(**paramwise))


@pytest.mark.parametrize('arch, depths', [('xtiny', {0, *range(2, 8), 12, 13}), ('large', {0, *range(2, 14)})])
def test_layer_depths_of_a_model_size(arch, depths):
    with torch.device('meta'):
        model = MogaNet(arch)
    found = [model.get_layer_depth(f'backbone.{name}', 'backbone.') for name, _ in model.named_parameters()]
    assert set(found) == {(depth, 14) for depth in depths}


class Parts(nn.Module):
    """A backbone with a norm and a layer scale, and a head."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential()
        self.backbone.conv = nn.Conv2d(2, 2, 1)
        self.backbone.norm = nn.BatchNorm2d(2)
        self.backbone.layer_scale = nn.ParameterList([nn.Parameter(torch.ones(1, 2, 1, 1))])
        self.head = nn.Linear(2, 2)


# Weight decay of each recipe without the rule for the backbone.
RECIPES = {
    'adamw_300e': dict(no_decay_names=['norm', 'bias', 'layer_scale', 'scale']),
    'adamw_5e': dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0,
        custom_keys={'layer_scale': dict(decay_mult=0.0), 'scale': dict(decay_mult=0.0)},
    ),
    'adamw_310e_timm': dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
}  # fmt: skip


@pytest.mark.parametrize('schedule', RECIPES)
def test_a_rate_for_the_backbone_changes_only_rates(schedule):
    cfg = Config.fromfile(ROOT / 'configs' / 'classification' / '_base_' / 'schedules' / f'{schedule}.py')
    assert cfg.optim_wrapper.paramwise_cfg == RECIPES[schedule]
    before = groups_of(Parts(), cfg.optim_wrapper)
    cfg.merge_from_dict({'optim_wrapper.paramwise_cfg.custom_keys.backbone': dict(lr_mult=0.1)})
    after = groups_of(Parts(), cfg.optim_wrapper)
    lr, decay = cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.optimizer.weight_decay
    free = ('.norm.', '.bias') if schedule == 'adamw_310e_timm' else ('.norm.', '.bias', 'layer_scale')
    for name, (rate, weight_decay) in after.items():
        assert rate == pytest.approx(lr * 0.1 if name.startswith('backbone') else lr), name
        assert weight_decay == before[name][1] == (0 if any(part in name for part in free) else decay), name


def test_the_longest_name_with_a_multiplier_decides_about_it():
    custom_keys = {'backbone': dict(lr_mult=0.1, decay_mult=0.5), 'backbone.conv': dict(lr_mult=0.3)}
    found = groups_of(Parts(), wrapper(custom_keys=custom_keys, norm_decay_mult=0.0))
    assert found['backbone.conv.weight'] == pytest.approx((0.3, 0.05))
    assert found['backbone.norm.weight'] == pytest.approx((0.1, 0))
    assert found['head.weight'] == (1.0, 0.1)


def test_other_settings_of_mmengine_have_its_meaning():
    settings = dict(bias_lr_mult=2.0, bias_decay_mult=0.5, norm_decay_mult=0.1, flat_decay_mult=0.2)
    theirs = build_optim_wrapper(Parts(), dict(wrapper(**settings), constructor='DefaultOptimWrapperConstructor'))
    expected = [(group['lr'], group['weight_decay']) for group in theirs.optimizer.param_groups]
    names = [name for name, _ in Parts().named_parameters()]
    assert groups_of(Parts(), wrapper(**settings)) == dict(zip(names, expected, strict=True))


@pytest.mark.parametrize('constructor', ['MogaNetOptimWrapperConstructor', 'DefaultOptimWrapperConstructor', None])
@pytest.mark.parametrize(
    'paramwise, message',
    [
        (dict(custom_keys={'backbon.norm': dict(lr_mult=0.1)}),
         "custom_keys has 'backbon.norm', which is part of no parameter's name: did you mean 'backbone.norm'?"),
        (dict(custom_keys={'backbone': dict(lr_mul=0.1)}),
         "paramwise_cfg.custom_keys.backbone has no setting 'lr_mul': did you mean lr_mult?"),
        (dict(custom_keys=['backbone']), 'give a dict such as'),
        (dict(norm_decay=0.0), "has no setting 'norm_decay': did you mean norm_decay_mult?"),
        (dict(rate=0.5), "has no setting 'rate': choose from "),
    ],
)  # fmt: skip
def test_a_misspelt_name_or_setting_is_refused(constructor, paramwise, message):
    with pytest.raises(UserError) as error:
        check_paramwise(dict(wrapper(**paramwise), constructor=constructor), Parts())
    assert message in str(error.value)


def test_a_misspelt_name_without_decay_is_refused():
    for names in (['norm', 'nrom'], 'nrom'):
        with pytest.raises(UserError, match=r"no_decay_names has 'nrom', .* did you mean 'norm'"):
            build_optim_wrapper(Parts(), wrapper(no_decay_names=names))
    found = groups_of(Parts(), wrapper(no_decay_names='norm'))
    assert {name for name, (_, decay) in found.items() if not decay} == {'backbone.norm.weight', 'backbone.norm.bias'}


def test_settings_of_the_optimizer_are_accepted_for_a_part_by_mmengine():
    settings = dict(custom_keys={'head': dict(lr_mult=2.0, eps=1e-3)})
    check_paramwise(dict(wrapper(**settings), constructor=None), Parts())
    check_paramwise(dict(wrapper(mine=1), constructor=Parts), Parts())  # a constructor with settings of its own


def test_a_misspelt_name_is_refused_in_training_and_dry_run(tmp_path):
    options = {'optim_wrapper.paramwise_cfg.custom_keys.baias': dict(lr_mult=0.1)}
    with pytest.raises(UserError, match=r"'baias', which .* did you mean 'bias'") as error:
        toy_run(tmp_path, 'run', **{name.replace('.', '__'): value for name, value in options.items()})
    with pytest.raises(UserError) as dry:
        dry_run(str(tmp_path / 'run.py'), work_dir=str(tmp_path / 'dry'), cfg_options=options)
    assert str(dry.value) == str(error.value)


def test_every_name_in_a_config_is_part_of_a_parameters_name():
    """Or of a recipe that configs of other models share."""
    checked = set()
    for path in sorted((ROOT / 'configs').glob('*/**/*.py')):
        cfg = Config.fromfile(path)
        if 'model' in cfg and cfg.get('optim_wrapper', {}).get('paramwise_cfg'):
            names = {*cfg.optim_wrapper.paramwise_cfg.get('no_decay_names', ())}
            names |= set(cfg.optim_wrapper.paramwise_cfg.get('custom_keys', ()))
            if others := frozenset(names - set(RECIPE_NAMES)):
                pytest.importorskip('mmdet')
                if others not in checked:
                    keys = [key for key, _ in build_on_meta(load_config(path)).named_parameters()]
                    assert all(any(name in key for key in keys) for name in others), path
                checked.add(others)


@pytest.mark.parametrize('constructor', ['DefaultOptimWrapperConstructor', 'MogaNetOptimWrapperConstructor'])
def test_parameters_are_logged_in_one_line_per_setting(constructor, tmp_path):
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(50)))
    model[0].requires_grad_(False)
    logger = MMLogger.get_instance(tmp_path.name, log_file=str(tmp_path / 'log.txt'), log_level='INFO')
    settings = wrapper(bias_decay_mult=0.0, custom_keys={'49': dict(lr_mult=0.5)})
    build_optim_wrapper(model, dict(settings, constructor=constructor))
    logger.info('the end')
    lines = [line.partition('INFO - ')[2] for line in (tmp_path / 'log.txt').read_text().splitlines()]
    lr, decay = settings['optimizer']['lr'], settings['optimizer']['weight_decay']
    assert f'48 parameters with lr {lr:g}, weight decay {decay:g}: 1.weight, 2.weight, 3.weight and 45 more' in lines
    assert f'48 parameters with lr {lr:g}, weight decay 0: 1.bias, 2.bias, 3.bias and 45 more' in lines
    assert '2 parameters frozen: 0.weight, 0.bias' in lines
    assert len(lines) <= 6 and lines[-1] == 'the end'
