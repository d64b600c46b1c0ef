import pytest
import torch
from conftest import fill_by_name

import mogacore
from mogacore.errors import UserError
from mogacore.models import MogaNet, MogaNetClassifier


def test_models_are_listed_from_small_to_large():
    names = mogacore.list_models()
    assert names == [f'moganet_{size}' for size in ('xtiny', 'tiny', 'small', 'base', 'large', 'xlarge')]


def test_model_by_name_gives_logits():
    model = mogacore.create_model('moganet_xtiny', num_classes=7).eval()
    assert isinstance(model, MogaNetClassifier)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)


def test_features_only_returns_the_four_maps():
    model = mogacore.create_model('moganet_xtiny', features_only=True)
    assert type(model) is MogaNet
    assert [m.shape[1] for m in model(torch.randn(1, 3, 64, 64))] == [32, 64, 96, 192]


def test_settings_are_passed_on():
    model = mogacore.create_model('moganet_xtiny', attn_force_fp32=True, in_channels=1)
    assert model.blocks1[0].attn.attn_force_fp32
    assert model.patch_embed1.projection[0].in_channels == 1


@pytest.mark.parametrize('features_only', [False, True])
def test_checkpoint_is_loaded(tmp_path, features_only):
    trained = fill_by_name(mogacore.create_model('moganet_xtiny'))
    torch.save({'author': 'MogaNet', 'state_dict': trained.state_dict()}, tmp_path / 'weights.pth.tar')
    model = mogacore.create_model('moganet_xtiny', checkpoint=tmp_path / 'weights.pth.tar', features_only=features_only)
    state = model.state_dict()
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in state.items())


def test_checkpoint_of_another_size_is_refused(tmp_path):
    torch.save(mogacore.create_model('moganet_tiny').state_dict(), tmp_path / 'tiny.pth')
    with pytest.raises(UserError, match='patch_embed3'):
        mogacore.create_model('moganet_xtiny', checkpoint=tmp_path / 'tiny.pth')


def test_unknown_name_is_refused():
    with pytest.raises(UserError, match="'moganet_huge' is unknown: choose from moganet_xtiny"):
        mogacore.create_model('moganet_huge')


@pytest.mark.parametrize('num_classes', [3, 1000, 0])
def test_a_new_head_keeps_its_values_and_everything_else_is_loaded(num_classes, tmp_path):
    trained = fill_by_name(mogacore.create_model('moganet_xtiny'))
    torch.save(trained.state_dict(), tmp_path / 'w.pth')
    settings = dict(num_classes=num_classes, checkpoint=tmp_path / 'w.pth', new_head=True)
    torch.manual_seed(5)
    head = mogacore.create_model('moganet_xtiny', num_classes).head.state_dict()
    torch.manual_seed(5)
    model = mogacore.create_model('moganet_xtiny', **settings)
    own, others = model.state_dict(), trained.state_dict()
    assert all(torch.equal(own[f'head.{name}'], value) for name, value in head.items())
    assert all(torch.equal(value, others[name]) for name, value in own.items() if not name.startswith('head.'))
    torch.save({name: value for name, value in others.items() if 'norm4' not in name}, tmp_path / 'w.pth')
    with pytest.raises(UserError, match='4 missing: norm4'):
        mogacore.create_model('moganet_xtiny', **settings)


def test_a_head_of_another_size_names_the_setting(tmp_path):
    torch.save(mogacore.create_model('moganet_xtiny').state_dict(), tmp_path / 'w.pth')
    with pytest.raises(UserError, match='pass new_head=True') as error:
        mogacore.create_model('moganet_xtiny', num_classes=3, checkpoint=tmp_path / 'w.pth')
    assert 'allow_missing' not in str(error.value)


@pytest.mark.parametrize('features_only', [False, True])
def test_first_convolution_is_adapted_to_the_channels(features_only, tmp_path):
    """A gray image has the features of the repeated one; for five channels, the weights are repeated in turn."""
    trained = fill_by_name(mogacore.create_model('moganet_xtiny')).eval()
    torch.save(trained.state_dict(), tmp_path / 'w.pth')
    settings = dict(checkpoint=tmp_path / 'w.pth', features_only=features_only)
    gray = mogacore.create_model('moganet_xtiny', in_chans=1, **settings).eval()
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        found, expected = (model.forward_intermediates(image)[0] for model, image in
                           ((gray, x), (trained, x.repeat(1, 3, 1, 1))))  # fmt: skip
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3)
    five = mogacore.create_model('moganet_xtiny', in_chans=5, **settings).patch_embed1.projection[0].weight
    weight = trained.patch_embed1.projection[0].weight
    for i in range(5):
        assert torch.allclose(five[:, i], weight[:, i % 3] * 3 / 5)


def test_adapted_weights_keep_the_other_checks(tmp_path, caplog):
    trained = mogacore.create_model('moganet_xtiny')
    state = trained.state_dict()
    state['patch_embed1.projection.0.weight'] = torch.zeros(16, 3, 5, 5)
    torch.save(state, tmp_path / 'w.pth')
    with pytest.raises(UserError, match=r'1 misshapen .*patch_embed1.projection.0.weight \(16, 3, 5, 5\)'):
        mogacore.create_model('moganet_xtiny', in_chans=1, checkpoint=tmp_path / 'w.pth')
    state['patch_embed1.projection.0.weight'] = torch.full((16, 3, 3, 3), torch.nan)
    torch.save(state, tmp_path / 'w.pth')
    with pytest.raises(UserError, match=r'patch_embed1.projection.0.weight is nan'):
        mogacore.create_model('moganet_xtiny', in_chans=1, checkpoint=tmp_path / 'w.pth')
    from mogacore.checkpoint import load_into

    with pytest.raises(UserError, match=r'1 misshapen'):  # only create_model adapts
        load_into(mogacore.create_model('moganet_xtiny', in_chans=1), trained.state_dict())


def test_names_of_the_same_setting_must_agree():
    assert mogacore.create_model('moganet_xtiny', in_chans=2, in_channels=2).in_chans == 2
    with pytest.raises(UserError, match='in_chans 2 and in_channels 4 differ'):
        mogacore.create_model('moganet_xtiny', in_chans=2, in_channels=4)


def test_out_indices_need_features_only():
    with pytest.raises(UserError, match=r'out_indices \(1,\) has no effect on a classifier: set features_only=True'):
        mogacore.create_model('moganet_xtiny', out_indices=(1,))


def test_description_is_that_of_the_loaded_file(tmp_path):
    trained = mogacore.create_model('moganet_xtiny')
    assert trained.pretrained_cfg['input_size'] == (3, 224, 224)
    path = tmp_path / 'moganet_xtiny_sz256_8xbs128_ep300.pth.tar'
    torch.save(trained.state_dict(), path)
    cfg = mogacore.create_model('moganet_xtiny', checkpoint=path).pretrained_cfg
    assert (cfg['input_size'], cfg['tag']) == ((3, 256, 256), 'in1k_256')


def test_settings_of_the_docstring_exist():
    """Each setting that the docstring lists is one of the networks, and the other way round."""
    import inspect
    import re

    listed = set(
        re.findall(r'``(\w+)``', mogacore.create_model.__doc__.partition('Further settings')[2].partition('Returns')[0])
    )
    names = {*inspect.signature(MogaNet).parameters, 'global_pool'}
    hidden = {'arch', 'in_channels', 'out_indices', 'init_cfg', 'stem_norm_cfg', 'conv_norm_cfg', 'stem_norm_type',
              'conv_norm_type'}  # fmt: skip
    assert names - hidden <= listed and listed - names <= {'set_grad_checkpointing'}
