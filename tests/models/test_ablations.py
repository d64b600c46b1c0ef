"""The paper's ablations of the block: each option removes its part, and the rest is the same function."""

import pytest
import torch
from conftest import TINY_ARCH, fill_by_name
from formulas import assert_same_function_and_gradients, moga_block

from mogacore.deploy import fuse
from mogacore.errors import UserError
from mogacore.models import AblatedMogaNet, AblatedMogaNetClassifier, MogaNet, accelerated

STEPS = [
    dict(gate=False, context='5x5', decompose=False, ffn_mixer='plain'),
    dict(context='5x5', decompose=False, ffn_mixer='plain'),
    dict(context='7x7', decompose=False, ffn_mixer='plain'),
    dict(decompose=False, ffn_mixer='plain'),
    dict(ffn_mixer='plain'),
    dict(ffn_mixer='se'),
    dict(),
]
# Parameters of MogaNet-T with each step. Weights and biases by part, in a block of width C with H hidden channels:
#   gate C^2 + C; DW_conv1 3/8 C (25 + 1) and DW_conv2 1/2 C (49 + 1), together 34.75 C; sigma of the decomposition C;
#   channel aggregation: decompose H + 1, sigma H; squeeze and excitation of width Q = C / 32: 2 H Q + Q + H.
# T has 3, 3, 12, 2 blocks with C = 32, 64, 128, 256 and H = 256, 512, 512, 1024. Summed over the 20 blocks:
#   C: 2,336; C^2 + C: 345,376; H: 10,496; 2 H + 1: 21,012; 2 H Q + Q + H: 100,169.
GATE, ORDERS, SIGMA, AGGREGATION, EXCITATION = 345_376, 81_176, 2_336, 21_012, 100_169  # ORDERS: 34.75 * 2,336
LARGER_KERNEL = 56_064  # a 7x7 kernel in place of a 5x5 one: (49 - 25) * 2,336
WHOLE = 5_197_332  # published
SIZES = [
    WHOLE - GATE - ORDERS - SIGMA - AGGREGATION,
    WHOLE - ORDERS - SIGMA - AGGREGATION,
    WHOLE - ORDERS + LARGER_KERNEL - SIGMA - AGGREGATION,
    WHOLE - SIGMA - AGGREGATION,
    WHOLE - AGGREGATION,
    WHOLE - AGGREGATION + EXCITATION,
    WHOLE,
]


@pytest.mark.parametrize('options, params', list(zip(STEPS, SIZES, strict=True)))
def test_number_of_parameters_matches_the_calculation(options, params):
    with torch.device('meta'):
        model = AblatedMogaNetClassifier(options, arch='tiny')
    assert sum(p.numel() for p in model.parameters()) == params


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('options', STEPS[:-1], ids=lambda options: '-'.join(map(str, options.values())))
def test_ablated_block_equals_the_formula(options, training):
    block = fill_by_name(ablated(options).blocks4[0]).train(training)
    assert accelerated.select(block) is block
    assert_same_function_and_gradients(lambda m, x: m(x), moga_block, block, torch.randn(3, 32, 6, 5))


def ablated(options):
    return AblatedMogaNet(options, arch=TINY_ARCH)


def test_default_options_give_the_published_network():
    options = dict(gate=True, context='multi-order', decompose=True, ffn_mixer='ca')
    network, explicit = MogaNet(TINY_ARCH), ablated(options)
    assert list(network.state_dict()) == list(explicit.state_dict())
    assert accelerated.select(explicit.blocks1[0]) is not explicit.blocks1[0]


def test_new_parts_are_initialized_as_published():
    for options in (dict(context='7x7'), dict(ffn_mixer='se')):
        for m in ablated(options).modules():
            if isinstance(m, torch.nn.Conv2d):
                assert not m.bias.any()
                fan_out = m.kernel_size[0] ** 2 * m.out_channels / m.groups
                if m.weight.numel() > 500:
                    assert m.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.2)


@pytest.mark.parametrize(
    'options, removed',
    [
        (dict(gate=False), 'attn.gate.'),
        (dict(context='5x5'), 'attn.value.DW_conv1.'),
        (dict(decompose=False), 'attn.sigma.'),
        (dict(ffn_mixer='plain'), 'mlp.decompose.'),
    ],
)
def test_each_option_removes_only_its_part(options, removed):
    names = {name for name, _ in MogaNet(TINY_ARCH).named_parameters()}
    kept = {name for name, _ in ablated(options).named_parameters()}
    assert kept < names
    also = {'attn.value.DW_conv1.': 'attn.value.DW_conv2.', 'mlp.decompose.': 'mlp.sigma.'}.get(removed, removed)
    assert all(removed in name or also in name for name in names - kept)


def test_unknown_options_and_fusing_an_ablation_are_refused():
    for options in (dict(context='9x9'), dict(ffn_mixer='mlp')):
        with pytest.raises(UserError, match='is unknown: choose from'):
            ablated(options)
    with pytest.raises(UserError, match='ablation'):
        fuse(ablated(dict(gate=False)))


def test_the_double_gate_works_on_the_meta_device():
    with torch.device('meta'):
        model = MogaNet(TINY_ARCH, attn_force_fp32=True).eval()
    assert model(torch.empty(1, 3, 32, 32, device='meta'))[-1].shape == (1, 32, 1, 1)
