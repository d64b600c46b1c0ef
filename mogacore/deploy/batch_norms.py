"""Batch norms that a convolution or linear layer feeds, in any network: finding them, and folding them into that layer.

In eval mode, a batch norm is ``a x + c`` per channel. Which layer feeds it is read from the forward pass of the module
that owns both, recorded symbolically without running the layers.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeGuard

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd

from mogacore.errors import UserError
from mogacore.models.untouched import has_hooks

LAYERS = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
# mmcv's subclasses support empty maps in old versions of torch, or pad the input first.
LAYER_MODULES = ('mmcv.cnn.bricks.wrappers', 'mmcv.cnn.bricks.conv2d_adaptive_padding')
NORM_FORWARDS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)
IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)  # in eval mode
CONTAINERS = (nn.ModuleList, nn.ModuleDict)
FED_BY_INPUT = 'no convolution or linear layer feeds it'


def fold_batch_norms(model: nn.Module, leave: tuple[type[nn.Module], ...] = ()) -> dict[int, str]:
    """Fold each batch norm whose input is always the output of one convolution or linear layer, in place.

    Args:
        model: Network in eval mode, without gradients.
        leave: Classes whose own batch norms are left.

    Returns:
        Why a batch norm is left, by its ``id``.

    Raises:
        UserError: If folded weights overflow their data type.
    """
    owners = Counter(id(child) for parent in model.modules() for child in parent._modules.values())
    holders = Counter(id(parameter) for module in model.modules() for parameter in module._parameters.values())
    reasons: dict[int, str] = {}
    settled: set[int] = set()
    for parent in list(model.modules()):  # from outside to inside; an outer module sees more uses
        if isinstance(parent, (*leave, *CONTAINERS)):
            continue
        norms = {id(part): name for name, part in _entered(parent) if is_norm(part) and id(part) not in settled}
        if not norms:
            continue
        if getattr(parent, 'efficient_conv_bn_eval_forward', None):  # of mmcv's ConvModule; the function needs the norm
            parent.__dict__['efficient_conv_bn_eval_forward'] = None
        calls = _record(parent)
        order = list(calls)
        for name in sorted(norms.values(), key=lambda name: order.index(name) if name in calls else -1):
            norm = parent.get_submodule(name)
            found: nn.Module | str
            if not is_batch_norm(norm):
                found = f'{type(norm).__name__} with a hook, without running statistics or of another class'
            elif name not in calls:
                reasons.setdefault(id(norm), f'the forward pass of {type(parent).__name__} cannot be followed')
                continue  # an inner module may show what feeds it
            else:
                found = _find_layer(parent, name, norm, calls, owners, holders)
                if isinstance(found, nn.Module):
                    fold_into(found, norm)
                    owner, _, child = name.rpartition('.')
                    setattr(parent.get_submodule(owner), child, nn.Identity())
                    found = 'folded'
            if found != FED_BY_INPUT or id(norm) not in reasons:
                reasons[id(norm)] = found
            settled.add(id(norm))
    return reasons


def _find_layer(
    parent: nn.Module, name: str, norm: _BatchNorm, calls: dict[str, list], owners: Counter, holders: Counter
) -> nn.Module | str:
    """The layer to fold a batch norm into, or the reason why there is none."""
    names = set()
    for node in calls[name]:
        source = _argument(node)
        while source and isinstance(parent.get_submodule(source.target), IDENTITIES) and len(source.users) == 1:
            source = _argument(source)
        if source is None or not isinstance(parent.get_submodule(source.target), (*LAYERS, *IDENTITIES)):
            return FED_BY_INPUT
        if len(source.users) > 1:
            return f'{source.target}, which feeds it, also feeds other parts'
        names.add(source.target)
    layer_name = names.pop()
    layer = parent.get_submodule(layer_name)
    if names or len(calls[layer_name]) != len(calls[name]) or _is_shared(parent, layer_name, name, owners):
        return f'it or {layer_name}, which feeds it, is used in more than one place'
    if not is_layer(layer):
        return f'{layer_name}, which feeds it, is a modified {type(layer).__name__}'
    if any(holders[id(parameter)] > 1 for parameter in layer.parameters()):
        return f'{layer_name}, which feeds it, shares its weights'
    is_linear = isinstance(layer, nn.Linear)
    width = layer.out_features if is_linear else layer.out_channels
    if width != norm.num_features or (is_linear and isinstance(norm, (nn.BatchNorm2d, nn.BatchNorm3d))):
        return f'it normalizes another axis than that of the outputs of {layer_name}'
    return layer


def _argument(node: Any) -> Any:
    """The call of a child module whose output is the input of ``node``; None if it is something else."""
    source = next(iter((*node.args, *node.kwargs.values())), None)
    return source if isinstance(source, fx.Node) and source.op == 'call_module' else None


def _is_shared(parent: nn.Module, layer: str, norm: str, owners: Counter) -> bool:
    """Whether layer or norm is also part of another module, or one of their owners is, unless they have the same."""
    paths = [layer.split('.'), norm.split('.')]
    first = max(map(len, paths)) - 1 if paths[0][:-1] == paths[1][:-1] else 0
    return any(
        owners[id(parent.get_submodule('.'.join(path[: end + 1])))] > 1
        for path in paths
        for end in range(first, len(path))
    )


def _is_sequence(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and not is_patched(module)
    )


def _entered(module: nn.Module, prefix: str = '') -> Iterator[tuple[str, nn.Module]]:
    """Children of a module with their names, including those of plain sequences and lists, under one name each."""
    for name, child in module.named_children():
        yield prefix + name, child
        if _is_sequence(child) or isinstance(child, CONTAINERS):
            yield from _entered(child, f'{prefix}{name}.')


class _Recorder(fx.Tracer):
    """Records which child is called with what; plain sequences are entered."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not _is_sequence(m)


