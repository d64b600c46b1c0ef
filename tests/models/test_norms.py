"""Both published spellings of the norm settings reach the norms that they name."""

import pytest
from conftest import TINY_ARCH
from torch import nn

from mogacore.errors import UserError
from mogacore.models import MogaNet

STAGES = {f'norm{i}' for i in (1, 2, 3, 4)}


def norm_types(**settings):
    """Types of the norms after the stages, and of all other norms."""
    norms = {name: type(m) for name, m in MogaNet(TINY_ARCH, **settings).named_modules() if hasattr(m, 'running_mean')}
    assert norms.keys() > STAGES
    return {norms[name] for name in STAGES}, {kind for name, kind in norms.items() if name not in STAGES}


@pytest.mark.parametrize('spelling', [dict(cfg=dict(type='SyncBN', requires_grad=True)), dict(type='SyncBN')])
@pytest.mark.parametrize('stem', [True, False])
@pytest.mark.parametrize('conv', [True, False])
def test_stem_is_the_norm_after_a_stage_and_conv_every_other(stem, conv, spelling):
    ((suffix, value),) = spelling.items()
    settings = {f'{part}_norm_{suffix}': value for part, given in (('stem', stem), ('conv', conv)) if given}
    kinds = {True: {nn.SyncBatchNorm}, False: {nn.BatchNorm2d}}
    assert norm_types(**settings) == (kinds[stem], kinds[conv])


def test_arguments_of_a_published_config_reach_the_norms():
    model = MogaNet(TINY_ARCH, stem_norm_cfg=dict(eps=1e-3), conv_norm_cfg=dict(type='BN', requires_grad=False))
    assert model.norm1.eps == 1e-3 and model.norm1.weight.requires_grad
    assert model.blocks1[0].norm1.eps == 1e-5 and not model.blocks1[0].norm1.weight.requires_grad


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(stem_norm_cfg=dict(type='BN'), stem_norm_type='BN'), 'stem_norm_cfg and stem_norm_type set the same'),
        (
            dict(norm_cfg=dict(type='BN'), conv_norm_cfg=dict(type='BN')),
            'norm_cfg and conv_norm_cfg set the same',
        ),
        (dict(conv_norm_type='LN2d'), "conv_norm_type 'LN2d' is unknown: choose from BN"),
        (dict(norm_cfg=dict(type='LN')), "norm_cfg 'LN' is unknown: choose from BN"),
    ],
)
def test_ambiguous_or_unknown_settings_are_user_errors(settings, message):
    with pytest.raises(UserError, match=message):
        MogaNet(TINY_ARCH, **settings)
