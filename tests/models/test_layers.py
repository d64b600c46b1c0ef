import inspect

import pytest
import torch
from conftest import fill_by_name
from formulas import assert_same_function_and_gradients, channel_aggregation, gated_aggregation, moga_block
from torch import nn

from mogacore.models.accelerated import run_block
from mogacore.models.layers import (
    ChannelAggregationFFN,
    DropPath,
    MogaBlock,
    MultiOrderDWConv,
    MultiOrderGatedAggregation,
    build_norm,
)


@pytest.mark.parametrize('shape', [(2, 16, 9, 7), (1, 16, 1, 1), (3, 16, 14, 14)])
def test_channel_aggregation_equals_the_formula(shape):
    mlp = fill_by_name(ChannelAggregationFFN(16, 64))
    assert_same_function_and_gradients(lambda m, x: m(x), channel_aggregation, mlp, torch.randn(shape))


@pytest.mark.parametrize('attn_force_fp32', [False, True])
@pytest.mark.parametrize('shape', [(2, 16, 9, 7), (1, 16, 1, 1)])
def test_gated_aggregation_equals_the_formula(shape, attn_force_fp32):
    attn = fill_by_name(MultiOrderGatedAggregation(16, attn_force_fp32=attn_force_fp32))
    assert_same_function_and_gradients(lambda m, x: m(x), gated_aggregation, attn, torch.randn(shape))


FORMS = {'modules': lambda block, x: block(x), 'accelerated': run_block}
both_forms = pytest.mark.parametrize('form', FORMS.values(), ids=FORMS)


@both_forms
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('attn_force_fp32', [False, True])
def test_block_equals_the_formula(form, training, memory_format, attn_force_fp32):
    block = fill_by_name(MogaBlock(32, ffn_ratio=8, attn_force_fp32=attn_force_fp32)).train(training)
    x = torch.randn(4, 32, 10, 6).contiguous(memory_format=memory_format)
    assert_same_function_and_gradients(form, moga_block, block, x)


@both_forms
@pytest.mark.parametrize('options', [{}, dict(attn_force_fp32=True), dict(gate_fp32=True)], ids=str)
def test_block_without_gradients_equals_the_written_out_formula(form, options):
    block, x = fill_by_name(MogaBlock(32, ffn_ratio=8, **options)).eval(), torch.randn(2, 32, 10, 6)
    before = x.clone()
    with torch.no_grad():
        torch.testing.assert_close(form(block, x), moga_block(block, x), rtol=1e-5, atol=1e-5)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            half = form(block, x)
        torch.testing.assert_close(half, moga_block(block, x), rtol=0.05, atol=0.05)
    assert torch.equal(x, before)


@both_forms
def test_block_passes_gradcheck_in_float64(form):
    block = fill_by_name(MogaBlock(8, ffn_ratio=2)).double().eval()
    x = torch.randn(1, 8, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: form(block, x), (x,))


@pytest.mark.parametrize('attn_force_fp32', [False, True])
def test_gate_fp32_does_not_change_the_function(attn_force_fp32):
    default = fill_by_name(MultiOrderGatedAggregation(16, attn_force_fp32=attn_force_fp32))
    gate_fp32 = fill_by_name(MultiOrderGatedAggregation(16, attn_force_fp32=attn_force_fp32, gate_fp32=True))
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(gate_fp32(x), default(x), rtol=0, atol=1e-6)


def test_gate_fp32_prevents_overflow_in_half_precision():
    gate = value = torch.full((1, 16, 2, 2), 300.0, dtype=torch.float16)  # 300 * 300 > 65504
    outs = {}
    for gate_fp32 in (False, True):
        attn = MultiOrderGatedAggregation(16, gate_fp32=gate_fp32)
        nn.init.dirac_(attn.proj_2.weight)
        nn.init.zeros_(attn.proj_2.bias)
        with torch.autocast('cpu', dtype=torch.float16):
            outs[gate_fp32] = attn.aggregate(gate, value)
    assert not torch.isfinite(outs[False]).any()
    torch.testing.assert_close(outs[True], torch.full((1, 16, 2, 2), 90000.0))


def test_attn_force_fp32_changes_the_function():
    plain = fill_by_name(MultiOrderGatedAggregation(16))
    double = fill_by_name(MultiOrderGatedAggregation(16, attn_force_fp32=True))
    x = torch.randn(2, 16, 8, 8)
    assert (plain(x) - double(x)).abs().max() > 0.01


@pytest.mark.parametrize('width, expected', [(32, (4, 12, 16)), (96, (12, 36, 48)), (8, (1, 3, 4))])
def test_channels_split_1_3_4(width, expected):
    assert MultiOrderDWConv(width).split_dims == expected


def test_width_that_cannot_be_split_is_refused():
    with pytest.raises(ValueError, match='width 20 cannot be split 1:3:4: choose a multiple of 8'):
        MultiOrderDWConv(20)


