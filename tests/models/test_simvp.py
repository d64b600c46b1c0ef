import numpy as np
import pytest
import torch
from conftest import DATA, fill_by_name, value_by_name
from mmengine.structures import BaseDataElement

from mogacore.checkpoint import CheckpointError, load_into
from mogacore.errors import UserError
from mogacore.models import SimVP, accelerated
from mogacore.models.simvp import GatedAttention, drop_path_rates

SMALL = dict(num_frames=4, spatial_dims=8, spatial_depth=2, temporal_dims=16, temporal_depth=2)
GOLDEN = dict(spatial_dims=16, temporal_dims=64, temporal_depth=3)


@pytest.fixture(scope='module')
def golden():
    return np.load(DATA / 'simvp_moganet_hidS16_hidT64_NS4_NT3.npz')


@pytest.fixture(scope='module')
def published(golden):
    return published_weights(golden)


def published_weights(golden):
    """Weights with the published names, filled by the rule of the golden outputs."""
    weights = {}
    for key in golden['keys'].tolist():
        name, shape = key.split(' ', 1)
        shape = tuple(int(size) for size in shape.strip('()').split(',') if size.strip())
        weights[name] = torch.from_numpy(value_by_name(name, shape))
    return weights


def filled(**settings):
    """A model with values for which no norm, layer scale or sigma is the identity."""
    with torch.no_grad():
        return fill_by_name(SimVP(**{**SMALL, **settings})).eval()


@pytest.fixture
def video():
    return torch.rand(2, 4, 1, 8, 12)


def test_frames_equal_the_published_ones(golden, published):
    model = SimVP(**GOLDEN).eval()
    report = load_into(model, published)
    assert set(report.loaded) == set(model.state_dict()) and len(report.loaded) == len(published) == 146
    video = torch.from_numpy(np.random.default_rng(0).random((2, 10, 1, 64, 64)).astype(np.float32))
    with torch.no_grad():
        assert np.abs(model(video).numpy() - golden['output']).max() <= 1e-5


def test_frames_of_gsta_equal_the_published_ones():
    golden = np.load(DATA / 'simvp_gsta_hidS16_hidT64_NS4_NT3.npz')
    model = SimVP(**GOLDEN, translator='gSTA').eval()
    report = load_into(model, published_weights(golden))
    assert set(report.loaded) == set(model.state_dict()) and len(report.loaded) == len(golden['keys']) == 122
    video = torch.from_numpy(np.random.default_rng(0).random((2, 10, 1, 64, 64)).astype(np.float32))
    with torch.no_grad():
        assert np.abs(model(video).numpy() - golden['output']).max() <= 1e-5


@pytest.mark.parametrize('container', ['bare', 'training', 'lightning', 'distributed'])
def test_published_checkpoint_formats_are_read(container, published, tmp_path):
    weights = published
    if container == 'training':
        weights = {'epoch': 3, 'state_dict': published, 'optimizer': {}, 'scheduler': {}}
    elif container != 'bare':
        prefix = {'lightning': 'model.', 'distributed': 'module.'}[container]
        weights = {'state_dict': {prefix + name: value for name, value in published.items()}}
    torch.save(weights, tmp_path / 'checkpoint.pth')
    model = SimVP(**GOLDEN)
    assert not load_into(model, tmp_path / 'checkpoint.pth').missing
    torch.testing.assert_close(model.hid.enc[1].block.attn.sigma.scale.data, published['hid.enc.1.block.attn.sigma'])


def test_weights_of_another_size_are_reported(published):
    with pytest.raises(CheckpointError, match=r'hid\.enc\.0\.reduction'):
        load_into(SimVP(**GOLDEN | dict(temporal_dims=72)), published)


def test_state_dict_has_the_published_size():
    with torch.device('meta'):
        model = SimVP()
    state = model.state_dict()
    assert len(state) == 326 and sum(value.numel() for value in state.values()) == 46_793_977
    parts = {name: sum(p.numel() for p in getattr(model, name).parameters()) for name in ('enc', 'hid', 'dec')}
    assert parts == {'enc': 111_936, 'hid': 46_295_272, 'dec': 369_857}
    stages = [sum(p.numel() for p in stage.parameters()) for stage in model.hid.enc]
    assert stages == [8_633_313, *[5_333_377] * 6, 5_661_697]


