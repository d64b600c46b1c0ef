"""Check whether a Moga block still computes exactly what its constructor set up."""

from __future__ import annotations

from typing import TypeGuard, TypeVar

from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.nn.modules import module as torch_module

from .layers import (
    ChannelAggregationFFN,
    DropPath,
    ElementScale,
    MogaBlock,
    MultiOrderDWConv,
    MultiOrderGatedAggregation,
)

M = TypeVar('M', bound=nn.Module)

# The methods that compute the output of each class, to detect a patched class or instance.
METHODS: dict[type[nn.Module], tuple[str, ...]] = {
    MogaBlock: ('forward',),
    MultiOrderGatedAggregation: ('forward', 'decompose', 'aggregate'),
    MultiOrderDWConv: ('forward',),
    ChannelAggregationFFN: ('forward', 'mix'),
    ElementScale: ('forward',),
    DropPath: ('forward',),
    nn.Conv2d: ('forward', '_conv_forward'),
    nn.SiLU: ('forward',),
    nn.GELU: ('forward',),
    nn.Dropout: ('forward',),
}
ORIGINALS = [(cls, name, getattr(cls, name)) for cls, names in METHODS.items() for name in names]
# torch.export and torch.compile run a network with tensors of the last two types in place of its parameters.
PARAMETERS = (nn.Parameter, FakeTensor, FunctionalTensor)
GLOBAL_HOOKS = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)


def is_untouched(block: nn.Module) -> TypeGuard[MogaBlock]:
    """Whether ``block`` is a :class:`MogaBlock` that computes exactly what its constructor set up.

    False after anything that works by wrapping a module: a hook, a parametrization, a replaced child, a subclass, a
    patched ``forward``, a parameter of another tensor type. The norms may be of any kind, since :func:`run_block` calls
    them.
    """
    # Runs for every block in every pass. Reading the dicts of the modules is three times as fast as attribute access.
    if any(GLOBAL_HOOKS) or any(getattr(cls, name) is not original for cls, name, original in ORIGINALS):
        return False
    if not _is_original(block, MogaBlock):
        return False
    children = block._modules
    attn, mlp, drop_path = children['attn'], children['mlp'], children['drop_path']
    if not (_is_original(attn, MultiOrderGatedAggregation) and _is_original(mlp, ChannelAggregationFFN)):
        return False
    in_attn, in_mlp = attn._modules, mlp._modules
    value, act, decompose = in_attn['value'], in_mlp['act'], in_mlp['decompose']
    return (
        _is_original(value, MultiOrderDWConv)
        and _is_pointwise(in_attn['proj_1'])
        and _is_pointwise(in_attn['gate'])
        and _is_pointwise(in_attn['proj_2'])
        and _is_depthwise(value._modules['DW_conv0'])
        and _is_depthwise(value._modules['DW_conv1'])
        and _is_depthwise(value._modules['DW_conv2'])
        and _is_pointwise(value._modules['PW_conv'])
        and _is_pointwise(in_mlp['fc1'])
        and _is_pointwise(in_mlp['fc2'])
        and _is_pointwise(decompose)
        and decompose.out_channels == 1
        and _is_depthwise(in_mlp['dwconv'])
        and _is_scale(in_attn['sigma'])
        and _is_scale(in_mlp['sigma'])
        and _is_original(in_attn['act'], nn.SiLU)
        and _is_original(act, nn.GELU)
        and act.approximate == 'none'
        and _is_original(drop_path, DropPath)
        and _is_original(in_mlp['drop'], nn.Dropout)
    )


def has_hooks(module: nn.Module) -> bool:
    """Whether ``module`` has a hook; pruning and the older weight and spectral norm are hooks, too."""
    state = module.__dict__
    return bool(
        state['_forward_hooks']
        or state['_forward_pre_hooks']
        or state['_backward_hooks']
        or state['_backward_pre_hooks']
    )


def _is_original(module: nn.Module | None, cls: type[M]) -> TypeGuard[M]:
    if module is None or type(module) is not cls or has_hooks(module):
        return False
    for name in METHODS[cls]:  # noqa: SIM110  # a generator would be slower
        if name in module.__dict__:
            return False
    return True


def _is_scale(module: nn.Module | None) -> bool:
    return _is_original(module, ElementScale) and type(module._parameters.get('scale')) in PARAMETERS


def _is_convolution(conv: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    if not _is_original(conv, nn.Conv2d):
        return False
    parameters = conv._parameters
    return (
        type(parameters.get('weight')) in PARAMETERS
        and type(parameters.get('bias')) in PARAMETERS
        and conv.stride == (1, 1)
        and conv.padding_mode == 'zeros'
    )


def _is_pointwise(conv: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    return _is_convolution(conv) and conv.kernel_size == (1, 1) and conv.padding == (0, 0) and conv.groups == 1


def _is_depthwise(conv: nn.Module | None) -> bool:
    if not _is_convolution(conv):
        return False
    (height, width), (dilation, other_dilation) = conv.kernel_size, conv.dilation
    padding = dilation * (height // 2)
    return (
        height == width
        and height % 2 == 1
        and dilation == other_dilation
        and conv.padding == (padding, padding)
        and conv.groups == conv.in_channels == conv.out_channels
    )
