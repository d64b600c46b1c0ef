import numpy as np
import pytest
import torch
from conftest import DATA, NEEDS_EXPORT, TINY_ARCH, fill_by_name, golden_input
from torch import nn

from mogacore.deploy import fuse
from mogacore.errors import UserError
from mogacore.models import MogaNet, MogaNetClassifier
from mogacore.models.layers import MogaBlock
from mogacore.published.archs import ALIASES, ARCHS

GOLDEN = {'xtiny': (64, 96), 'tiny': (96, 64), 'small': (64, 64), 'base': (64, 64)}

# Parameters with and without classifier, and tensors of the state dict, of the published networks.
SIZES = {
    'xtiny': (2_956_066, 2_763_066, 705),
    'tiny': (5_197_332, 4_940_332, 777),
    'small': (25_335_675, 24_822_675, 741),
    'base': (43_720_475, 43_207_475, 1317),
    'large': (82_480_978, 81_839_978, 2145),
    'xlarge': (180_991_924, 180_030_924, 2217),
}


def num_parameters(model):
    return sum(p.numel() for p in model.parameters())


def load_golden(arch):
    height, width = GOLDEN[arch]
    return np.load(DATA / f'moganet_{arch}_{height}x{width}.npz'), golden_input(height, width)


@pytest.mark.parametrize('arch', GOLDEN)
@pytest.mark.parametrize('attn_force_fp32', [False, True])
def test_logits_equal_the_published_ones(arch, attn_force_fp32):
    golden, images = load_golden(arch)
    model = fill_by_name(MogaNetClassifier(arch=arch, attn_force_fp32=attn_force_fp32)).eval()
    with torch.no_grad():
        logits = model(images).numpy()
    assert np.abs(logits - golden['logits_force_fp32' if attn_force_fp32 else 'logits']).max() <= 1e-5


@pytest.mark.parametrize('arch', GOLDEN)
def test_stage_maps_equal_the_published_ones(arch):
    golden, images = load_golden(arch)
    model = fill_by_name(MogaNet(arch)).eval()
    with torch.no_grad():
        maps = model(images)
    for i, stage_map in enumerate(maps):
        assert np.abs(stage_map.numpy() - golden[f'stage{i + 1}']).max() <= 1e-5


@pytest.mark.parametrize('arch', GOLDEN)
def test_keys_and_shapes_equal_the_published_ones(arch):
    golden, _ = load_golden(arch)
    model = MogaNetClassifier(arch=arch)
    ours = {f'{name} {tuple(value.shape)}' for name, value in model.state_dict().items()}
    assert ours == set(golden['keys'].tolist())


@pytest.mark.parametrize('arch', SIZES)
def test_parameter_counts_are_exactly_the_published_ones(arch):
    with_head, without_head, num_tensors = SIZES[arch]
    with torch.device('meta'):
        model = MogaNetClassifier(arch=arch)
        trunk = MogaNet(arch)
    assert num_parameters(model) == with_head
    assert num_parameters(trunk) == without_head
    assert len(model.state_dict()) == num_tensors


@pytest.mark.parametrize('alias, arch', ALIASES.items())
def test_aliases_select_their_size_in_any_case(alias, arch):
    with torch.device('meta'):
        model = MogaNet(alias.upper())
    assert model.embed_dims == ARCHS[arch]['embed_dims']


@pytest.mark.parametrize(
    'size, expected', [((64, 96), [(16, 24), (8, 12), (4, 6), (2, 3)]), ((33, 47), [(9, 12), (5, 6), (3, 3), (2, 2)])]
)
def test_strides_are_4_8_16_32_and_odd_sizes_round_up(size, expected):
    maps = MogaNet(TINY_ARCH)(torch.randn(2, 3, *size))
    assert [tuple(m.shape) for m in maps] == [
        (2, width, *hw) for width, hw in zip(TINY_ARCH['embed_dims'], expected, strict=True)
    ]


