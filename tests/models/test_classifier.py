"""timm's generic checks of a model, for every size: B, L and XL on the meta device, which has shapes but no values."""

import copy

import pytest
import torch
from conftest import TINY_ARCH
from torch import nn

import mogacore
from mogacore.errors import UserError
from mogacore.models import MogaNet, MogaNetClassifier, accelerated
from mogacore.models.features import FeatureInfo, stage_indices
from mogacore.published.archs import ARCHS

REAL = ('moganet_xtiny', 'moganet_tiny', 'moganet_small')


@pytest.fixture(scope='module', params=mogacore.list_models())
def built(request):
    """Model and device of every size, with layer scales of a trained network."""
    device = 'cpu' if request.param in REAL else 'meta'
    torch.manual_seed(0)
    with torch.device(device):
        model = mogacore.create_model(request.param, num_classes=42)
    scale_up(model)
    return model.eval(), device


def scale_up(model):
    """The initial layer scales and sigma of 1e-5 would hide the blocks."""
    with torch.no_grad():
        for name in model.no_weight_decay():
            model.get_parameter(name).fill_(0.1)


@pytest.fixture
def model(built):
    return copy.deepcopy(built[0])


@pytest.fixture
def device(built):
    return built[1]


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    model = MogaNetClassifier(5, arch=TINY_ARCH).eval()
    scale_up(model)
    return model


def equal(a, b):
    return a.shape == b.shape and (a.device.type == 'meta' or torch.equal(a, b))


