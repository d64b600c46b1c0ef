"""Values and gradients against what autograd makes of the formulas, in double precision."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from mogacore.models.functions import ChannelAggregation, GateAndContext, GatedProjection


def leaves(shapes):
    """A tensor for each shape; a number stands for itself."""
    return [
        shape if isinstance(shape, int) else torch.randn(*shape, dtype=torch.double, requires_grad=True)
        for shape in shapes
    ]


def gated_projection(gate, value, weight, bias):
    return F.conv2d(F.silu(gate) * F.silu(value), weight, bias)


def gate_and_context(p, gate_weight, gate_bias, dw_weight, dw_bias, dilation):
    s = F.silu(p)
    context = F.conv2d(s, dw_weight, dw_bias, padding=2 * dilation, dilation=dilation, groups=len(dw_weight))
    return F.conv2d(s, gate_weight, gate_bias), context


def channel_aggregation(z, weight, bias, decompose_weight, decompose_bias, common_weight):
    h = F.gelu(z)
    return F.conv2d(h, weight, bias) - common_weight * F.gelu(F.conv2d(h, decompose_weight, decompose_bias))


CASES = {
    'gated projection': (
        GatedProjection, gated_projection, [(2, 3, 4, 5), (2, 3, 4, 5), (6, 3, 1, 1), (6,)],
    ),
    'gate and context': (
        GateAndContext, gate_and_context, [(2, 3, 4, 5), (6, 3, 1, 1), (6,), (3, 1, 5, 5), (3,), 2],
    ),
    'channel aggregation': (
        ChannelAggregation, channel_aggregation, [(2, 6, 4, 5), (3, 6, 1, 1), (3,), (1, 6, 1, 1), (1,), (1, 3, 1, 1)],
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_the_formula(name, memory_format):
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
def test_only_what_is_needed_is_kept(name):
    """No map is kept besides the inputs, apart from the one-channel map of the channel aggregation."""
    function, _, shapes = CASES[name]
    inputs = leaves(shapes)
    own = {x.data_ptr() for x in inputs if torch.is_tensor(x)}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        function.apply(*inputs)
    others = [x for x in kept if x.data_ptr() not in own]
    assert all(x.shape[1] == 1 for x in others) and len(others) <= 1
