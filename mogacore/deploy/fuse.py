"""Folding for inference: every BatchNorm becomes part of the convolutions beside it, exactly up to rounding.

The network keeps its modules and code; the norms become ``nn.Identity``. In eval mode a BatchNorm is ``a x + c`` per
channel. It is folded

* into a convolution before it, always;
* into the 1x1 convolutions after it, in a Moga block; a larger convolution pads with zeros after the norm;
* at the end of a stage, ``s x + t``, into the whole stage: the residual sum carries ``s x`` instead of ``x``.
"""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mogacore.errors import UserError
from mogacore.models.layers import MogaBlock, PatchEmbed
from mogacore.models.moganet import MogaNet
from mogacore.models.untouched import is_untouched

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
SMALLEST_SCALE = 1e-12  # a norm may have learned 0, and the folded network divides by its scale


def fuse(model: nn.Module) -> nn.Module:
    """An equal network for inference, with BatchNorm folded in every Moga block and after every convolution.

    Args:
        model: A backbone, classifier, detector, segmentor, pose model or video predictor; it is not changed.

    Returns:
        A copy in eval mode, of the same classes, without gradients. Its state dict lacks the norms.

    Raises:
        UserError: If a Moga block has another norm than BatchNorm, or was changed: by a hook, an adapter, a replaced
            part or one of the paper's ablations.
    """
    if not all(is_untouched(m) for m in model.modules() if isinstance(m, MogaBlock)):
        raise UserError(
            'a Moga block with a hook, an adapter or a replaced part (an ablation) cannot be fused: remove or merge it'
        )
    model = deepcopy(model).eval().requires_grad_(False)
    for module in model.modules():
        _fold_into_convolutions(module)
    for module in model.modules():
        if isinstance(module, MogaNet):
            for i in range(1, module.num_stages + 1):
                _fold_stage(module, i)
    for module in model.modules():
        if isinstance(module, MogaBlock) and not isinstance(module.norm1, nn.Identity):  # in a video predictor
            _fold_block(module)
    return model


def _fold_into_convolutions(module: nn.Module) -> None:
    """Fold the BatchNorm in a sequence, a patch embedding or mmcv's ConvModule into the convolution before it."""
    if isinstance(module, PatchEmbed):
        pairs = [('projection', 'norm')]
    elif hasattr(module, 'norm_name') and hasattr(module, 'conv'):
        in_order = getattr(module, 'order', ('conv', 'norm', 'act'))[:2] == ('conv', 'norm')
        pairs = [('conv', module.norm_name)] if in_order and module.with_norm else []
    elif isinstance(module, nn.Sequential):
        pairs = list(pairwise(name for name, _ in module.named_children()))
    else:
        pairs = []
    for first, second in pairs:
        conv, norm = getattr(module, first), getattr(module, second)
        if isinstance(conv, CONVOLUTIONS) and isinstance(norm, _BatchNorm):
            setattr(module, first, fuse_conv_bn_eval(conv, norm, isinstance(conv, nn.ConvTranspose2d)))
            setattr(module, second, nn.Identity())


def _fold_stage(backbone: MogaNet, i: int) -> None:
    if isinstance(getattr(backbone, f'norm{i}'), nn.Identity):  # fused before
        return
    patch_embed, blocks = getattr(backbone, f'patch_embed{i}'), getattr(backbone, f'blocks{i}')
    scale, shift = affine(getattr(backbone, f'norm{i}'))
    scale = _away_from_zero(scale)
    entry = patch_embed.projection if isinstance(patch_embed, PatchEmbed) else patch_embed.projection[3]
    _set(entry, entry.weight.double() * _rows(scale), entry.bias.double() * scale)
    for block in blocks:
        _fold_block(block, scale)
    last = blocks[-1].mlp.fc2
    _set(last, last.weight.double(), last.bias.double() + shift)
    setattr(backbone, f'norm{i}', nn.Identity())


def _fold_block(block: MogaBlock, stream_scale: Tensor | float = 1.0) -> None:
    """Fold the norms of a block, and its second layer scale, into its convolutions.

    Args:
        block: Block in eval mode.
        stream_scale: The folded block maps ``s x`` to ``s y`` where the block maps x to y; (C,) s, or 1.
    """
    attn, mlp = block.attn, block.mlp
    scale, shift = affine(block.norm1)
    scale = _away_from_zero(scale)
    _set(
        attn.proj_1,
        attn.proj_1.weight.double() * _columns(scale / stream_scale),
        attn.proj_1.bias.double() + attn.proj_1.weight.double().flatten(1) @ shift,
    )
    # s * ls * (proj_2(y) + a x + c) = ls * a * (s / a * (proj_2(y) + c) + s x), where the skip connection adds s x.
    gain = stream_scale / scale
    bias = gain * (attn.proj_2.bias.double() + shift)
    _set(attn.proj_2, attn.proj_2.weight.double() * _rows(gain), bias)
    block.layer_scale_1.copy_(block.layer_scale_1.double() * scale.view(1, -1, 1, 1))
    block.norm1 = nn.Identity()

    scale, shift = affine(block.norm2)
    bias = mlp.fc1.bias.double() + mlp.fc1.weight.double().flatten(1) @ shift
    _set(mlp.fc1, mlp.fc1.weight.double() * _columns(scale / stream_scale), bias)
    gain = block.layer_scale_2.double().flatten() * stream_scale
    _set(mlp.fc2, mlp.fc2.weight.double() * _rows(gain), mlp.fc2.bias.double() * gain)
    block.layer_scale_2.fill_(1)
    block.norm2 = nn.Identity()


def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale a and shift c, (C,) in float64, of a BatchNorm in eval mode: ``a x + c``.

    Raises:
        UserError: If the norm is another.
    """
    if not isinstance(norm, _BatchNorm):
        raise UserError(f'a MogaNet with {type(norm).__name__} cannot be fused: only BatchNorm has fixed statistics')
    scale = norm.weight.double() * torch.rsqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _away_from_zero(scale: Tensor) -> Tensor:
    return torch.where(scale < 0, scale.clamp(max=-SMALLEST_SCALE), scale.clamp(min=SMALLEST_SCALE))


def _rows(scale: Tensor | float) -> Tensor | float:
    """``scale`` for the output channels of a convolution's weight."""
    return scale.view(-1, 1, 1, 1) if isinstance(scale, Tensor) else scale


def _columns(scale: Tensor | float) -> Tensor | float:
    """``scale`` for the input channels of a convolution's weight."""
    return scale.view(1, -1, 1, 1) if isinstance(scale, Tensor) else scale


def _set(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    conv.weight.copy_(weight)
    conv.bias.copy_(bias)