@torch.no_grad()
def test_forward_at_three_sizes(built):
    model, device = built
    for height, width in ((64, 64), (96, 64), (65, 97)):
        x = torch.randn(1, 3, height, width, device=device)
        logits, features = model(x), model.forward_features(x)
        assert logits.shape == (1, 42)
        assert features.shape == (1, model.num_features, -(-height // 32), -(-width // 32))
        assert device == 'meta' or (logits.isfinite().all() and logits.std() > 0)
        assert equal(model.forward_head(features), logits)
        assert model.forward_head(features, pre_logits=True).shape == (1, model.head_hidden_size)
        assert equal(model.get_classifier()(model.forward_head(features, pre_logits=True)), logits)


def test_every_parameter_gets_a_gradient(model, device):
    model.train()(torch.randn(2, 3, 64, 64, device=device)).square().mean().backward()
    for name, param in model.named_parameters():
        assert param.grad is not None and param.grad.shape == param.shape, name
        assert device == 'meta' or param.grad.isfinite().all(), name


@torch.no_grad()
def test_intermediates_are_the_features(built):
    """Also of a network with features only and the same weights."""
    model, device = built
    with torch.device(device):
        network = mogacore.create_model(model.pretrained_cfg['architecture'], features_only=True)
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith('head.')}
    network.load_state_dict(weights)
    x = torch.randn(1, 3, 64, 96, device=device)
    last, maps = model.forward_intermediates(x)
    assert all(map(equal, maps, network.eval()(x)))
    assert equal(last, model.forward_features(x)) and equal(last, maps[-1])
    info = model.feature_info
    for i, found in enumerate(maps):
        assert found.shape == (1, info[i]['num_chs'], 64 // info[i]['reduction'], 96 // info[i]['reduction'])


@pytest.mark.parametrize(
    ('out_indices', 'stages'), [(i, i) for i in ((0,), (1,), (2,), (3,), (0, 2), (1, 2, 3), (0, 1, 2, 3))]
    + [(None, (0, 1, 2, 3)), (2, (2, 3)), ((-1,), (3,)), ((-2, 0), (0, 2)), ((3, 1, 1), (1, 3))],
)  # fmt: skip
@torch.no_grad()
def test_features_with_every_out_indices(out_indices, stages):
    torch.manual_seed(0)
    model = mogacore.create_model('moganet_xtiny', features_only=True, out_indices=out_indices).eval()
    x = torch.randn(1, 3, 64, 64)
    maps = model(x)
    info = model.feature_info
    assert isinstance(model, MogaNet) and info.out_indices == stages
    assert [found.shape[1] for found in maps] == info.channels() == [ARCHS['xtiny']['embed_dims'][i] for i in stages]
    assert [64 // found.shape[-1] for found in maps] == info.reduction() == [2 ** (i + 2) for i in stages]
    outputs = {}
    for name in info.module_name():
        hook = lambda module, args, output, name=name: outputs.update({name: output})  # noqa: E731
        model.get_submodule(name).register_forward_hook(hook)
    model(x)
    assert all(torch.equal(found, outputs[name]) for found, name in zip(maps, info.module_name(), strict=True))


@pytest.mark.parametrize('out_indices', [0, 5, (), (4,), (0, -5), -1])
def test_stages_that_do_not_exist_are_refused(out_indices, tiny):
    with pytest.raises(UserError, match=r'out_indices .* is invalid: give stages from 0 to 3'):
        mogacore.create_model('moganet_xtiny', features_only=True, out_indices=out_indices)
    with pytest.raises(UserError, match=r'indices .* is invalid'):
        tiny.forward_intermediates(torch.randn(1, 3, 32, 32), out_indices)


def test_feature_info_selects_by_stage():
    info = FeatureInfo([{'num_chs': 8 * i, 'reduction': 2**i, 'module': f'n{i}', 'index': i} for i in range(4)], (1, 3))
    assert info.channels() == [8, 24] and info.channels(0) == 0 and info.channels([0, 1]) == [0, 8]
    assert info.get_dicts(['module']) == [{'module': 'n1'}, {'module': 'n3'}] and info.get_dicts(idx=2) == info[2]
    assert copy.deepcopy(info) == info and copy.deepcopy(info).out_indices == (1, 3)
    assert stage_indices(None, 3) == (0, 1, 2)


def test_strides_follow_the_stem():
    assert MogaNet(TINY_ARCH, stem_strides=(1, 1)).feature_info.reduction() == [1, 2, 4, 8]


@torch.no_grad()
def test_classifier_is_reset(model, device):
    x = torch.randn(1, 3, 64, 64, device=device)
    features = model.forward_features(x)
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity) and model.num_classes == 0
    assert equal(model.forward_head(features), features.mean((2, 3)))
    model.reset_classifier(0, '')
    assert equal(model.forward_head(features), features)
    largest = features.amax((2, 3))
    for pool, expected in (('max', largest), ('avgmax', (features.mean((2, 3)) + largest) / 2)):
        model.reset_classifier(0, pool)
        assert equal(model.forward_head(features), expected) and model.global_pool == pool
    model.reset_classifier(7, 'avg')
    head = model.get_classifier()
    assert model(x).shape == (1, 7) and not head.training and head.weight.device.type == device
    assert {name for name in model.state_dict() if name.startswith('head')} == {'head.weight', 'head.bias'}


def test_a_new_head_has_the_type_and_mode_of_the_network(tiny):
    tiny.bfloat16().train().reset_classifier(3)
    assert tiny.head.weight.dtype == torch.bfloat16 and tiny.head.training
    before = tiny.head
    for settings, message in (
        ((-1,), 'num_classes -1'),
        ((2.5,), 'num_classes 2.5'),
        ((3, 'mean'), "global_pool 'mean' is unknown: choose from 'avg', 'max', 'avgmax', ''"),
        ((3, ''), 'set num_classes=0 as well'),
    ):
        with pytest.raises(UserError, match=message):
            tiny.reset_classifier(*settings)
    assert tiny.head is before and tiny.global_pool == 'avg'
    assert mogacore.create_model('moganet_xtiny', num_classes=0, global_pool='').global_pool == ''


@torch.no_grad()
def test_settings_of_intermediates(tiny):
    x = torch.randn(2, 3, 64, 64)
    last, maps = tiny.forward_intermediates(x)
    assert len(tiny.forward_intermediates(x, intermediates_only=True)) == 4
    first, early = tiny.forward_intermediates(x, (0, -3), stop_early=True)
    assert all(map(torch.equal, early, maps[:2])) and torch.equal(first, maps[1])
    assert torch.equal(tiny.forward_intermediates(x, (0, 1))[0], last)
    _, raw = tiny.forward_intermediates(x, norm=False)
    for i, found in enumerate(raw):
        assert torch.equal(tiny.get_submodule(f'norm{i + 1}')(found), maps[i]) and not torch.equal(found, maps[i])
    with pytest.raises(UserError, match="output_fmt 'NLC' is not supported: use 'NCHW'"):
        tiny.forward_intermediates(x, output_fmt='NLC')


@pytest.mark.parametrize('norm', [True, False])
@torch.no_grad()
def test_pruned_network_returns_the_same_maps(norm, tiny):
    x = torch.randn(1, 3, 64, 64)
    expected = tiny.forward_intermediates(x, (0, 2), norm=norm, intermediates_only=True)
    assert tiny.prune_intermediate_layers((0, -2), prune_norm=not norm) == (0, 2)
    assert all(map(torch.equal, tiny.forward_intermediates(x, (0, 2), norm=norm, intermediates_only=True), expected))
    assert not any(name.startswith(('blocks4', 'norm4', 'patch_embed4', 'head')) for name in tiny.state_dict())
    assert tiny.num_features == TINY_ARCH['embed_dims'][2] and len(tiny.feature_info) == 3
    assert torch.equal(tiny(x), tiny.forward_features(x))
    tiny.train()(x)


@torch.no_grad()
def test_pruned_backbone_returns_the_chosen_maps():
    model = MogaNet(TINY_ARCH, frozen_stages=3).eval()
    x = torch.randn(1, 3, 64, 64)
    expected = model(x)
    model.prune_intermediate_layers((0, 1))
    assert all(map(torch.equal, model.train().eval()(x), expected[:2])) and model.feature_info.channels() == [8, 16]


def test_pruning_at_the_last_stage_can_keep_the_head(tiny):
    x = torch.randn(1, 3, 32, 32)
    expected = tiny(x)
    tiny.prune_intermediate_layers(prune_head=False)
    assert torch.equal(tiny(x), expected)
    tiny.prune_intermediate_layers()
    assert torch.equal(tiny(x), tiny.forward_features(x))


def test_checkpointing_is_turned_on_and_off(tiny):
    x = torch.randn(2, 3, 32, 32)
    gradients = []
    for enable in (True, False):
        tiny.zero_grad()
        tiny.set_grad_checkpointing(enable)
        assert tiny.with_cp is enable
        tiny(x).square().mean().backward()
        gradients.append([param.grad for param in tiny.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


@torch.no_grad()
def test_half_precision_inference(built):
    model, device = built
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64, device=device)
    half = copy.deepcopy(model).bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16 and half.shape == (2, 42)
    if device == 'cpu':
        exact = model(x)
        with accelerated.disabled():
            plain = copy.deepcopy(model).bfloat16()(x.bfloat16())
        # Rounding moves the logits of the plain block by 3 to 20 %, depending on the image.
        assert (half.float() - exact).norm() < 3 * (plain.float() - exact).norm() < exact.norm()


@torch.no_grad()
def test_fx_and_jit_traces_compute_the_same(built):
    model, device = built
    graph = torch.fx.symbolic_trace(model)
    graph.graph.lint()
    for size in ((64, 64), (96, 64)):
        x = torch.randn(1, 3, *size, device=device)
        assert graph(x).shape == (1, 42)
        assert device == 'meta' or torch.allclose(graph(x), model(x), rtol=1e-4, atol=1e-4)
    if device == 'cpu' and model.depths == ARCHS['xtiny']['depths']:  # slow, and the same code for all
        assert torch.allclose(torch.jit.trace(model, x)(x), model(x), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_torchvision_extracts_any_module(tiny):
    extraction = pytest.importorskip('torchvision.models.feature_extraction')
    x = torch.randn(1, 3, 64, 64)
    found = extraction.create_feature_extractor(tiny, {'norm1': 'a', 'norm4': 'b'})(x)
    _, maps = tiny.forward_intermediates(x)
    assert torch.allclose(found['a'], maps[0], atol=1e-5) and torch.allclose(found['b'], maps[3], atol=1e-5)


def test_scripting_is_not_supported(tiny):
    """docs/classification.md says so."""
    with pytest.raises(Exception):  # noqa: B017, of any type
        torch.jit.script(tiny)


def test_frozen_stages_include_the_named_one():
    for last in range(-1, 4):
        model = MogaNetClassifier(5, arch=TINY_ARCH, frozen_stages=last)
        frozen = {name for name, param in model.named_parameters() if not param.requires_grad}
        stages = {name[-1] for name in (name.partition('.')[0] for name in frozen)}
        assert stages == {str(i + 1) for i in range(last + 1)}
        assert all(name in frozen for name, _ in model.named_parameters() if name.partition('.')[0][-1] in stages)


def test_no_weight_decay_names_scales(tiny):
    names = tiny.no_weight_decay()
    kinds = {name.rpartition('.')[2] for name in names}
    assert kinds == {'layer_scale_1', 'layer_scale_2', 'scale'}
    scales = {name for name, param in tiny.named_parameters() if param.ndim == 4 and param.shape[::2] == (1, 1)}
    assert names == {name for name in scales if 'decompose' not in name}


class TestDescription:
    @pytest.mark.parametrize('name', mogacore.list_models())
    def test_it_agrees_with_the_network(self, name):
        with torch.device('meta'):
            model = mogacore.create_model(name)
            cfg = model.pretrained_cfg
            assert model.default_cfg is cfg and cfg['architecture'] == name
            assert model.get_submodule(cfg['first_conv']).in_channels == cfg['input_size'][0] == model.in_chans
            assert model.get_submodule(cfg['classifier']) is model.get_classifier()
            assert model.get_classifier().out_features == cfg['num_classes'] == model.num_classes
            features = model.forward_features(torch.randn(1, *cfg['input_size']))
        assert features.shape[2:] == cfg['pool_size']
        assert features.shape[1] == model.num_features == model.head_hidden_size

    def test_every_published_file_has_the_images_of_its_config(self):
        from mogacore.engine.config import load_config
        from mogacore.locations import project
        from mogacore.published import load_results
        from mogacore.published.pretrained import pretrained_cfg

        files = [r for r in load_results() if r.task == 'classification' and r.weights and r.config]
        assert len(files) > 30
        for result in files:
            arch = next(a for a in sorted(ARCHS, key=len, reverse=True) if a in result.config.split('_')[0])
            cfg = pretrained_cfg(arch, result.weights_file)
            config = load_config(project() / 'configs' / result.config)
            steps = {step['type']: step for step in config.test_dataloader.dataset.pipeline}
            size = cfg['input_size'][1]
            assert cfg['url'] == result.weights and steps['CenterCrop']['crop_size'] == size, result.config
            assert abs(steps['ResizeEdge']['scale'] - size / cfg['crop_pct']) < 1, result.config
            assert steps['ResizeEdge']['interpolation'] == cfg['interpolation']
            norm = config.get('data_preprocessor') or config.model.data_preprocessor
            assert [round(value / 255, 3) for value in norm['mean']] == list(cfg['mean'])
            assert [round(value / 255, 3) for value in norm['std']] == list(cfg['std'])
