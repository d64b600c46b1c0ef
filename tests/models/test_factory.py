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
