"""Values and gradients compared with autograd on the formulas."""

import os
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from conftest import NEEDS_EXPORT, TINY_ARCH, fill_by_name
from torch import nn
from torch.autograd import gradcheck

from mogacore.models import MogaNet, accelerated
from mogacore.models.accelerated import (
    ChannelAggregation,
    DepthwiseConv,
    GateAndContext,
    GatedProjection,
    channels_last,
    chunk_size,
    depthwise_conv,
)
from mogacore.models.layers import MogaBlock


def leaves(shapes):
    """A tensor for each shape; integers are returned unchanged."""
    return [
        shape if isinstance(shape, int) else torch.randn(*shape, dtype=torch.double, requires_grad=True)
        for shape in shapes
    ]


def plain_depthwise(x, weight, bias, dilation=1):
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, bias, padding=padding, dilation=dilation, groups=len(weight))


def gated_projection(gate, value, weight, bias):
    return F.conv2d(F.silu(gate) * F.silu(value), weight, bias)


def gate_and_context(p, gate_weight, gate_bias, dw_weight, dw_bias, dilation):
    s = F.silu(p)
    return F.conv2d(s, gate_weight, gate_bias), plain_depthwise(s, dw_weight, dw_bias, dilation)


def channel_aggregation(
    x, fc1_weight, fc1_bias, dw_weight, dw_bias, weight, bias, decompose_weight, decompose_bias, common_weight
):
    h = F.gelu(plain_depthwise(F.conv2d(x, fc1_weight, fc1_bias), dw_weight, dw_bias))
    return F.conv2d(h, weight, bias) - common_weight * F.gelu(F.conv2d(h, decompose_weight, decompose_bias))


FFN_SHAPES = [
    (2, 3, 4, 5), (6, 3, 1, 1), (6,), (6, 1, 3, 3), (6,), (3, 6, 1, 1), (3,), (1, 6, 1, 1), (1,), (1, 3, 1, 1),
]  # fmt: skip
CASES = {
    'depth-wise': (DepthwiseConv, plain_depthwise, [(2, 3, 5, 4), (3, 1, 5, 5), (3,), 1]),
    'depth-wise, dilation 2': (DepthwiseConv, plain_depthwise, [(2, 3, 5, 4), (3, 1, 5, 5), (3,), 2]),
    'depth-wise, dilation 3': (DepthwiseConv, plain_depthwise, [(2, 3, 5, 4), (3, 1, 7, 7), (3,), 3]),
    'gated projection': (
        GatedProjection, gated_projection, [(2, 3, 4, 5), (2, 3, 4, 5), (6, 3, 1, 1), (6,)],
    ),
    'gate and context': (
        GateAndContext, gate_and_context, [(2, 3, 4, 5), (6, 3, 1, 1), (6,), (3, 1, 5, 5), (3,), 2],
    ),
    'channel aggregation': (ChannelAggregation, channel_aggregation, FFN_SHAPES),
}  # fmt: skip


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_equal_those_of_the_formula(name, memory_format):
    function, formula, shapes = CASES[name]
    inputs = leaves(shapes)
    tensors = [x for x in inputs if isinstance(x, torch.Tensor)]
    laid_out = [x.contiguous(memory_format=memory_format) if torch.is_tensor(x) and x.ndim == 4 else x for x in inputs]
    expected = formula(*inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    found = function.apply(*laid_out)
    found = found if isinstance(found, tuple) else (found,)
    upstream = [torch.randn_like(out) for out in expected]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, tensors, upstream), torch.autograd.grad(expected, tensors, upstream)
    )
    assert gradcheck(function.apply, inputs)


@pytest.mark.parametrize('name', CASES)
def test_only_required_maps_are_stored(name):
    """Only inputs are stored, and the maps around the depth-wise convolution in channel aggregation."""
    function, _, shapes = CASES[name]
    inputs = leaves(shapes)
    own = {x.data_ptr() for x in inputs if torch.is_tensor(x)}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        function.apply(*inputs)
    others = [tuple(x.shape) for x in kept if x.data_ptr() not in own]
    assert others == ([(2, 1, 4, 5), (2, 6, 4, 5), (2, 6, 4, 5)] if function is ChannelAggregation else [])


def two_forms(model, x, **autocast):
    """Outputs and gradients of the accelerated form and of the plain one."""
    results = []
    for context in (nullcontext(), accelerated.disabled()):
        model.zero_grad()
        with context, torch.autocast('cpu', **autocast) if autocast else nullcontext():
            torch.manual_seed(0)
            out = model(x)[0]
        out.float().square().sum().backward()
        results.append((out.detach(), {name: p.grad for name, p in model.named_parameters()}))
    return results


def network(**settings):
    return fill_by_name(MogaNet(TINY_ARCH, out_indices=(3,), **settings))


