"""MogaNet in timm's registry, and timm's own tools on it, compared with a model of timm."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import fill_by_name

import mogacore
from mogacore.errors import UserError
from mogacore.models import MogaNet, MogaNetClassifier

timm = pytest.importorskip('timm')
models = timm.models


@pytest.fixture(scope='module')
def released():
    return fill_by_name(mogacore.create_model('moganet_xtiny')).eval()


@pytest.fixture
def download(released, tmp_path, monkeypatch):
    """Weights in place of every download; the addresses are recorded."""
    torch.save({'state_dict': released.state_dict()}, tmp_path / 'moganet_xtiny_sz224_8xbs128_ep300.pth.tar')
    asked = []

    def fetch(url, folder=None):
        asked.append(url)
        return tmp_path / 'moganet_xtiny_sz224_8xbs128_ep300.pth.tar'

    monkeypatch.setattr('mogacore.checkpoint.sources.fetch', fetch)
    return asked


def run(code):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=True
    ).stdout


def test_mogacore_may_be_imported_last():
    code = 'import timm, mogacore; print(timm.list_models(module="timm_moganet", pretrained=True)[-1])'
    assert run(code).strip() == 'moganet_xtiny.in1k_256'


def test_import_of_mogacore_imports_neither_torch_nor_timm():
    code = 'import mogacore, sys; print([name for name in ("torch", "timm", "mmengine") if name in sys.modules])'
    assert run(code).strip() == '[]'


def test_timm_lists_the_released_files():
    assert set(timm.list_models('moganet*')) == set(mogacore.list_models())
    found = timm.list_pretrained('moganet*')
    tags = {name: ['in1k', 'in1k_256'] if name in ('moganet_xtiny', 'moganet_tiny') else ['in1k'] for name in
            mogacore.list_models()}  # fmt: skip
    assert found == sorted(f'{name}.{tag}' for name, own in tags.items() for tag in own)
    assert models.get_pretrained_cfg('moganet_xtiny.in1k_256').input_size == (3, 256, 256)


def test_timm_creates_our_models():
    model = timm.create_model('moganet_xtiny', num_classes=5, in_chans=1, drop_path_rate=0.0, global_pool='max')
    assert type(model) is MogaNetClassifier and model.head.out_features == 5 and model.global_pool == 'max'
    assert model.patch_embed1.projection[0].in_channels == 1
    features = timm.create_model('moganet_xtiny', features_only=True, out_indices=(1, -1))
    assert type(features) is MogaNet and features.feature_info.channels() == [64, 192]
    with pytest.raises(UserError, match=r'cache_dir is not supported for MogaNet: set .* TORCH_HOME'):
        timm.create_model('moganet_xtiny', cache_dir='/tmp')


def test_pretrained_weights_are_the_published_ones(download, released):
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(timm.create_model('moganet_xtiny', pretrained=True).eval()(x), released(x))
        url = released.pretrained_cfg['url']
        assert download == [url]
        timm.create_model('moganet_xtiny.in1k_256', pretrained=True)
        assert '_sz256_' in download[-1]
        gray = timm.create_model('moganet_xtiny', pretrained=True, in_chans=1, num_classes=0).eval()
        one = torch.randn(1, 1, 64, 64)
        expected = released.forward_features(one.repeat(1, 3, 1, 1)).mean((2, 3))
        assert torch.allclose(gray(one), expected, rtol=1e-3, atol=1e-3)
        new = timm.create_model('moganet_xtiny', pretrained=True, num_classes=3).eval()
        assert torch.equal(new.forward_features(x), released.forward_features(x)) and new(x).shape == (1, 3)
        maps = timm.create_model('moganet_xtiny', pretrained=True, features_only=True).eval()(x)
        assert all(map(torch.equal, maps, released.forward_intermediates(x)[1]))


def test_other_sources_of_weights(released, tmp_path, monkeypatch):
    x = torch.randn(1, 3, 32, 32)
    torch.save(released.state_dict(), tmp_path / 'own.pth')
    (tmp_path / 'net').mkdir()
    torch.save(released.state_dict(), tmp_path / 'net' / 'pytorch_model.bin')
    (tmp_path / 'net' / 'config.json').write_text(json.dumps({'architecture': 'moganet_xtiny', 'pretrained_cfg': {}}))
    monkeypatch.setattr('timm.models._hub.hf_hub_download', lambda repo, file, **_: str(tmp_path / 'net' / file))

    def download(repo, file, revision=None):
        from huggingface_hub.utils import EntryNotFoundError

        if not (tmp_path / repo.partition('/')[2] / file).exists():
            raise EntryNotFoundError(file)
        return str(tmp_path / repo.partition('/')[2] / file)

    monkeypatch.setattr('huggingface_hub.hf_hub_download', download)
    own = {'file': str(tmp_path / 'own.pth')}
    with torch.no_grad():
        expected = released(x)
        for name, settings in (
            ('moganet_xtiny', dict(pretrained_cfg_overlay=own)),
            ('moganet_xtiny', dict(pretrained_cfg_overlay=dict(state_dict=released.state_dict()))),
            (f'local-dir:{tmp_path / "net"}', {}),
            ('hf-hub:me/net', {}),
        ):
            model = timm.create_model(name, pretrained=True, **settings).eval()
            assert torch.equal(model(x), expected), name
        model = timm.create_model('moganet_xtiny', checkpoint_path=str(tmp_path / 'own.pth')).eval()
        assert torch.equal(model(x), expected)
    with pytest.raises(UserError, match=r'moganet_xtiny has no weights for its pretrained_cfg: pass pretrained=False'):
        timm.create_model('moganet_xtiny', pretrained=True, pretrained_cfg_overlay=dict(url=None))


def test_first_convolution_is_adapted_as_by_timm(released):
    from mogacore.checkpoint.load import adapt_channels

    weight = released.patch_embed1.projection[0].weight.detach()
    for channels in (1, 2, 3, 4, 6, 7):
        assert torch.equal(adapt_channels(weight, channels), models.adapt_input_conv(channels, weight)), channels


def test_layer_groups_go_from_input_to_output(released):
    names = [name for name, _ in released.named_parameters()]
    for coarse, count in ((False, 1 + 18 + 1), (True, 1 + 4 + 1)):
        groups = models.group_parameters(released, released.group_matcher(coarse), reverse=True)
        assert set(groups) == set(names) and set(groups.values()) == set(range(count))
        order = [groups[name] for name in names if not name.startswith('head')]
        assert order == sorted(order) and groups['head.weight'] == count - 1
    groups = models.group_parameters(released, released.group_matcher(), reverse=True)
    assert groups['norm1.weight'] == groups['blocks1.2.norm1.weight'] and groups['norm4.bias'] == count + 12
    assert groups['patch_embed2.norm.bias'] == groups['blocks2.0.norm1.weight'] == groups['norm1.weight'] + 1


def test_optimizer_of_timm_uses_the_groups(released):
    optim = pytest.importorskip('timm.optim')
    groups = optim.param_groups_layer_decay(released, 0.05, released.no_weight_decay(), layer_decay=0.5)
    scale = {id(p): group['lr_scale'] for group in groups for p in group['params']}
    decay = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    params = dict(released.named_parameters())
    assert scale[id(params['head.weight'])] == 1 and len(scale) == len(params)
    assert scale[id(params['patch_embed1.projection.0.weight'])] == pytest.approx(0.5**19)
    for name, param in params.items():
        assert bool(decay[id(param)]) == (param.ndim > 1 and name not in released.no_weight_decay()), name


def test_images_of_timm_follow_the_description(released):
    cfg = timm.data.resolve_model_data_config(released)
    about = {key: value for key, value in released.pretrained_cfg.items() if key in cfg}
    assert about == cfg
    steps = timm.data.create_transform(**cfg).transforms
    assert steps[0].size == 248 and tuple(steps[1].size) == (224, 224)


@pytest.mark.parametrize('name', ['moganet_xtiny', 'convnext_atto'])
@torch.no_grad()
def test_api_equals_that_of_a_model_of_timm(name):
    """The same calls return tensors of the same kind for MogaNet and for ConvNeXt, which has four stages as well."""
    model = timm.create_model(name, num_classes=6).eval()
    x = torch.randn(2, 3, 64, 64)
    width = model.num_features
    assert model.head_hidden_size == width and model.num_classes == 6
    assert model.forward_features(x).shape == (2, width, 2, 2)
    assert model.forward_head(model.forward_features(x)).shape == (2, 6)
    assert model.forward_head(model.forward_features(x), pre_logits=True).shape == (2, width)
    last, maps = model.forward_intermediates(x, indices=2, stop_early=True)
    assert last.shape == (2, width, 2, 2) and [found.shape[2] for found in maps] == [4, 2]
    assert len(model.forward_intermediates(x, intermediates_only=True)) == 4
    assert [info['reduction'] for info in model.feature_info] == [4, 8, 16, 32]
    assert [info['num_chs'] for info in model.feature_info] == [
        found.shape[1] for found in model.forward_intermediates(x)[1]
    ]
    assert {'num_chs', 'reduction', 'module'} <= set(model.feature_info[0])
    assert set(model.group_matcher(coarse=True)) == {'stem', 'blocks'}
    model.set_grad_checkpointing()
    assert model(x).shape == (2, 6)
    cfg = model.pretrained_cfg
    assert f'{cfg["first_conv"]}.weight' in model.state_dict()
    model.reset_classifier(0, '')
    assert model(x).shape == (2, width, 2, 2)
    model.reset_classifier(3, 'avg')
    assert model(x).shape == (2, 3) and model.get_classifier().out_features == 3
    features = timm.create_model(name, features_only=True, out_indices=(0, 2))
    assert features.feature_info.reduction() == [4, 16] and len(features(x)) == 2
    assert features.feature_info.channels() == [found.shape[1] for found in features(x)]
    assert len(features.feature_info.get_dicts()) == 2 and len(features.feature_info.module_name()) == 2
    assert model.prune_intermediate_layers((0, 1)) is not None and model(x).shape[2:] == (8, 8)
