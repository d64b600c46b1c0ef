"""Whether a Moga block still computes exactly what its constructor set up."""

from __future__ import annotations

from torch import nn
from torch.nn.modules import module as torch_module

from .layers import (
    ChannelAggregationFFN,
    DropPath,
    ElementScale,
    MogaBlock,
    MultiOrderDWConv,
    MultiOrderGatedAggregation,
)

# What each class computes, to notice a class that was patched.
FORWARDS = {
    cls: cls.forward
    for cls in (
        MogaBlock,
        MultiOrderGatedAggregation,
        MultiOrderDWConv,
        ChannelAggregationFFN,
        ElementScale,
        DropPath,
        nn.Conv2d,
        nn.SiLU,
        nn.GELU,
        nn.Dropout,
    )
}
GLOBAL_HOOKS = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)


def is_untouched(block: nn.Module) -> bool:
    """Whether ``block`` is a :class:`MogaBlock` that computes exactly what its constructor set up.

    False after anything that works by wrapping a module: a hook, a parametrization, a replaced child, a subclass, a
    patched ``forward``, a parameter of another tensor type. The norms may be anything, since :func:`run_block` calls
    them.
    """
    # Runs for every block of every pass: reads the dicts of the modules, which is three times as fast as attributes.
    if any(GLOBAL_HOOKS) or not _is_original(block, MogaBlock):
        return False
    parts = block._modules
    attn, mlp, drop_path = parts['attn'], parts['mlp'], parts['drop_path']
    if not (_is_original(attn, MultiOrderGatedAggregation) and _is_original(mlp, ChannelAggregationFFN)):
        return False
    attn, mlp = attn._modules, mlp._modules
    value, drop = attn['value'], mlp['drop']
    return (
        _is_original(value, MultiOrderDWConv)
        and all(_is_pointwise(attn[name]) for name in ('proj_1', 'gate', 'proj_2'))
        and all(_is_depthwise(value._modules[name]) for name in ('DW_conv0', 'DW_conv1', 'DW_conv2'))
        and _is_pointwise(value._modules['PW_conv'])
        and all(_is_pointwise(mlp[name]) for name in ('fc1', 'decompose', 'fc2'))
        and _is_depthwise(mlp['dwconv'])
        and _is_scale(attn['sigma'])
        and _is_scale(mlp['sigma'])
        and _is_original(attn['act'], nn.SiLU)
        and _is_original(mlp['act'], nn.GELU)
        and mlp['act'].approximate == 'none'
        and _is_original(drop_path, DropPath)
        and _is_original(drop, nn.Dropout)
    )


def _is_original(module: nn.Module, cls: type[nn.Module]) -> bool:
    state = module.__dict__
    return type(module) is cls and cls.forward is FORWARDS[cls] and not (
        state['_forward_hooks']
        or state['_forward_pre_hooks']
        or state['_backward_hooks']
        or state['_backward_pre_hooks']
        or 'forward' in state
    )  # fmt: skip


def _is_scale(module: nn.Module) -> bool:
    return _is_original(module, ElementScale) and type(module._parameters.get('scale')) is nn.Parameter


def _is_convolution(conv: nn.Module) -> bool:
    if not _is_original(conv, nn.Conv2d):
        return False
    parameters = conv._parameters
    return (
        type(parameters.get('weight')) is nn.Parameter
        and type(parameters.get('bias')) is nn.Parameter
        and conv.stride == (1, 1)
        and conv.padding_mode == 'zeros'
    )


def _is_pointwise(conv: nn.Module) -> bool:
    return _is_convolution(conv) and conv.kernel_size == (1, 1) and conv.padding == (0, 0) and conv.groups == 1


def _is_depthwise(conv: nn.Module) -> bool:
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