def _record(module: nn.Module) -> dict[str, list[fx.Node]]:
    """Uses of each child in the forward pass, flags at their default; empty if it depends on the data."""
    if 'forward' in module.__dict__:
        return {}
    parameters = inspect.signature(type(module).forward).parameters.values()
    flags = {p.name: p.default for p in parameters if isinstance(p.default, (bool, int, float, type(None)))}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            graph = _Recorder().trace(copy.copy(module), flags)
    except Exception:  # foreign code that gets symbols instead of tensors may raise anything
        return {}
    uses: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op == 'call_module':
            uses.setdefault(str(node.target), []).append(node)
        elif node.op == 'get_attr':  # a parameter
            uses.setdefault(str(node.target).rpartition('.')[0], []).append(node)
    return uses


def is_patched(module: nn.Module) -> bool:
    """Whether a hook or a replaced ``forward`` may change what a module computes."""
    return has_hooks(module) or 'forward' in module.__dict__


def is_layer(layer: nn.Module) -> bool:
    """Whether ``layer`` is an unmodified convolution or linear layer of torch or mmcv."""
    is_known = type(layer) in LAYERS or type(layer).__module__ in LAYER_MODULES
    return is_known and isinstance(layer, LAYERS) and not is_patched(layer)


def is_norm(module: nn.Module) -> bool:
    """Whether ``module`` is a batch norm of any library."""
    return isinstance(module, _BatchNorm) or getattr(module, 'running_mean', None) is not None


def is_batch_norm(norm: nn.Module) -> TypeGuard[_BatchNorm]:
    """Whether ``norm`` computes what BatchNorm does in eval mode with running statistics."""
    return (
        isinstance(norm, _BatchNorm)
        and type(norm).forward in NORM_FORWARDS
        and norm.running_mean is not None
        and not is_patched(norm)
    )


def affine(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Scale a and shift c, (C,) in float64, of a BatchNorm in eval mode: ``a x + c``."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.double()


def fold_into(layer: Any, norm: _BatchNorm) -> None:
    """Change weight and bias of a layer, so that it computes ``norm(layer(x))``."""
    scale, shift = affine(norm)
    weight = layer.weight.double()
    if isinstance(layer, _ConvTransposeNd):  # (inputs, outputs / groups, ...), the inputs by group
        grouped = weight.unflatten(0, (layer.groups, -1))
        weight = (grouped * scale.view(layer.groups, 1, -1, *[1] * (weight.dim() - 2))).flatten(0, 1)
    else:
        weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    bias = shift if layer.bias is None else layer.bias.double() * scale + shift
    if layer.bias is None:
        layer.bias = nn.Parameter(torch.zeros_like(bias, dtype=layer.weight.dtype), requires_grad=False)
    set_parameters(layer, weight, bias)


def set_parameters(layer: Any, weight: Tensor, bias: Tensor) -> None:
    """Replace the values of weight and bias.

    Raises:
        UserError: If they overflow the data type of the layer.
    """
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    if not weight.is_meta and not (layer.weight.isfinite().all() and layer.bias.isfinite().all()):
        raise UserError(f'folding the norms overflows {layer.weight.dtype}: use float32')