@pytest.mark.parametrize('out_indices', [(3,), (0, 2), [1]])
def test_out_indices_select_the_maps(out_indices):
    model = fill_by_name(MogaNet(TINY_ARCH, out_indices=out_indices)).eval()
    every = fill_by_name(MogaNet(TINY_ARCH)).eval()
    images = torch.randn(1, 3, 32, 32)
    for i, stage_map in zip(out_indices, model(images), strict=True):
        assert torch.equal(stage_map, every(images)[i])


@pytest.mark.parametrize('in_channels', [1, 3])
def test_blocks_get_channels_last_maps(in_channels):
    network = MogaNet(TINY_ARCH, in_channels=in_channels)
    seen = []
    for stage in range(1, 5):
        for block in getattr(network, f'blocks{stage}'):
            block.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    network(torch.randn(2, in_channels, 64, 96))
    assert len(seen) == sum(network.depths) and all(
        x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous() for x in seen
    )


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('channels_last_out', [False, True])
def test_maps_have_the_layout_that_mmcv_operators_require(memory_format, channels_last_out):
    """mmcv's RoIAlign reads channels_last memory as if it were contiguous, but can use torchvision's operator."""
    ops = pytest.importorskip('mmcv.ops')
    torchvision_ops = pytest.importorskip('torchvision.ops')
    images = torch.randn(2, 3, 64, 64).contiguous(memory_format=memory_format)
    rois = torch.tensor([[0, 3.0, 4.0, 40.0, 30.0], [1, 5.0, 5.0, 40.0, 60.0]])
    with torch.no_grad():
        stage_map, *_ = MogaNet(TINY_ARCH, channels_last_out=channels_last_out).eval()(images)
    assert stage_map.is_contiguous(memory_format=torch.channels_last if channels_last_out else torch.contiguous_format)
    expected = torchvision_ops.roi_align(stage_map.contiguous(), rois, 7, spatial_scale=0.25, aligned=True)
    roi_align = ops.RoIAlign(7, 0.25, 0, use_torchvision=channels_last_out)
    torch.testing.assert_close(roi_align(stage_map, rois), expected)


def test_stem_strides_set_the_first_stride():
    (first, *_) = MogaNet(TINY_ARCH, stem_strides=(1, 1))(torch.randn(1, 3, 32, 32))
    assert first.shape[2:] == (32, 32)


def test_drop_path_rates_increase_linearly_over_all_blocks():
    blocks = [m for m in MogaNet('xtiny', drop_path_rate=0.17).modules() if isinstance(m, MogaBlock)]
    np.testing.assert_allclose([b.drop_path.drop_prob for b in blocks], np.linspace(0, 0.17, 18), atol=1e-7)


@pytest.mark.parametrize('arch, rate', [('xtiny', 0.05), ('base', 0.2), (TINY_ARCH, 0.0)])
def test_drop_path_rate_defaults_to_the_published_one(arch, rate):
    with torch.device('cpu'):
        blocks = [m for m in MogaNet(arch).modules() if isinstance(m, MogaBlock)]
    assert blocks[-1].drop_path.drop_prob == pytest.approx(rate)


def test_initialization_follows_the_published_rule():
    model = MogaNet('tiny')
    for name, std in {
        'patch_embed2.projection': (2 / (9 * 64)) ** 0.5,
        'blocks3.4.mlp.fc1': (2 / 512) ** 0.5,
        'blocks3.4.mlp.dwconv': (2 / 9) ** 0.5,  # depth-wise: fan-out of one group
        'blocks3.4.attn.value.DW_conv2': (2 / 49) ** 0.5,
    }.items():
        conv = model.get_submodule(name)
        assert conv.weight.std().item() == pytest.approx(std, rel=0.06), name
        assert not conv.bias.any()
    block = model.blocks3[0]
    for value in (block.layer_scale_1, block.layer_scale_2, block.attn.sigma.scale, block.mlp.sigma.scale):
        assert torch.equal(value, torch.full_like(value, 1e-5))
    head = MogaNetClassifier(arch='tiny').head
    assert head.weight.std().item() == pytest.approx(0.02, rel=0.06)
    assert not head.bias.any()


