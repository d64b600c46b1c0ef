"""1x1 convolutions and convolutions with an activation function, compared with the formula in double precision."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mogacore.models import accelerated, convolutions
from mogacore.models.convolutions import ACTIVATIONS, MOST_PIXELS, activated_conv, pointwise_conv
from mogacore.models.layers import MogaBlock


@pytest.fixture(autouse=True)
def fused_if_small(monkeypatch):
    """Small maps use oneDNN's activation functions, too."""
    monkeypatch.setattr(convolutions, 'FEWEST_ELEMENTS', 1)


FUNCTIONS = {'gelu': F.gelu, 'silu': F.silu, None: lambda x: x}
LAYOUTS = [torch.channels_last, torch.contiguous_format]


def calls_of(run, *args):
    """Names of the operators that a function calls on the CPU."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run(*args)
    return {event.name for event in profile.events()}


@pytest.mark.parametrize('activation', FUNCTIONS)
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize(
    'shape', [(3, 8, 7, 5), (1, 8, 7, 5), (2, 1, 4, 4), (2, 8, 1, 1), (3, 8, 40, 40), (0, 8, 7, 5)]
)
def test_pointwise_convolution_equals_double_precision(shape, layout, activation):
    """Batches that become one row, single images, large maps and an empty batch."""
    x, weight, bias = torch.randn(shape), torch.randn(6, shape[1], 1, 1), torch.randn(6)
    expected = FUNCTIONS[activation](F.conv2d(x.double(), weight.double(), bias.double()))
    given = x.contiguous(memory_format=layout)
    with torch.no_grad():
        found = pointwise_conv(given, weight, bias, activation)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(given, x)
    if (
        layout == torch.channels_last and len(x) and shape[1] > 1
    ):  # torch does not tell the layouts of one channel apart
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_pointwise_convolution_has_the_gradients_of_a_convolution():
    x = torch.randn(3, 4, 5, 5, dtype=torch.double).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = (torch.randn(*s, dtype=torch.double, requires_grad=True) for s in ((6, 4, 1, 1), (6,)))
    assert x[:, 0].numel() < MOST_PIXELS
    found, expected = pointwise_conv(x, weight, bias), F.conv2d(x, weight, bias)
    upstream = torch.randn_like(expected)
    inputs = (x, weight, bias)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(expected, inputs, upstream)
    )


@pytest.mark.parametrize('activation', ACTIVATIONS)
@pytest.mark.parametrize('size, groups', [(3, 8), (5, 8), (1, 1), (3, 2)])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_activated_convolution_equals_double_precision(size, groups, layout, activation):
    x = 3 * torch.randn(2, 8, 9, 6).contiguous(memory_format=layout)
    weight, bias = torch.randn(8, 8 // groups, size, size).contiguous(memory_format=layout), torch.randn(8)
    plain = F.conv2d(x.double(), weight.double(), bias.double(), padding=size // 2, groups=groups)
    with torch.no_grad():
        found = activated_conv(x, weight, bias, activation, groups)
    torch.testing.assert_close(found.double(), FUNCTIONS[activation](plain), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings('ignore:TF32 acceleration')  # of a setting that the context restores
@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_other_types_and_processors_without_onednn_use_the_formula(dtype):
    x, weight = torch.randn(2, 4, 6, 6), torch.randn(4, 1, 3, 3)

    def run(x, weight):
        with torch.no_grad():
            return activated_conv(x, weight, None, 'gelu', 4)

    expected = F.gelu(F.conv2d(x.to(dtype), weight.to(dtype), padding=1, groups=4))
    assert torch.equal(run(x.to(dtype), weight.to(dtype)), expected)
    with torch.backends.mkldnn.flags(enabled=False):
        assert 'mkldnn::_convolution_pointwise' not in calls_of(run, x, weight)
        torch.testing.assert_close(run(x, weight), F.gelu(F.conv2d(x, weight, padding=1, groups=4)))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason='torch was built without oneDNN')
def test_activation_functions_run_inside_the_convolution():
    with torch.no_grad():
        names = calls_of(activated_conv, torch.randn(1, 4, 6, 6), torch.randn(4, 1, 3, 3), None, 'gelu', 4)
    assert 'mkldnn::_convolution_pointwise' in names and not {'aten::gelu', 'aten::gelu_'} & names


def test_an_empty_batch_and_small_outputs_are_not_fused(monkeypatch):
    def run(x):
        with torch.no_grad():
            return activated_conv(x, torch.randn(4, 1, 3, 3), None, 'gelu', 4)

    assert 'mkldnn::_convolution_pointwise' not in calls_of(run, torch.randn(0, 4, 6, 6))
    assert run(torch.randn(0, 4, 6, 6)).shape == (0, 4, 6, 6)
    monkeypatch.setattr(convolutions, 'FEWEST_ELEMENTS', 4 * 6 * 6 + 1)
    assert 'mkldnn::_convolution_pointwise' not in calls_of(run, torch.randn(1, 4, 6, 6))


@pytest.mark.parametrize('activation', ACTIVATIONS)
def test_values_that_are_not_a_number_remain_visible(activation):
    x = torch.zeros(1, 16, 8, 8)
    x[0, 3, 4, 5] = torch.nan
    with torch.no_grad():
        found = activated_conv(x, torch.ones(16, 1, 3, 3), None, activation, 16)
    assert found.isnan().sum() == 9  # every output whose window contains the value


@pytest.mark.parametrize('size, is_small', [(2, True), (9, False)])
def test_maps_with_fewer_pixels_than_channels_have_the_values_of_the_plain_block(size, is_small, monkeypatch):
    small = []
    original = accelerated._small_channel_aggregation
    monkeypatch.setattr(accelerated, '_small_channel_aggregation', lambda *args: small.append(1) or original(*args))
    block = MogaBlock(32).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 32, size, size)
    with torch.no_grad():
        found, expected = accelerated.select(block)(x), block(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert bool(small) == is_small