@pytest.mark.parametrize('translator', ['MogaNet', 'gSTA'])
@pytest.mark.parametrize('num_targets', [None, 1, 3, 4, 6, 8, 11])
def test_other_numbers_of_frames_are_truncated_or_fed_back(num_targets, translator, video):
    model = filled(num_targets=num_targets, translator=translator)
    with torch.no_grad():
        frames = model(video)
        expected, x = [], video
        for _ in range(3):
            x = model.one_pass(x)
            expected.append(x)
    assert frames.shape == (2, num_targets or 4, 1, 8, 12)
    torch.testing.assert_close(frames, torch.cat(expected, dim=1)[:, : num_targets or 4])


def test_gradients_flow_through_both_passes(video):
    model = filled(num_targets=8).train()
    model(video.requires_grad_())[:, 4:].square().sum().backward()
    assert video.grad.abs().max() > 0
    through_both = model.enc.enc[0].conv.conv.weight.grad.clone()
    model.zero_grad()
    first = model.one_pass(video).detach()
    model.one_pass(first).square().sum().backward()
    assert (through_both - model.enc.enc[0].conv.conv.weight.grad).abs().max() > 1e-3 * through_both.abs().max()


def test_loss_is_the_mean_squared_error_of_the_kept_frames(video):
    model = filled(num_targets=1)
    samples = [BaseDataElement(gt_frames=torch.rand(1, 1, 8, 12)) for _ in video]
    with torch.no_grad():
        loss = model(video, samples, mode='loss')['loss']
        predicted = model(video, samples, mode='predict')
        frames = model(video)
    expected = sum(((f - s.gt_frames) ** 2).mean() for f, s in zip(frames, samples, strict=True)) / 2
    torch.testing.assert_close(loss, expected)
    assert [sample.pred_frames.shape for sample in predicted] == [(1, 1, 8, 12)] * 2
    torch.testing.assert_close(torch.stack([sample.pred_frames for sample in predicted]), frames)
    assert len(model(video, mode='predict')) == 2


def test_the_skip_map_is_that_of_the_first_encoder_unit(video):
    model = filled()
    frames = video.flatten(0, 1)
    with torch.no_grad():
        maps, skip = model.enc(frames)
        torch.testing.assert_close(skip, model.enc.enc[0](frames))
        assert skip.shape == (8, 8, 8, 12) and maps.shape == (8, 8, 4, 6)
        assert (model.dec(maps, skip) - model.dec(maps, torch.zeros_like(skip))).abs().max() > 1e-3


def test_drop_path_rates_change_linearly_from_one_percent_to_the_rate():
    rates = drop_path_rates(0.0, 8)
    np.testing.assert_allclose(rates[:7], np.linspace(0.01, 0, 8)[:7])
    assert rates[6] == pytest.approx(0.0014, abs=5e-5) and rates[7] == 0
    np.testing.assert_allclose(drop_path_rates(0.1, 6), np.linspace(0.01, 0.1, 6))
    model = SimVP(**SMALL | dict(temporal_depth=3), drop_path_rate=0.2)
    np.testing.assert_allclose([s.block.drop_path.drop_prob for s in model.hid.enc], [0.01, 0.105, 0.2])


def test_network_without_acceleration_is_the_same_function(video):
    model = filled()
    with torch.no_grad():
        fast = model(video)
        with accelerated.disabled():
            torch.testing.assert_close(model(video), fast, rtol=1e-4, atol=1e-5)


def test_chunks_of_frames_compute_the_same_function(video, monkeypatch):
    model, chunks = filled().train(), []
    model.enc.register_forward_pre_hook(lambda _, args: chunks.append(len(args[0])))

    def gradients():
        torch.manual_seed(0)
        model.zero_grad()
        out = model(video)
        out.square().sum().backward()
        return out.detach(), [p.grad for p in model.parameters()]

    whole, grads = gradients()
    assert chunks == [video[:, :, 0].shape[0] * video.shape[1]]
    chunks.clear()
    monkeypatch.setattr(accelerated, 'CACHED_ELEMENTS', 3 * model.spatial_dims * video[0, 0, 0].numel())
    found, found_grads = gradients()
    assert len(chunks) > 1 and max(chunks) == 3
    torch.testing.assert_close(found, whole)
    for grad, expected in zip(found_grads, grads, strict=True):
        torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_units_and_blocks_get_channels_last_maps(video):
    model, seen = filled(), []
    for part in (*model.enc.enc, *model.hid.enc, *model.dec.dec):
        part.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(video)
    assert len(seen) == len(model.enc.enc) + len(model.hid.enc) + len(model.dec.dec)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)
    assert not any(x.is_contiguous() for x in seen[1:])  # frames with one channel are both