@pytest.mark.parametrize('dtype', [None, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('value', [0.0, 1e-9, 1e-30])
def test_tiny_layer_scales_neither_overflow_nor_lose_their_gradient(value, dtype):
    model = network().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if 'layer_scale' in name:
                p.fill_(value)
    autocast = dict(dtype=dtype) if dtype else {}
    (out, grads), (expected, expected_grads) = two_forms(model, torch.randn(2, 3, 32, 32), **autocast)
    tolerance = 0.1 if dtype else 1e-4
    torch.testing.assert_close(out.float(), expected.float(), rtol=tolerance, atol=tolerance)
    for name, grad in grads.items():
        if 'layer_scale' in name:
            largest = expected_grads[name].abs().max().item()
            torch.testing.assert_close(grad, expected_grads[name], rtol=0, atol=tolerance * largest)


def test_autocast_keeps_double_precision():
    (out, _), (expected, _) = two_forms(
        network().eval().double(), torch.randn(1, 3, 32, 32).double(), dtype=torch.bfloat16
    )
    torch.testing.assert_close(out, expected)


def test_a_backward_pass_inside_autocast_computes_the_same_gradients():
    model, x = network().eval(), torch.randn(1, 3, 32, 32)
    found = []
    for context in (nullcontext(), torch.autocast('cpu', dtype=torch.bfloat16)):
        model.zero_grad()
        out = model(x)[0].square().sum()
        with context:
            out.backward()
        found.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_an_empty_batch_has_gradients_of_zero():
    model = network().eval()
    out = model(torch.randn(0, 3, 64, 64))[0]
    out.sum().backward()
    assert out.shape == (0, 32, 2, 2)
    assert all(p.grad.count_nonzero() == 0 for p in model.parameters())


@pytest.mark.parametrize('is_grad_enabled', [True, False])
def test_drop_path_drops_whenever_it_is_in_training_mode(is_grad_enabled):
    """Monte Carlo estimates of uncertainty sample drop path in a network that is otherwise in eval mode."""
    block, x = fill_by_name(MogaBlock(16, drop_path_rate=0.5)).eval(), torch.randn(16, 16, 8, 8)
    block.drop_path.train()
    with torch.set_grad_enabled(is_grad_enabled):
        torch.manual_seed(0)
        out = accelerated.select(block)(x)
        torch.manual_seed(0)
        torch.testing.assert_close(out, block(x), rtol=1e-4, atol=1e-5)
    assert 0 < (out == x).flatten(1).all(1).sum() < 16  # samples without both branches


@pytest.mark.parametrize('norm', ['norm1', 'norm2'])
@pytest.mark.parametrize('is_fused', [False, True])
def test_maps_that_hooks_on_norms_keep_are_not_modified(norm, is_fused):
    block, kept = fill_by_name(MogaBlock(16)).eval(), []
    if is_fused:
        setattr(block, norm, nn.Identity())
    x = torch.randn(2, 16, 8, 8)
    keep = lambda module, args, out=None: kept.extend((z, z.clone()) for z in (*args, out) if z is not None)  # noqa: E731
    block.get_submodule(norm).register_forward_pre_hook(keep)
    block.get_submodule(norm).register_forward_hook(keep)
    before = x.clone()
    with torch.no_grad():
        accelerated.select(block)(x)
    assert len(kept) == 3 and all(torch.equal(now, then) for now, then in kept) and torch.equal(x, before)


@pytest.mark.parametrize('images, parts', [(5, [2, 2, 1]), (2, [2]), (1, [1])])
def test_chunks_compute_the_same_function(images, parts, monkeypatch):
    monkeypatch.setattr(accelerated, 'CACHED_ELEMENTS', 2 * 6 * 4 * 5)
    inputs = leaves([(images, 3, 4, 5), *FFN_SHAPES[1:]])
    assert [len(part) for part in inputs[0].split(chunk_size(inputs[0], 6))] == parts
    found, expected = ChannelAggregation.apply(*inputs), channel_aggregation(*inputs)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(expected, inputs, upstream)
    )


def test_maps_of_several_chunks_are_not_stored(monkeypatch):
    # Less than a map of 6 x 4 x 5, more than the weights of 3 x 6.
    monkeypatch.setattr(accelerated, 'CACHED_ELEMENTS', 20)
    inputs, kept = leaves(FFN_SHAPES), []
    own = {x.data_ptr() for x in inputs}
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        ChannelAggregation.apply(*inputs)
    assert [tuple(x.shape) for x in kept if x.data_ptr() not in own] == [(2, 1, 4, 5)]


@pytest.mark.parametrize('size, dilation', [(3, 1), (5, 1), (5, 2), (7, 3), (7, 4)])
@pytest.mark.parametrize('height, width', [(14, 14), (7, 9), (2, 3), (5, 70)])
def test_depthwise_convolution_equals_double_precision(size, dilation, height, width):
    """Both the algorithms that are fast in oneDNN and those for maps that are too large for them."""
    x = torch.randn(3, 8, height, width).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = torch.randn(8, 1, size, size, requires_grad=True), torch.randn(8, requires_grad=True)
    inputs = (x, weight, bias)
    doubles = [tensor.detach().double().requires_grad_() for tensor in inputs]
    found, expected = DepthwiseConv.apply(*inputs, dilation), plain_depthwise(*doubles, dilation)
    assert found.is_contiguous(memory_format=torch.channels_last)
    upstream = torch.randn_like(found)
    for ours, theirs in zip(
        (found, *torch.autograd.grad(found, inputs, upstream)),
        (expected, *torch.autograd.grad(expected, doubles, upstream.double())),
        strict=True,
    ):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


@NEEDS_EXPORT
def test_exported_depthwise_convolution_is_one_convolution():
    class Net(torch.nn.Module):
        def forward(self, x, weight):
            return depthwise_conv(x, weight, None, 3)

    program = torch.export.export(Net(), (torch.randn(1, 4, 6, 6), torch.randn(4, 1, 7, 7)))
    calls = [node.target for node in program.graph.nodes if node.op == 'call_function']
    assert calls == [torch.ops.aten.conv2d.default]


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_convolutions_keep_the_layout(channels, memory_format):
    """Also with one channel, where torch does not distinguish the two layouts."""
    x = torch.randn(2, channels, 5, 6).contiguous(memory_format=memory_format).requires_grad_()
    found = channels_last(x)
    out = F.conv2d(found, torch.randn(4, channels, 3, 3))
    assert out.is_contiguous(memory_format=torch.channels_last) and torch.equal(found, x)
    found.square().sum().backward()
    assert torch.equal(x.grad, 2 * x)


def test_convolutions_run_in_the_data_type_of_autocast():
    tensors = torch.ones(1), torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float16)
    assert accelerated.cast_as_autocast(*tensors) == tensors
    with torch.autocast('cpu', dtype=torch.bfloat16):
        dtypes = [tensor.dtype for tensor in accelerated.cast_as_autocast(*tensors)]
        on_meta = torch.ones(1, device='meta')
        assert accelerated.cast_as_autocast(on_meta)[0] is on_meta  # the meta device does not support autocast
    assert dtypes == [torch.bfloat16, torch.float64, torch.bfloat16]


