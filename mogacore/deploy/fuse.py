"""Folding for inference: every BatchNorm becomes part of the adjacent convolutions, exactly up to rounding.

The network keeps its modules and code; the norms become ``nn.Identity``. In eval mode, a BatchNorm is ``a x + c`` per
channel. It is folded

* into the convolution before it, always;
* into the 1x1 convolutions after it, in a Moga block; larger kernels do not allow this, since they pad the output of
  the norm with zeros;
* at the end of a stage, where it is ``s x + t``, into the whole stage: the residual stream becomes ``s x``.
"""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mogacore.errors import UserError
from mogacore.models.layers import MogaBlock, PatchEmbed, StemPatchEmbed
from mogacore.models.moganet import MogaNet
from mogacore.models.untouched import has_hooks, is_untouched

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
NORM_FORWARDS = (nn.BatchNorm2d.forward, nn.SyncBatchNorm.forward)
SMALLEST_SCALE = 1e-12  # the folding divides by the scale of a norm, which may be 0


def fuse(model: nn.Module) -> nn.Module:
    """Equivalent network for inference, with BatchNorm folded in every Moga block and after every convolution.

    Args:
        model: A backbone, classifier, detector, segmentor, pose model or video predictor; it is not modified.

    Returns:
        A copy in eval mode with the same classes, without gradients. Its state dict does not contain the norms.

    Raises:
        UserError: If a MogaNet or Moga block has a norm other than BatchNorm, shares a parameter between blocks, or was
            modified by a hook, an adapter, a replaced part or one of the paper's ablations; or if the folded weights
            overflow, as those of a norm with a scale of 0 do in float16.
    """
    blocks = [m for m in model.modules() if isinstance(m, MogaBlock)]
    if not all(is_untouched(block) for block in blocks):
        raise _modified('Moga block')
    if not all(_is_untouched_embedding(m) for m in model.modules() if isinstance(m, (PatchEmbed, StemPatchEmbed))):
        raise _modified('patch embedding')
    parameters = [id(p) for block in blocks for _, p in block.named_parameters(remove_duplicate=False)]
    if len(set(parameters)) < len(parameters):
        raise UserError('Moga blocks that share a parameter cannot be fused: copy it')
    model = deepcopy(model).eval().requires_grad_(False)
    for module in model.modules():
        _fold_into_convolutions(module)
    for module in model.modules():
        if isinstance(module, MogaNet):
            for i in range(1, module.num_stages + 1):
                _fold_stage(module, i)
    for module in model.modules():
        if isinstance(module, MogaBlock) and not isinstance(module.norm1, nn.Identity):  # of a video predictor
            _fold_block(module)
    return model


def _is_patched(module: nn.Module) -> bool:
    return has_hooks(module) or 'forward' in module.__dict__


def _modified(part: str) -> UserError:
    return UserError(
        f'a {part} with a hook, an adapter or a replaced part (an ablation) cannot be fused: remove or merge it'
    )


def _unsuitable(norm: nn.Module) -> UserError:
    return UserError(
        f'a MogaNet with {type(norm).__name__} cannot be fused: use BatchNorm with running statistics and no hook'
    )


def _is_untouched_embedding(embed: PatchEmbed | StemPatchEmbed) -> bool:
    last = embed.projection if isinstance(embed, PatchEmbed) else embed.projection[3]
    return type(last) is nn.Conv2d and not any(map(_is_patched, embed.modules()))


def _is_convolution(conv: nn.Module) -> bool:
    """Whether ``conv`` is torch's convolution or mmcv's, which adds support for empty maps to old versions of torch."""
    is_known = type(conv) in CONVOLUTIONS or type(conv).__module__ == 'mmcv.cnn.bricks.wrappers'
    return is_known and isinstance(conv, CONVOLUTIONS) and not _is_patched(conv)


def _is_batch_norm(norm: nn.Module) -> TypeGuard[_BatchNorm]:
    """Whether ``norm`` computes what BatchNorm does in eval mode with running statistics."""
    return (
        isinstance(norm, _BatchNorm)
        and type(norm).forward in NORM_FORWARDS
        and norm.running_mean is not None
        and not _is_patched(norm)
    )


