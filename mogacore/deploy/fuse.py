"""Folding for inference: norms, layer scales and sigmas become part of the convolutions beside them.

Exact up to rounding. A norm ``u = a x + c`` (eval mode, per channel) is folded

* into a convolution before it, always;
* into a 1x1 convolution after it; into a larger one not, whose zero padding comes after the norm;
* the norm at the end of a stage into the last block, as a scale and shift of both terms of its residual sum.
"""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mogacore.errors import UserError
from mogacore.models.functions import ChannelAggregation, depthwise_conv, is_exported
from mogacore.models.layers import ChannelAggregationFFN, MogaBlock, MultiOrderDWConv, PatchEmbed, cast_as_autocast
from mogacore.models.moganet import MogaNet

BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


class FusedBlock(nn.Module):
    """A :class:`mogacore.models.layers.MogaBlock` in eval mode, optionally with the stage norm behind it.

    Args:
        block: Trained block with BatchNorm.
        norm: The norm that follows it, or None.
    """

    def __init__(self, block: MogaBlock, norm: nn.Module | None = None):
        super().__init__()
        attn, mlp = block.attn, block.mlp
        self.attn_force_fp32 = attn.attn_force_fp32
        self.split_dims = attn.value.split_dims

        # proj_1 with norm1 and the feature decomposition: a map, and from its spatial mean a vector.
        scale, shift = affine(block.norm1)
        weight = attn.proj_1.weight * scale.view(1, -1, 1, 1)
        sigma = attn.sigma.scale.view(-1, 1, 1, 1)
        bias = attn.proj_1.bias + attn.proj_1.weight.flatten(1) @ shift
        self.proj = convolution(weight * (1 + sigma), bias)
        self.proj_mean = convolution(weight * -sigma)
        self.gate, self.dw0 = attn.gate, attn.value.DW_conv0
        self.dw1, self.dw2, self.value = attn.value.DW_conv1, attn.value.DW_conv2, attn.value.PW_conv
        # x + ls * (proj_2(y) + norm1(x)) = (1 + ls a) x + proj_out(y)
        layer_scale = block.layer_scale_1.flatten()
        self.register_buffer('skip', (1 + layer_scale * scale).view(1, -1, 1, 1))
        self.proj_out = convolution(
            attn.proj_2.weight * layer_scale.view(-1, 1, 1, 1), (attn.proj_2.bias + shift) * layer_scale
        )

        scale, shift = affine(block.norm2)
        self.fc1 = convolution(
            mlp.fc1.weight * scale.view(1, -1, 1, 1), mlp.fc1.bias + mlp.fc1.weight.flatten(1) @ shift
        )
        self.dwconv, self.decompose = mlp.dwconv, mlp.decompose
        # ls * fc2(h + sigma (h - a)), then the norm at the end of the stage.
        scale, shift = (torch.ones_like(layer_scale), 0) if norm is None else affine(norm)
        layer_scale = block.layer_scale_2.flatten() * scale
        weight = mlp.fc2.weight * layer_scale.view(-1, 1, 1, 1)
        self.fc2 = convolution(weight * (1 + mlp.sigma.scale), mlp.fc2.bias * layer_scale + shift)
        self.common = convolution(-(weight * mlp.sigma.scale).sum(1, keepdim=True))
        self.register_buffer('end_scale', None if norm is None else scale.view(1, -1, 1, 1).clone())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        s = F.silu(self.proj(x) + self.proj_mean(x.mean((2, 3), keepdim=True)))
        low, middle, high = self._context(self.dw0, s).split(self.split_dims, dim=1)
        orders = (low, self._context(self.dw1, middle), self._context(self.dw2, high))
        gate, value = self.gate(s), self.value(torch.cat(orders, dim=1))
        if self.attn_force_fp32:
            gate, value = F.silu(gate), F.silu(value)
        x = torch.addcmul(self.proj_out(F.silu(gate) * F.silu(value)), x, self.skip)

        if is_exported():
            h = F.gelu(self.dwconv(self.fc1(x)))
            branch = self.fc2(h) + self.common(F.gelu(self.decompose(h)))
        else:
            layers = (self.fc1, self.dwconv, self.fc2, self.decompose)
            parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
            common_weight = -self.common.weight.view(1, -1, 1, 1)
            branch = ChannelAggregation.apply(*cast_as_autocast(x, *parameters, common_weight))
        return x + branch if self.end_scale is None else torch.addcmul(branch, x, self.end_scale)

    @staticmethod
    def _context(conv: nn.Conv2d, x: Tensor) -> Tensor:
        return depthwise_conv(*cast_as_autocast(x, conv.weight, conv.bias), conv.dilation[0])


def fuse(model: nn.Module) -> nn.Module:
    """An equal network for inference: every Moga block in ``model`` folded, and convolutions followed by BatchNorm.

    Args:
        model: A backbone, classifier, detector, segmentor, pose model or video predictor; it is left as it is.

    Returns:
        A copy in eval mode. It cannot be trained, and its state dict has other keys.

    Raises:
        UserError: If a Moga block has another norm than BatchNorm, or is one of the paper's ablations.
    """
    model = deepcopy(model).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, MogaNet):
            _fuse_backbone(module)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, MogaBlock):  # of a video predictor; a backbone's are folded with its norms
                setattr(module, name, _fuse_block(child))
    for module in model.modules():
        _fuse_children(module)
    return model


@torch.no_grad()
def _fuse_block(block: MogaBlock, norm: nn.Module | None = None) -> FusedBlock:
    if any(isinstance(m, nn.GroupNorm) for m in (block.norm1, block.norm2, norm)):
        raise UserError('a MogaNet with GroupNorm cannot be fused: its statistics differ from image to image')
    is_whole = isinstance(block.attn.value, MultiOrderDWConv) and isinstance(block.mlp, ChannelAggregationFFN)
    if not is_whole or block.attn.gate is None or block.attn.sigma is None:
        raise UserError('an ablation of MogaNet cannot be fused, nor need be: it is no network to deploy')
    return FusedBlock(block, norm)


def _fuse_backbone(backbone: MogaNet) -> None:
    for i in range(1, backbone.num_stages + 1):
        blocks, norm = getattr(backbone, f'blocks{i}'), getattr(backbone, f'norm{i}')
        last = len(blocks) - 1
        fused = [_fuse_block(block, norm if j == last else None) for j, block in enumerate(blocks)]
        setattr(backbone, f'blocks{i}', nn.ModuleList(fused))
        setattr(backbone, f'norm{i}', nn.Identity())


def _fuse_children(module: nn.Module) -> None:
    """Fold the BatchNorm of a sequence, of a patch embedding or of mmcv's ConvModule into the convolution before it."""
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
        if isinstance(conv, CONVOLUTIONS) and isinstance(norm, BATCH_NORMS):
            transposed = isinstance(conv, nn.ConvTranspose2d)
            setattr(module, first, fuse_conv_bn_eval(conv, norm, transposed))
            setattr(module, second, nn.Identity())


def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale a and shift c, (C,) each, of a BatchNorm in eval mode: ``a x + c``."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def convolution(weight: Tensor, bias: Tensor | None = None) -> nn.Conv2d:
    """A 1x1 convolution of these numbers: weight (out, in, 1, 1), bias (out,)."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None, device='meta')
    state = {'weight': weight.detach().clone()}
    if bias is not None:
        state['bias'] = bias.detach().clone()
    conv.load_state_dict(state, assign=True)
    return conv.requires_grad_(False)
