"""Wrapping, replacing or hooking a module of a block takes effect: the block then runs as defined in layers.py."""

import subprocess
import sys
from copy import deepcopy
from threading import Event, Thread

import pytest
import torch
from conftest import TINY_ARCH, fill_by_name
from mmengine.model.utils import revert_sync_batchnorm
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, weight_norm

from mogacore.errors import UserError
from mogacore.models import MogaNet, MogaNetClassifier, SimVP, accelerated
from mogacore.models.layers import MogaBlock
from mogacore.models.untouched import is_untouched

LEAVES = [name for name, m in MogaBlock(16).named_modules() if not list(m.children())]
MODULES = [name for name, _ in MogaBlock(16).named_modules()]


def block():
    return fill_by_name(MogaBlock(16)).eval()


class LowRank(nn.Module):
    """A LoRA adapter: the frozen convolution plus a product of two small ones."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Conv2d(base.in_channels, rank, 1, bias=False)
        self.up = nn.Conv2d(rank, base.out_channels, 1, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def test_a_newly_constructed_block_is_untouched():
    for network in (
        MogaNet(TINY_ARCH),
        MogaNet(TINY_ARCH, norm_cfg=dict(type='SyncBN')),
        MogaNet('xtiny', gate_fp32=True),
    ):
        blocks = [m for m in network.modules() if isinstance(m, MogaBlock)]
        assert blocks and all(map(is_untouched, blocks))
        for copy in (deepcopy(network).eval(), revert_sync_batchnorm(network).half(), network.requires_grad_(False)):
            assert all(is_untouched(m) for m in copy.modules() if isinstance(m, MogaBlock))


@pytest.mark.parametrize('name', LEAVES)
def test_a_forward_hook_fires(name):
    model, calls = fill_by_name(MogaNet(TINY_ARCH)).eval(), []
    model.blocks2[0].get_submodule(name).register_forward_hook(lambda module, args, out: calls.append(out.shape))
    model(torch.randn(1, 3, 32, 32))
    assert calls


@pytest.mark.parametrize('name', MODULES)
@pytest.mark.parametrize('kind', ['forward', 'forward_pre', 'full_backward', 'full_backward_pre'])
def test_every_kind_of_hook_on_every_module_is_detected(name, kind):
    made = block()
    handle = getattr(made.get_submodule(name), f'register_{kind}_hook')(lambda *args: None)
    is_norm = name in ('norm1', 'norm2')  # called by both forms
    assert is_untouched(made) == is_norm
    handle.remove()
    assert is_untouched(made)


@pytest.mark.parametrize('kind', ['forward', 'forward_pre', 'full_backward', 'full_backward_pre'])
def test_global_hooks_are_detected(kind):
    made = block()
    handle = getattr(nn.modules.module, f'register_module_{kind}_hook')(lambda *args: None)
    assert not is_untouched(made)
    handle.remove()
    assert is_untouched(made)


def test_low_rank_adapters_change_the_output_and_are_trained():
    model = fill_by_name(MogaNetClassifier(num_classes=5, arch=TINY_ARCH)).requires_grad_(False)
    images = torch.randn(2, 3, 32, 32)
    before = model.eval()(images)
    adapters = []
    for m in list(model.modules()):
        if isinstance(m, MogaBlock):
            m.attn.proj_1 = LowRank(m.attn.proj_1)
            adapters.append(m.attn.proj_1)
    after = model(images)
    assert (after - before).abs().max() > 1e-4
    after.sum().backward()
    assert all(p.grad.abs().sum() > 0 for a in adapters for p in (a.up.weight, a.down.weight))
    for adapter in adapters:
        nn.init.zeros_(adapter.up.weight)
    torch.testing.assert_close(model(images), before, rtol=1e-4, atol=1e-5)


CONVOLUTIONS = [name for name, m in MogaBlock(16).named_modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize('name', CONVOLUTIONS)
@pytest.mark.parametrize(
    'change',
    [
        lambda conv: prune.l1_unstructured(conv, 'weight', 0.5),
        weight_norm,
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
    ],
    ids=['pruning', 'weight norm as hook', 'weight norm', 'spectral norm'],
)
@pytest.mark.filterwarnings('ignore')
def test_reparametrized_weights_are_up_to_date(name, change):
    """The output depends on the weight that the module computes now, not on that at the time of the change."""
    made, x = block(), torch.randn(1, 16, 8, 8)
    change(made.get_submodule(name))
    run = accelerated.select(made)
    conv = made.get_submodule(name)
    with torch.no_grad():
        for parameter in (p for key, p in conv.named_parameters() if 'weight' in key or 'original' in key):
            parameter.mul_(1.5)
            parameter.add_(0.01)
    out = run(x)
    twin = block()
    with torch.no_grad():
        twin.get_submodule(name).weight.copy_(conv.weight)  # computed by the call above
    torch.testing.assert_close(out, twin(x), rtol=1e-4, atol=1e-5)


def test_removing_a_parametrization_restores_acceleration():
    made = block()
    conv = parametrizations.weight_norm(made.attn.gate)
    assert not is_untouched(made)
    parametrize.remove_parametrizations(conv, 'weight')
    assert is_untouched(made)


class Louder(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    'change',
    [
        lambda m: setattr(m.attn, 'gate', Louder(16, 16, 1)),
        lambda m: setattr(m.attn, 'gate', nn.Identity()),
        lambda m: setattr(m.attn, 'gate', nn.Conv2d(16, 16, 1, bias=False)),
        lambda m: setattr(m.attn, 'gate', nn.Conv2d(16, 16, 3, padding=1)),
        lambda m: setattr(m.attn, 'gate', nn.Conv2d(16, 16, 1, groups=4)),
        lambda m: setattr(m.attn, 'proj_2', nn.Sequential(nn.Conv2d(16, 16, 1), nn.Identity())),
        lambda m: setattr(m.attn.value, 'DW_conv1', nn.Conv2d(6, 6, 5, padding=2, groups=2)),
        lambda m: setattr(m.attn.value, 'DW_conv1', nn.Conv2d(6, 6, 5, padding=2, groups=6, padding_mode='reflect')),
        lambda m: setattr(m.attn, 'act', nn.ReLU()),
        lambda m: setattr(m.attn, 'sigma', nn.Identity()),
        lambda m: setattr(m.mlp, 'act', nn.GELU(approximate='tanh')),
        lambda m: setattr(m.mlp, 'dwconv', nn.Conv2d(64, 64, (3, 5), padding=(1, 2), groups=64)),
        lambda m: setattr(m, 'drop_path', nn.Dropout2d(0.0)),
        lambda m: setattr(m.mlp, 'decompose', nn.Conv2d(64, 64, 1)),
        lambda m: setattr(m.attn, 'decompose', lambda p: p),
        lambda m: setattr(m.attn, 'aggregate', lambda gate, value: gate * value),
        lambda m: setattr(m.mlp, 'mix', lambda h: 2 * h),
        lambda m: setattr(m.mlp.dwconv, '_conv_forward', lambda x, weight, bias: 2 * x),
        lambda m: setattr(m.mlp, 'forward', lambda x: 2 * x),
        lambda m: setattr(m.mlp.fc1, 'forward', lambda x: torch.zeros(1, 64, 8, 8)),
    ],
)
def test_replaced_parts_and_patched_forwards_take_effect(change):
    made, x = block(), torch.randn(1, 16, 8, 8)
    change(made)
    assert accelerated.select(made) is made
    network = MogaNet(dict(embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), ffn_ratios=(2, 4, 2, 2))).eval()
    before = network(torch.ones(1, 3, 32, 32))
    change(network.blocks2[0])
    try:
        after = network(torch.ones(1, 3, 64, 64))  # 8 x 8 in stage 2
    except RuntimeError:
        return  # the block itself rejects the shapes of this part
    assert before[0].shape[1] == after[0].shape[1] and made(x).shape[1] == 16


def depthwise(channels=64, kernel_size=3, padding=1, **settings):
    return nn.Conv2d(channels, channels, kernel_size, padding=padding, groups=channels, **settings)


@pytest.mark.parametrize(
    'name, conv',
    [
        ('attn.gate', nn.Conv2d(16, 16, 1, stride=2)),
        ('attn.proj_1', nn.Conv2d(16, 16, 3)),
        ('attn.proj_2', nn.Conv2d(16, 16, 1, padding=1)),
        ('attn.value.PW_conv', nn.Conv2d(16, 16, 1, groups=2)),
        ('mlp.dwconv', depthwise(stride=2)),
        ('mlp.dwconv', depthwise(padding=0)),
        ('mlp.dwconv', depthwise(kernel_size=4, padding=2)),
        ('mlp.dwconv', depthwise(kernel_size=(3, 5))),
        ('mlp.dwconv', depthwise(dilation=(1, 2))),
        ('attn.value.DW_conv0', depthwise(16, dilation=2)),
    ],
    ids=str,
)
def test_a_convolution_with_other_settings_is_detected(name, conv):
    made = block()
    assert is_untouched(made)
    parent, _, last = name.rpartition('.')
    setattr(made.get_submodule(parent), last, conv)
    assert not is_untouched(made)


class Quantized(torch.Tensor):
    """A weight with its own arithmetic."""


PARAMETERS = [name for name, _ in MogaBlock(16).named_parameters() if name.startswith(('attn', 'mlp'))]


@pytest.mark.parametrize('name', PARAMETERS)
def test_a_parameter_of_another_type_is_detected(name):
    made = block()
    module, _, key = name.rpartition('.')
    value = made.get_parameter(name).detach()
    setattr(made.get_submodule(module), key, nn.Parameter(value.as_subclass(Quantized)))
    assert not is_untouched(made)
    setattr(made.get_submodule(module), key, nn.Parameter(value))
    assert is_untouched(made)


@pytest.mark.parametrize(
    'module, method',
    [
        ('attn', 'decompose'), ('attn', 'aggregate'), ('attn.value', 'forward'), ('attn.sigma', 'forward'),
        ('mlp', 'mix'), ('mlp.fc1', '_conv_forward'), ('mlp.act', 'forward'), ('', 'forward'),
    ],
)  # fmt: skip
def test_patched_methods_of_a_class_are_detected(module, method, monkeypatch):
    made = block()
    cls = type(made.get_submodule(module))
    original = getattr(cls, method)
    monkeypatch.setattr(cls, method, lambda self, *args: 2 * original(self, *args))
    assert not is_untouched(made)


def test_a_patched_class_takes_effect(monkeypatch):
    made, x = block(), torch.randn(1, 16, 8, 8)
    monkeypatch.setattr(type(made.attn), 'forward', lambda self, x: torch.zeros_like(x))
    assert not is_untouched(made)
    expected = x + made.layer_scale_2 * made.mlp(made.norm2(x))
    assert torch.equal(accelerated.select(made)(x), expected)


def test_parameters_passed_to_functional_call_are_used():
    model = MogaNet(TINY_ARCH).eval()
    parameters = {name: p.detach() * 1.1 for name, p in model.named_parameters()}
    images = torch.randn(1, 3, 32, 32)
    out = torch.func.functional_call(model, parameters, (images,))
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(parameters[name])
    for ours, theirs in zip(out, model(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())


class OneMap(nn.Module):
    """The last map of a network in eval mode, as the selected form computes it."""

    def __init__(self):
        super().__init__()
        self.network = fill_by_name(MogaNet(TINY_ARCH, out_indices=(3,))).double().eval()

    def forward(self, x):
        return self.network(x)[0]


@pytest.mark.parametrize('is_grad_enabled', [True, False])
def test_transforms_of_torch_func_work(is_grad_enabled):
    """Gradients agree with autograd, forward-mode derivatives with gradients, vmap with a loop."""
    model, x = OneMap(), torch.randn(2, 3, 32, 48, dtype=torch.double)
    name = 'network.blocks2.0.layer_scale_1'  # not a parameter of a convolution
    scale = model.get_parameter(name)

    def run(scale, x):
        return torch.func.functional_call(model, {name: scale}, (x,))

    expected = torch.autograd.grad(model(x).square().sum(), scale)[0]
    scale = scale.detach()
    with torch.set_grad_enabled(is_grad_enabled):
        grad = torch.func.grad(lambda scale: run(scale, x).square().sum())(scale)
        torch.testing.assert_close(grad, expected)
        out, tangent = torch.func.jvp(lambda scale: run(scale, x).square().sum(), (scale,), (scale,))
        torch.testing.assert_close(tangent, (expected * scale).sum())
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(scale, scale)
            out = torch.autograd.forward_ad.unpack_dual(run(dual, x).square().sum())
        torch.testing.assert_close(out.tangent, (expected * scale).sum())
        torch.testing.assert_close(torch.func.vmap(lambda image: model(image[None])[0])(x), model(x))
    assert accelerated.is_enabled()


def test_second_derivatives_are_refused_unless_acceleration_is_off():
    """Also if the first incoming gradient is a constant, for which torch would return wrong second derivatives."""
    model, x = OneMap().requires_grad_(False), torch.randn(1, 3, 32, 32, dtype=torch.double, requires_grad=True)
    with pytest.raises(UserError, match=r'second derivatives .*accelerated.disabled\(\)'):
        torch.autograd.grad(model(x).sum(), x, create_graph=True)
    with accelerated.disabled():
        assert torch.autograd.gradgradcheck(lambda x: model(x).sum(), (x,), fast_mode=True)


def test_dropout_in_the_feed_forward_network_turns_acceleration_off_only_in_training():
    made = fill_by_name(MogaBlock(16, drop_rate=0.5))
    made.train()
    assert accelerated.select(made) is made
    made.eval()
    assert accelerated.select(made) is not made


def test_multiply_adds_counted_by_hooks_are_complete():
    """Counters such as thop and torchinfo sum over hooks on leaf modules."""
    model, seen = MogaNetClassifier(arch='xtiny').eval(), []

    def count(module, args, out):
        per_output = module.weight[0].numel()
        seen.append(out.numel() * per_output)

    for m in model.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            m.register_forward_hook(count)
    with torch.no_grad():
        model(torch.randn(1, 3, 224, 224))
    # 0.79 G with 2 per value for the norms; 0.78 G without, as counted by these hooks.
    assert 0.95 * 0.79e9 < sum(seen) < 0.79e9


def test_the_classifier_is_traced_by_fx_with_acceleration_off():
    model, images = fill_by_name(MogaNetClassifier(num_classes=5, arch=TINY_ARCH)).eval(), torch.randn(2, 3, 32, 48)
    with accelerated.disabled():
        traced = torch.fx.symbolic_trace(model)
    called = {node.target for node in traced.graph.nodes if node.op == 'call_module'}
    torch_modules = {f'blocks1.0.{name}' for name in LEAVES if not name.endswith(('sigma', 'drop_path'))}
    assert torch_modules <= called  # fx traces into modules of other packages
    torch.testing.assert_close(traced(images), model(images), rtol=1e-4, atol=1e-5)


def test_acceleration_can_be_turned_off_and_on():
    made = block()
    assert accelerated.select(made) is not made
    with accelerated.disabled():
        assert accelerated.select(made) is made
        with pytest.raises(KeyError), accelerated.disabled():
            raise KeyError
        assert accelerated.select(made) is made
    assert accelerated.select(made) is not made


def test_acceleration_is_off_for_as_long_as_a_thread_needs_it():
    first_is_inside, second_is_inside, first_left, seen = Event(), Event(), Event(), []

    def first():
        with accelerated.disabled():
            first_is_inside.set()
            second_is_inside.wait(10)
        first_left.set()

    def second():
        first_is_inside.wait(10)
        with accelerated.disabled():
            second_is_inside.set()
            first_left.wait(10)
            seen.append(accelerated.is_enabled())

    threads = [Thread(target=first), Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [False] and accelerated.is_enabled()


def test_the_environment_variable_turns_acceleration_off():
    code = (
        'from mogacore.models import accelerated\n'
        'from mogacore.models.layers import MogaBlock\n'
        'made = MogaBlock(16)\n'
        'print(accelerated.select(made) is made)'
    )
    for value, expected in (('0', 'True'), ('1', 'False')):
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', code], env={'MOGACORE_ACCELERATED': value, 'PATH': ''},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == expected


def test_without_acceleration_maps_keep_the_layout_of_the_input():
    model = MogaNet(TINY_ARCH, channels_last_out=True).eval()
    video = SimVP(4, spatial_dims=8, temporal_dims=16, temporal_depth=3)
    seen = []
    model.blocks1[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].is_contiguous()))
    video.hid.register_forward_pre_hook(lambda _, args: seen.append(args[0].is_contiguous()))
    with accelerated.disabled():
        model(torch.randn(1, 3, 32, 32))
        video(torch.rand(1, 4, 1, 16, 16))
    assert seen == [True, True]


def test_recomputed_blocks_use_the_form_of_the_forward_pass():
    model = fill_by_name(MogaNet(TINY_ARCH, with_cp=True, out_indices=(3,), drop_path_rate=0.0)).train()
    images = torch.randn(2, 3, 32, 32).requires_grad_()
    found = []
    for is_plain in (False, True):
        model.zero_grad()
        if is_plain:
            with accelerated.disabled():
                out = model(images)[0]
        else:
            out = model(images)[0]
        out.square().sum().backward()  # outside the context
        found.append([p.grad.clone() for p in model.parameters()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