def test_init_weights_keeps_loaded_values():
    model = fill_by_name(MogaNet(TINY_ARCH))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize('prefix, kwargs', [('', {}), ('backbone.', {}), ('teacher.', dict(prefix='teacher.'))])
def test_init_weights_loads_a_pretrained_file(tmp_path, prefix, kwargs):
    trained = fill_by_name(MogaNet(TINY_ARCH)).state_dict()
    torch.save({prefix + name: value for name, value in trained.items()}, tmp_path / 'trunk.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'trunk.pth'), **kwargs)
    model = MogaNet(TINY_ARCH, init_cfg=init_cfg)
    model.init_weights()
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())


def test_init_weights_refuses_a_file_that_does_not_match(tmp_path):
    torch.save(MogaNet('xtiny').state_dict(), tmp_path / 'xtiny.pth')
    model = MogaNet(TINY_ARCH, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'xtiny.pth')))
    with pytest.raises(UserError, match='looks like moganet_xtiny'):
        model.init_weights()


@pytest.mark.parametrize('frozen_stages', [-1, 0, 2])
def test_frozen_stages_get_no_gradient_and_keep_their_statistics(frozen_stages):
    model = MogaNet(TINY_ARCH, frozen_stages=frozen_stages).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sum(m.mean() for m in model(torch.randn(2, 3, 64, 64))).backward()
    for stage in range(4):
        frozen = stage <= frozen_stages
        for part in ('patch_embed', 'blocks', 'norm'):
            module = getattr(model, f'{part}{stage + 1}')
            assert all((p.grad is None) == frozen for p in module.parameters())
            assert module.training != frozen
        mean = f'norm{stage + 1}.running_mean'
        assert torch.equal(model.state_dict()[mean], before[mean]) == frozen


def test_norm_eval_keeps_every_statistic_and_still_trains_the_weights():
    model = MogaNet(TINY_ARCH, norm_eval=True).train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(m.training for m in norms)
    assert model.training and model.blocks1[0].training
    model(torch.randn(2, 3, 64, 64))[-1].mean().backward()
    assert all(m.num_batches_tracked == 0 for m in norms)
    assert model.norm4.weight.grad is not None


def test_norm_cfg_reaches_every_norm():
    model = MogaNet(TINY_ARCH, norm_cfg=dict(type='SyncBN'))
    assert not any(type(m) is nn.BatchNorm2d for m in model.modules())
    num_norms = sum(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
    assert num_norms == 2 + 3 + 2 * sum(TINY_ARCH['depths']) + 4


def test_checkpointing_changes_neither_gradients_nor_statistics():
    results = []
    images = torch.randn(4, 3, 64, 64)
    for with_cp in (False, True):
        torch.manual_seed(1)
        model = fill_by_name(MogaNet(TINY_ARCH, with_cp=with_cp, drop_path_rate=0.5)).train()
        model(images)[-1].square().mean().backward()
        results.append(
            {name: p.grad for name, p in model.named_parameters()} | {n: b.clone() for n, b in model.named_buffers()}
        )
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, msg=name)


def test_checkpointing_stores_less_for_the_backward_pass():
    stored = []
    images = torch.randn(2, 3, 64, 64)
    for with_cp in (False, True):
        model = MogaNet(TINY_ARCH, with_cp=with_cp).train()
        sizes = []

        def pack(tensor, sizes=sizes):
            sizes.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(images)
        stored.append(sum(sizes))
    assert stored[1] < 0.5 * stored[0]


def test_final_dilation_false_uses_dilations_1_2_1_in_the_last_stage():
    model = MogaNet(TINY_ARCH, attn_final_dilation=False)

    def high_order(i):
        return getattr(model, f'blocks{i}')[0].attn.value.DW_conv2

    assert [high_order(i).dilation[0] for i in (1, 2, 3, 4)] == [3, 3, 3, 1]
    assert high_order(4).padding == (3, 3)


