"""Folding for inference: batch norms become part of the adjacent layers, exactly up to rounding.

The network keeps its modules and code; the norms become ``nn.Identity``. In eval mode, a BatchNorm is ``a x + c`` per
channel. It is folded

* into the convolution or linear layer before it, always (batch_norms.py);
* into the 1x1 convolutions after it, in a Moga block; larger kernels do not allow this, since they pad the output of
  the norm with zeros;
* at the end of a stage, where it is ``s x + t``, into the whole stage: the residual stream becomes ``s x``.
"""

from __future__ import annotations

import logging
from copy import deepcopy

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mogacore.errors import UserError
from mogacore.kinds import checks_arguments
from mogacore.models.layers import MogaBlock, PatchEmbed, StemPatchEmbed
from mogacore.models.moganet import MogaNet
from mogacore.models.untouched import is_untouched
from mogacore.text import shorten

from .batch_norms import affine, fold_batch_norms, is_batch_norm, is_norm, is_patched, set_parameters

# The folding divides by the scales of norms, which may be 0. Where a norm multiplies normalized values by less than
# this, the network is rewritten without that division.
SMALLEST_GAIN = 2.0**-8
SMALL_SCALES = 'since it multiplies channels by almost 0'


@checks_arguments()
def fuse(model: nn.Module) -> nn.Module:
    """Equivalent network for inference, with every batch norm folded that a convolution or linear layer feeds.

    In a Moga block and a MogaNet, the other ones are folded as well. What is left is logged, see :func:`unfused`.

    Args:
        model: A backbone, classifier, detector, segmentor, pose model or video predictor; it is not modified.

    Returns:
        A copy in eval mode with the same classes, without gradients. Its state dict does not contain the folded norms.

    Raises:
        UserError: If a MogaNet or Moga block has a norm other than BatchNorm, shares a parameter between blocks, or was
            modified by a hook, an adapter, a replaced part or one of the paper's ablations; or if the folded weights
            overflow their data type.
    """
    fused, left = _fuse(model)
    names: dict[str, list[str]] = {}
    for name, reason in left.items():
        names.setdefault(reason, []).append(name)
    for reason, group in names.items():
        print_log(f'fuse leaves {len(group)} batch norm(s), {reason}: {shorten(group)}', 'current', logging.WARNING)
    return fused


@checks_arguments()
def unfused(model: nn.Module) -> dict[str, str]:
    """The batch norms that :func:`fuse` leaves in a network, by name, with the reason.

    Args:
        model: See :func:`fuse`; a network that is already fused is accepted.

    Raises:
        UserError: See :func:`fuse`.
    """
    return _fuse(model)[1]


def _fuse(model: nn.Module) -> tuple[nn.Module, dict[str, str]]:
    blocks = [m for _, m in model.named_modules(remove_duplicate=False) if isinstance(m, MogaBlock)]
    if not all(is_untouched(block) for block in blocks):
        raise _modified('Moga block')
    if not all(_is_untouched_embedding(m) for m in model.modules() if isinstance(m, (PatchEmbed, StemPatchEmbed))):
        raise _modified('patch embedding')
    parameters = [id(p) for block in blocks for _, p in block.named_parameters(remove_duplicate=False)]
    if len(set(parameters)) < len(parameters):
        raise UserError('Moga blocks that share a parameter cannot be fused: copy it')
    model = deepcopy(model).requires_grad_(False)
    model.eval()  # of mmpretrain's networks, it does not return the network
    reasons = fold_batch_norms(model, leave=(MogaNet, MogaBlock))
    for module in model.modules():
        if isinstance(module, MogaNet):
            for i in range(1, module.num_stages + 1):
                _fold_stage(module, i)
    for module in model.modules():
        if isinstance(module, MogaBlock):  # of a video predictor; the others are folded by now
            _fold_block(module)
    left = {name: module for name, module in model.named_modules() if is_norm(module)}
    return model, {name: reasons.get(id(module), SMALL_SCALES) for name, module in left.items()}


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
    return type(last) is nn.Conv2d and not any(map(is_patched, embed.modules()))