def test_receptive_fields_of_the_three_orders_are_5_13_and_23():
    conv = MultiOrderDWConv(8)
    for name in ('DW_conv0', 'DW_conv1', 'DW_conv2'):
        nn.init.ones_(getattr(conv, name).weight)
    x = torch.zeros(1, 8, 41, 41)
    x[..., 20, 20] = 1
    first = conv.DW_conv0(x) - conv.DW_conv0.bias.view(1, -1, 1, 1)
    low, middle, high = first.split(conv.split_dims, dim=1)
    extents = []
    for part in (
        low,
        conv.DW_conv1(middle) - conv.DW_conv1.bias.view(1, -1, 1, 1),
        conv.DW_conv2(high) - conv.DW_conv2.bias.view(1, -1, 1, 1),
    ):
        rows = (part.abs() > 1e-6).any(3).any(1)[0].nonzero()
        extents.append((rows.max() - rows.min()).item() + 1)
    # 5; 5 + 2 * 4; 5 + 3 * 6
    assert extents == [5, 13, 23]


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    drop_path = DropPath(0.25).train()
    out = drop_path(torch.ones(4000, 2, 3, 3))
    per_sample = out[:, 0, 0, 0]
    assert torch.equal(out, per_sample.view(-1, 1, 1, 1).expand_as(out))
    assert set(per_sample.tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert abs(per_sample.mean().item() - 1) < 0.05
    assert torch.equal(drop_path.eval()(out), out)


@both_forms
def test_dropped_branch_leaves_the_sample_unchanged(form):
    block = fill_by_name(MogaBlock(16, drop_path_rate=0.999)).train()
    x = torch.randn(2, 16, 6, 6)
    torch.testing.assert_close(form(block, x), x, rtol=0, atol=0)


def test_dropout_is_only_active_in_training():
    mlp = fill_by_name(ChannelAggregationFFN(16, 64, ffn_drop=0.5))
    x = torch.randn(2, 16, 6, 6)
    assert not torch.equal(mlp(x), mlp(x))
    mlp.eval()
    assert torch.equal(mlp(x), mlp(x))


@both_forms
def test_residual_stays_in_full_precision_under_autocast(form):
    block = fill_by_name(MogaBlock(16))
    x = torch.randn(2, 16, 8, 8)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = form(block, x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, form(block, x), rtol=0.05, atol=0.05)


@both_forms
def test_half_precision_model_runs(form):
    block = fill_by_name(MogaBlock(16, attn_force_fp32=True)).to(torch.bfloat16).eval()
    assert form(block, torch.randn(1, 16, 8, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    'norm_cfg, expected',
    [
        (None, nn.BatchNorm2d),
        (dict(type='BN', momentum=0.03), nn.BatchNorm2d),
        (dict(type='SyncBN'), nn.SyncBatchNorm),
        (dict(type='GN', num_groups=4), nn.GroupNorm),
    ],
)
def test_norm_is_built_by_type(norm_cfg, expected):
    assert type(build_norm(8, norm_cfg)) is expected


def test_norm_arguments_are_passed_on():
    norm = build_norm(8, dict(type='BN', momentum=0.03, requires_grad=False))
    assert norm.momentum == 0.03
    assert not any(p.requires_grad for p in norm.parameters())


def test_unknown_norm_is_refused():
    with pytest.raises(ValueError, match=r"'LN' is unknown: choose from BN"):
        build_norm(8, dict(type='LN'))


@both_forms
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_small_layer_scales_survive_autocast(form, dtype):
    """Output and gradients equal those of fp32 up to the rounding of the type, at the published initial value 1e-5."""
    block = MogaBlock(16, 4).train()
    x = torch.randn(4, 16, 12, 12)
    found = []
    for enabled in (False, True):
        block.zero_grad()
        with torch.autocast('cpu', dtype, enabled=enabled):
            out = form(block, x)
        assert out.dtype == torch.float32
        (1e5 * (out - x)).square().mean().backward()
        found.append([1e5 * (out - x).detach(), *(p.grad.clone() for p in block.parameters())])
    for name, ours, theirs in zip(['output', *dict(block.named_parameters())], found[1], found[0], strict=True):
        error = (ours - theirs).norm() / theirs.norm().clamp(min=1e-6)
        # Its gradients pass through sigma times W, initially about 1e-6, which fp16 represents with few bits.
        tolerance = 0.5 if dtype == torch.float16 and 'decompose' in name else 0.06
        assert error < tolerance, f'{name} is off by {error:.1%}'


@pytest.mark.parametrize('part', [MultiOrderGatedAggregation, MultiOrderDWConv, ChannelAggregationFFN, DropPath])
def test_parts_have_the_defaults_of_the_block(part):
    def defaults(cls):
        names = dict(drop_rate='ffn_drop', drop_path_rate='drop_prob', attn_dw_dilation='dw_dilation')
        names['attn_channel_split'] = 'channel_split'
        parameters = inspect.signature(cls).parameters.values()
        return {names.get(one.name, one.name): one.default for one in parameters if one.default is not one.empty}

    block = defaults(MogaBlock)
    own = {name: value for name, value in defaults(part).items() if name != 'kernel_size'}
    assert own and own == {name: block[name] for name in own}