def test_other_splits_and_dilations_are_accepted():
    model = MogaNet(TINY_ARCH, attn_channel_split=(1, 1, 2), attn_dw_dilation=(1, 1, 2))
    assert model.blocks1[0].attn.value.split_dims == (2, 2, 4)
    assert model.blocks1[0].attn.value.DW_conv2.dilation == (2, 2)
    model(torch.randn(2, 3, 32, 32))


def test_layer_scale_init_and_drop_rate_reach_the_blocks():
    model = MogaNet(TINY_ARCH, layer_scale_init=0.5, drop_rate=0.3)
    assert model.blocks4[0].layer_scale_2.mean() == 0.5
    assert model.blocks4[0].mlp.drop.p == 0.3


def test_gate_options_reach_the_blocks():
    model = MogaNet(TINY_ARCH, attn_force_fp32=True, gate_fp32=True)
    assert all(m.attn.attn_force_fp32 and m.attn.gate_fp32 for m in model.modules() if isinstance(m, MogaBlock))


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(arch='huge'), "arch 'huge' is unknown: choose from xtiny, tiny, small, base, large, xlarge"),
        (dict(arch=dict(embed_dims=(8, 8, 8, 8))), 'exactly the keys embed_dims, depths, ffn_ratios'),
        (dict(arch={**TINY_ARCH, 'embed_dims': (8, 20, 24, 32)}), 'width 20 is not divisible by 8'),
        (dict(arch={**TINY_ARCH, 'depths': (1, 1)}), 'four positive integers'),
        (dict(arch={**TINY_ARCH, 'depths': (1, 1, 0, 1)}), 'four positive integers'),
        (dict(out_indices=(4,)), 'out_indices (4,) is invalid'),
        (dict(out_indices=()), 'out_indices () is invalid'),
        (dict(frozen_stages=4), 'frozen_stages 4 is invalid'),
        (dict(drop_path_rate=1.0), 'drop_path_rate 1.0 is invalid'),
    ],
)
def test_invalid_settings_are_reported_in_one_line(kwargs, message):
    with pytest.raises(UserError) as error:
        MogaNet(**{'arch': TINY_ARCH, **kwargs})
    assert message in str(error.value)
    assert '\n' not in str(error.value)


def test_unknown_argument_fails():
    with pytest.raises(TypeError, match='stem_norm'):
        MogaNet(TINY_ARCH, stem_norm=dict(type='SyncBN'))


def test_classifier_without_classes_returns_pooled_features():
    model = MogaNetClassifier(num_classes=0, arch=TINY_ARCH).eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(images), MogaNet.forward(model, images)[-1].mean((2, 3)))


def test_network_works_on_the_meta_device():
    model = MogaNet(TINY_ARCH).to('meta').eval()
    images = torch.empty(1, 3, 64, 64, device='meta')
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            assert [tuple(out.shape[1:]) for out in model(images)] == [(8, 16, 16), (16, 8, 8), (24, 4, 4), (32, 2, 2)]


@NEEDS_EXPORT
@pytest.mark.parametrize('is_fused', [False, True])
def test_the_accelerated_form_is_exported(is_fused):
    model = fill_by_name(MogaNet(TINY_ARCH)).eval()
    program = torch.export.export(fuse(model) if is_fused else model, (torch.randn(2, 3, 64, 64),))
    calls = [node.target for node in program.graph.nodes if node.op == 'call_function']
    # In each block: proj_1 on the map and on its mean, gate, three depth-wise convolutions, PW_conv, proj_2,
    # fc1, dwconv, decompose, fc2 on the map and on the common part. Two in the stem and three in the patch embeddings.
    assert calls.count(torch.ops.aten.conv2d.default) == 13 * sum(TINY_ARCH['depths']) + 5


def test_compiles_without_graph_breaks_and_exports():
    model = fill_by_name(MogaNet(TINY_ARCH)).eval()
    images = torch.randn(1, 3, 64, 64)
    assert torch._dynamo.explain(model)(images).graph_break_count == 0
    exported = torch.export.export(model, (images,)).module()
    for ours, theirs in zip(exported(images), model(images), strict=True):
        torch.testing.assert_close(ours, theirs)