def _fold_stage(backbone: MogaNet, i: int) -> None:
    patch_embed, blocks = getattr(backbone, f'patch_embed{i}'), getattr(backbone, f'blocks{i}')
    if isinstance(patch_embed, PatchEmbed):
        entry, norm = patch_embed.projection, patch_embed.norm
    else:
        entry, norm = patch_embed.projection[3:]
    if not isinstance(norm, nn.Identity):  # not folded
        raise _unsuitable(norm)
    last, norm = blocks[-1].mlp.fc2, getattr(backbone, f'norm{i}')
    if isinstance(norm, nn.Identity):  # already fused
        return
    scale, shift, is_weak = _read(norm)
    if is_weak.any():
        scale = torch.ones_like(scale)
    for block in blocks:
        scale = scale / _gains(block)[1]
    weight, bias = _double(entry)
    set_parameters(entry, weight * _rows(scale), bias * scale)
    for block in blocks:
        scale = _fold_block(block, scale)
    if not is_weak.any():
        weight, bias = _double(last)
        set_parameters(last, weight, bias + shift)
        setattr(backbone, f'norm{i}', nn.Identity())


def _fold_block(block: MogaBlock, stream_scale: Tensor | None = None) -> Tensor:
    """Fold the norms of a block, and its second layer scale, into its convolutions.

    Args:
        block: Block in eval mode.
        stream_scale: Scale s of the residual stream, (C,): if the block maps x to y, the folded block maps ``s x`` to
            ``s g y``. None for a stream that must keep its scale; then ``norm1`` is left if a growth g is not 1.

    Returns:
        The scale after the block, s g.
    """
    attn, mlp = block.attn, block.mlp
    skip, growth, gain = _gains(block)
    is_free = stream_scale is not None
    if stream_scale is None:
        stream_scale = torch.ones_like(growth)
    if not isinstance(block.norm1, nn.Identity) and (is_free or (growth == 1).all()):
        scale, shift, _ = _read(block.norm1)
        weight, bias = _double(attn.proj_1)
        set_parameters(attn.proj_1, weight * _columns(scale / stream_scale), bias + weight.flatten(1) @ shift)
        stream_scale = stream_scale * growth
        gain = gain * stream_scale
        weight, bias = _double(attn.proj_2)
        set_parameters(attn.proj_2, weight * _rows(gain), gain * (bias + shift))
        block.layer_scale_1.copy_(skip.view_as(block.layer_scale_1))
        block.norm1 = nn.Identity()
    if not isinstance(block.norm2, nn.Identity):
        scale, shift, _ = _read(block.norm2)
        weight, bias = _double(mlp.fc1)
        set_parameters(mlp.fc1, weight * _columns(scale / stream_scale), bias + weight.flatten(1) @ shift)
        gain = block.layer_scale_2.double().flatten() * stream_scale
        weight, bias = _double(mlp.fc2)
        set_parameters(mlp.fc2, weight * _rows(gain), bias * gain)
        block.layer_scale_2.fill_(1)
        block.norm2 = nn.Identity()
    return stream_scale


def _gains(block: MogaBlock) -> tuple[Tensor, Tensor, Tensor]:
    """How to fold the first norm ``a x + c`` of a block into its spatial aggregation, each (C,).

    With layer scale ls, the block computes ``x + ls (proj_2(y) + a x + c)``, which is equal to
    ``((1 + skip) x + skip gain growth (proj_2(y) + c)) / growth``.

    Returns:
        skip, which replaces ls; growth, by which the scale of the residual stream increases; and gain. As long as a is
        not small: ``ls a``, 1 and ``1 / a``.
    """
    layer_scale = block.layer_scale_1.double().flatten()
    if isinstance(block.norm1, nn.Identity):
        one = torch.ones_like(layer_scale)
        return layer_scale, one, one
    scale, _, is_weak = _read(block.norm1)
    product = layer_scale * scale
    is_weak = is_weak & (product > -0.5)
    skip = torch.where(is_weak, SMALLEST_GAIN, product)
    growth = torch.where(is_weak, (1 + SMALLEST_GAIN) / (1 + product), 1.0)
    return skip, growth, torch.where(is_weak, layer_scale / SMALLEST_GAIN, 1 / scale)


def _read(norm: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Scale and shift of a BatchNorm, and which channels it multiplies by less than ``SMALLEST_GAIN``, each (C,).

    Raises:
        UserError: If the norm is not a BatchNorm with running statistics, or has a hook.
    """
    if not is_batch_norm(norm):
        raise _unsuitable(norm)
    scale, shift = affine(norm)
    return scale, shift, torch.zeros_like(scale) > 0 if norm.weight is None else norm.weight.abs() < SMALLEST_GAIN


def _rows(scale: Tensor) -> Tensor:
    """Reshape ``scale`` to multiply the output channels of a convolution weight."""
    return scale.view(-1, 1, 1, 1)


def _columns(scale: Tensor) -> Tensor:
    """Reshape ``scale`` to multiply the input channels of a convolution weight."""
    return scale.view(1, -1, 1, 1)


def _double(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias in float64."""
    assert conv.bias is not None
    return conv.weight.double(), conv.bias.double()