def test_initial_weights_are_the_published_ones():
    model = SimVP(**SMALL | dict(temporal_dims=64, spatial_dims=32))
    unit, block = model.enc.enc[1].conv.conv, model.hid.enc[1].block
    assert unit.weight.detach().std() == pytest.approx(0.02, rel=0.1) and unit.bias.abs().max() == 0
    assert block.mlp.fc1.weight.detach().std() == pytest.approx((2 / 512) ** 0.5, rel=0.05)
    assert block.attn.value.DW_conv0.weight.detach().std() == pytest.approx((2 / 25) ** 0.5, rel=0.1)
    assert block.layer_scale_1.unique().item() == pytest.approx(1e-5)
    assert SimVP(**SMALL, translator='gSTA').hid.enc[0].block.layer_scale_1.unique().item() == pytest.approx(1e-2)


def test_gate_of_gsta_is_the_second_half_of_the_channels():
    attention = GatedAttention(4)
    x = torch.randn(1, 4, 5, 6)
    both = attention.conv1(attention.conv_spatial(attention.conv0(x)))
    torch.testing.assert_close(attention(x), both[:, :4] / (1 + torch.exp(-both[:, 4:])))
    reach = torch.zeros(1, 4, 41, 41).index_fill_(3, torch.tensor(20), 1.0)
    reach.requires_grad_()
    attention(reach)[0, :, 20, 20].sum().backward()
    assert reach.grad.abs().sum((0, 1, 2)).nonzero().flatten().tolist() == list(range(9, 32))


def test_moga_blocks_under_autocast_give_a_finite_loss(video):
    model = filled().train()
    samples = [BaseDataElement(gt_frames=torch.rand(4, 1, 8, 12)) for _ in video]
    with torch.autocast('cpu', torch.bfloat16):
        loss = model(video, samples, mode='loss')['loss']
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(loss)


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(translator='ViT'), "translator 'ViT' is unknown: choose from MogaNet, gSTA"),
        (dict(num_frames=3, spatial_dims=6), r'widths 18 .* and 16 .*multiples of 8'),
        (dict(temporal_dims=20), 'multiples of 8'),
        (dict(spatial_dims=7), 'spatial_dims 7 is odd'),
        (dict(spatial_depth=3), 'spatial_depth is 3'),
        (dict(temporal_depth=1), 'temporal_depth is 1'),
        (dict(num_targets=0), 'num_targets is 0'),
        (dict(drop_path_rate=1.0), 'drop_path_rate 1.0 is out of range'),
    ],
)
def test_invalid_settings_are_reported(settings, message):
    with pytest.raises(UserError, match=message):
        SimVP(**{**SMALL, **settings})


@pytest.mark.parametrize('shape', [(1, 3, 1, 8, 8), (1, 4, 2, 8, 8), (1, 4, 1, 8, 9), (4, 1, 8, 8)])
def test_frames_of_another_shape_are_reported(shape):
    with pytest.raises(UserError, match=r'needs \(B, 4, 1, H, W\), with height and width multiples of 2'):
        filled()(torch.rand(shape))


@pytest.mark.parametrize('mode', ['loss', 'predict', 'tensor'])
@pytest.mark.parametrize('num_targets', [1, 3])
def test_targets_of_another_length_are_reported_in_every_mode(video, mode, num_targets):
    samples = [BaseDataElement(gt_frames=torch.rand(num_targets, 1, 8, 12)) for _ in video]
    message = rf'\({num_targets}, 1, 8, 12\), but the model predicts \(4, 1, 8, 12\): make model\.num_targets match'
    with pytest.raises(UserError, match=message):
        filled()(video, samples, mode=mode)
