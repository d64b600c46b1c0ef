"""Parameter groups: the published ones, and invalid settings."""

import pytest
import torch
from conftest import ROOT, TINY_ARCH
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

import mogacore.registry  # noqa: F401, registers the constructor
from mogacore.engine.config import build_on_meta
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
        (dict(no_decay_name=['norm']), "no setting 'no_decay_name': choose from layer_decay_rate"),
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