def _fold_into_convolutions(module: nn.Module) -> None:
    """Fold each BatchNorm of a sequence, a patch embedding or mmcv's ConvModule into the convolution before it."""
    pairs: list[tuple[str, str]]
    if isinstance(module, PatchEmbed):
        pairs = [('projection', 'norm')]
    elif hasattr(module, 'norm_name') and hasattr(module, 'conv'):
        in_order = getattr(module, 'order', ('conv', 'norm', 'act'))[:2] == ('conv', 'norm')
        pairs = [('conv', str(module.norm_name))] if in_order and module.with_norm else []
    elif isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        pairs = list(pairwise(name for name, _ in module.named_children()))
    else:
        pairs = []
    for first, second in pairs:
        conv, norm = getattr(module, first), getattr(module, second)
        if _is_convolution(conv) and _is_batch_norm(norm):
            setattr(module, first, fuse_conv_bn_eval(conv, norm, isinstance(conv, nn.ConvTranspose2d)))
            setattr(module, second, nn.Identity())


def _fold_stage(backbone: MogaNet, i: int) -> None:
    if isinstance(getattr(backbone, f'norm{i}'), nn.Identity):  # already fused
        return
    patch_embed, blocks = getattr(backbone, f'patch_embed{i}'), getattr(backbone, f'blocks{i}')
    if isinstance(patch_embed, PatchEmbed):
        entry, norm = patch_embed.projection, patch_embed.norm
    else:
        entry, norm = patch_embed.projection[3:]
    if not isinstance(norm, nn.Identity):  # not folded
        raise _unsuitable(norm)
    scale, shift = affine(getattr(backbone, f'norm{i}'))
    scale = _away_from_zero(scale)
    weight, bias = _double(entry)
    _set(entry, weight * _rows(scale), bias * scale)
    for block in blocks:
        _fold_block(block, scale)
    last = blocks[-1].mlp.fc2
    weight, bias = _double(last)
    _set(last, weight, bias + shift)
    setattr(backbone, f'norm{i}', nn.Identity())


def _fold_block(block: MogaBlock, stream_scale: Tensor | float = 1.0) -> None:
    """Fold the norms of a block, and its second layer scale, into its convolutions.

    Args:
        block: Block in eval mode.
        stream_scale: Scale s of the residual stream, (C,) or 1. If the block maps x to y, the folded block maps ``s x``
            to ``s y``.
    """
    attn, mlp = block.attn, block.mlp
    scale, shift = affine(block.norm1)
    scale = _away_from_zero(scale)
    weight, bias = _double(attn.proj_1)
    _set(attn.proj_1, weight * _columns(scale / stream_scale), bias + weight.flatten(1) @ shift)
    # s * ls * (proj_2(y) + a x + c) = ls * a * (s / a * (proj_2(y) + c) + s x), where the skip connection adds s x.
    gain = stream_scale / scale
    weight, bias = _double(attn.proj_2)
    _set(attn.proj_2, weight * _rows(gain), gain * (bias + shift))
    block.layer_scale_1.copy_(block.layer_scale_1.double() * scale.view(1, -1, 1, 1))
    block.norm1 = nn.Identity()

    scale, shift = affine(block.norm2)
    weight, bias = _double(mlp.fc1)
    _set(mlp.fc1, weight * _columns(scale / stream_scale), bias + weight.flatten(1) @ shift)
    gain = block.layer_scale_2.double().flatten() * stream_scale
    weight, bias = _double(mlp.fc2)
    _set(mlp.fc2, weight * _rows(gain), bias * gain)
    block.layer_scale_2.fill_(1)
    block.norm2 = nn.Identity()


def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale a and shift c, (C,) in float64, of a BatchNorm in eval mode: ``a x + c``.

    Raises:
        UserError: If the norm is not a BatchNorm with running statistics, or has a hook.
    """
    if not _is_batch_norm(norm):
        raise _unsuitable(norm)
    assert norm.running_mean is not None and norm.running_var is not None
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if not norm.affine:
        return scale, -norm.running_mean.double() * scale
    scale = scale * norm.weight.double()
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _away_from_zero(scale: Tensor) -> Tensor:
    return torch.where(scale < 0, scale.clamp(max=-SMALLEST_SCALE), scale.clamp(min=SMALLEST_SCALE))


def _rows(scale: Tensor | float) -> Tensor | float:
    """Reshape ``scale`` to multiply the output channels of a convolution weight."""
    return scale.view(-1, 1, 1, 1) if isinstance(scale, Tensor) else scale


def _columns(scale: Tensor | float) -> Tensor | float:
    """Reshape ``scale`` to multiply the input channels of a convolution weight."""
    return scale.view(1, -1, 1, 1) if isinstance(scale, Tensor) else scale


def _double(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias in float64."""
    assert conv.bias is not None
    return conv.weight.double(), conv.bias.double()


def _set(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    assert conv.bias is not None
    conv.weight.copy_(weight)
    conv.bias.copy_(bias)
    if not weight.is_meta and not (conv.weight.isfinite().all() and conv.bias.isfinite().all()):
        raise UserError(f'folding the norms overflows {conv.weight.dtype}: use float32')