def test_the_layout_changes_only_while_acceleration_is_on():
    x = torch.randn(2, 3, 4, 5)
    assert accelerated.fast_layout(x).is_contiguous(memory_format=torch.channels_last)
    with accelerated.disabled():
        assert accelerated.fast_layout(x) is x


def test_the_unit_of_a_layer_scale_is_a_normal_number_in_half_precision():
    assert torch.finfo(torch.float16).tiny == accelerated.SMALLEST_UNIT


@pytest.mark.parametrize('rate, training, expected', [(0.0, False, 1), (0.5, False, 1), (0.0, True, 1), (0.5, True, 0)])
def test_only_a_branch_that_may_be_dropped_needs_the_form_of_training(rate, training, expected, monkeypatch):
    calls, run = [], accelerated._infer_block
    monkeypatch.setattr(accelerated, '_infer_block', lambda *args: calls.append(args) or run(*args))
    block = MogaBlock(16, drop_path_rate=rate).train(training)
    with torch.no_grad():
        accelerated.select(block)(torch.randn(1, 16, 4, 4))
    assert len(calls) == expected


@NEEDS_EXPORT
@pytest.mark.parametrize('training', [True, False])
def test_a_compiled_block_drops_branches_in_training_only(training):
    block = fill_by_name(MogaBlock(16, drop_path_rate=1 - 1e-6)).train(training)
    x = torch.randn(2, 16, 4, 4)
    run = torch.compile(lambda x: accelerated.select(block)(x), backend='eager', fullgraph=True)
    with accelerated.disabled():
        expected = x if training else block(x)
    torch.testing.assert_close(run(x), expected)
    assert training or not torch.allclose(expected, x)


@pytest.mark.parametrize('value', ['0', '1', None])
def test_the_environment_variable_turns_acceleration_off(value):
    environment = {name: text for name, text in os.environ.items() if name != 'MOGACORE_ACCELERATED'}
    if value is not None:
        environment['MOGACORE_ACCELERATED'] = value
    code = 'from mogacore.models import accelerated; print(accelerated.is_enabled())'
    done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(value != '0')]


def test_acceleration_can_be_turned_off_while_torch_compiles(monkeypatch):
    monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
    assert accelerated.is_enabled()
    with accelerated.disabled():
        assert not accelerated.is_enabled()
    assert accelerated.is_enabled()
