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
