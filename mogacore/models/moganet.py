"""MogaNet, the backbone (Li et al., ICLR 2024, arXiv 2211.03295), assembled from the parts in layers.py.

Original: Westlake-AI/MogaNet, models/moganet.py. The state dict has exactly its keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from numbers import Integral

import torch
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mogacore.checkpoint import SCHEME, load, load_into
from mogacore.errors import UserError
from mogacore.published.archs import ALIASES, ARCHS

from .functions import channels_last
from .layers import CONTEXTS, FFN_MIXERS, FrozenRunningStats, MogaBlock, PatchEmbed, StemPatchEmbed, build_norm

ARCH_KEYS = ('embed_dims', 'depths', 'ffn_ratios')


def parse_arch(arch: str | dict, channel_split: Sequence[int] = (1, 3, 4)) -> dict:
    """Settings of a size by name, or a checked copy of a user's own.

    Args:
        arch: A key of ``ARCHS`` or of ``ALIASES`` in any case, or a dict with exactly the keys ``embed_dims``,
            ``depths`` and ``ffn_ratios``, four numbers each.
        channel_split: Shares of the multi-order convolution, by whose sum every width must divide.

    Raises:
        UserError: If the name is unknown, or the dict has other keys or impossible numbers.
    """
    if isinstance(arch, str):
        name = arch.lower()
        name = ALIASES.get(name, name)
        if name not in ARCHS:
            raise UserError(
                f'arch {arch!r} is unknown: choose from {", ".join(ARCHS)}, or pass a dict with {", ".join(ARCH_KEYS)}'
            )
        return dict(ARCHS[name])
    if not isinstance(arch, dict) or set(arch) != set(ARCH_KEYS):
        got = sorted(arch) if isinstance(arch, dict) else arch
        raise UserError(
            f'arch {got!r} does not fit: pass a name ({", ".join(ARCHS)}) or a dict with exactly '
            f'the keys {", ".join(ARCH_KEYS)}'
        )
    settings = {key: tuple(arch[key]) for key in ARCH_KEYS}
    for key, values in settings.items():
        integral = key != 'ffn_ratios'
        if len(values) != 4 or any(v <= 0 or (integral and not isinstance(v, Integral)) for v in values):
            kind = 'positive whole numbers' if integral else 'positive numbers'
            raise UserError(f'arch {key} {values} does not fit: give four {kind}, one a stage')
    unit = sum(channel_split)
    for width in settings['embed_dims']:
        if width % unit:
            raise UserError(
                f'arch embed_dims {settings["embed_dims"]}: width {width} is not divisible by {unit}, the '
                f'sum of the channel split {tuple(channel_split)}; choose multiples of {unit}'
            )
    return settings | {'drop_path_rate': 0.0}


class MogaNet(BaseModule):
    """MogaNet backbone: four stages of patch embedding, Moga blocks and a stage norm.

    Args:
        arch: Size by name (xtiny, tiny, small, base, large, xlarge) or a dict of ``embed_dims``, ``depths`` and
            ``ffn_ratios`` with four numbers each; every width a multiple of 8.
        in_channels: Channels of the input image.
        out_indices: Stages whose normed maps are returned, of 0..3; stage i has stride ``2 ** (i + 2)``.
        drop_rate: Dropout rate in the feed-forward networks, 0 in every published model.
        drop_path_rate: Drop path rate of the last block, from 0 at the first in even steps. None is the rate of the
            published ImageNet-1K training (0.05, 0.1, 0.1, 0.2, 0.3, 0.4 by size), 0 for an arch dict.
        layer_scale_init: Initial value of the layer scales.
        stem_strides: Strides of the two stem convolutions; (1, 1) is the published setting for 32 px images.
        attn_dw_dilation: Dilations of the multi-order convolutions.
        attn_channel_split: Shares of the channels by order.
        attn_final_dilation: False gives stage 4 the dilations 1, 2, 1.
        attn_force_fp32: The published option: **another function** (gate and value activated twice, in fp32). True
            for OpenMixup's weights, False for those of the MogaNet release.
        gate_fp32: The gate in fp32 under AMP, function unchanged; use it where fp16 training goes NaN.
        attn_gate: False leaves the gate out. This and the next three are the paper's ablations, by default the whole
            network; see :class:`mogacore.models.layers.MogaBlock`.
        attn_context: Depth-wise convolution: 'multi-order', '5x5' or '7x7'.
        attn_decompose: False leaves the feature decomposition out.
        ffn_mixer: Channel mixer: 'ca' (channel aggregation), 'se' (squeeze and excitation) or 'plain'.
        norm_cfg: ``dict(type='BN' | 'SyncBN' | 'GN')`` for all norms; None is BN.
        norm_eval: Keep BatchNorm in eval mode while training (running statistics fixed).
        frozen_stages: Stages 0..frozen_stages (embedding, blocks, norm) get no gradient and stay in eval mode;
            -1 freezes none.
        channels_last_out: Return maps of torch.channels_last layout, as they are computed, which saves a copy and suits
            the convolutions of necks and heads. Operators that read memory as it lies must not get them: mmcv's
            RoIAlign then gives wrong values and no error, unless told ``use_torchvision=True``.
        with_cp: Recompute the blocks in the backward pass instead of storing them: less memory, about a third slower.
        init_cfg: mmengine's initialisation config, e.g. ``dict(type='Pretrained', checkpoint=...)``; None initialises
            as the published classification code: fan-out normal convolutions, zero biases.

    Raises:
        UserError: If a setting is out of its range.
    """

    def __init__(
        self,
        arch: str | dict = 'tiny',
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_rate: float = 0.0,
        drop_path_rate: float | None = None,
        layer_scale_init: float = 1e-5,
        stem_strides: Sequence[int] = (2, 2),
        attn_dw_dilation: Sequence[int] = (1, 2, 3),
        attn_channel_split: Sequence[int] = (1, 3, 4),
        attn_final_dilation: bool = True,
        attn_force_fp32: bool = False,
        gate_fp32: bool = False,
        attn_gate: bool = True,
        attn_context: str = 'multi-order',
        attn_decompose: bool = True,
        ffn_mixer: str = 'ca',
        norm_cfg: dict | None = None,
        norm_eval: bool = False,
        frozen_stages: int = -1,
        channels_last_out: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list | None = None,
    ):
        super().__init__(init_cfg)
        settings = parse_arch(arch, attn_channel_split)
        self.arch_name = ALIASES.get(arch.lower(), arch.lower()) if isinstance(arch, str) else None
        self.embed_dims, self.depths = settings['embed_dims'], settings['depths']
        self.num_stages = len(self.depths)
        if not out_indices or any(i not in range(self.num_stages) for i in out_indices):
            raise UserError(f'out_indices {tuple(out_indices)} does not fit: choose from 0, 1, 2, 3')
        if frozen_stages not in range(-1, self.num_stages):
            raise UserError(f'frozen_stages {frozen_stages} does not fit: choose from -1 (none), 0, 1, 2, 3')
        if drop_path_rate is None:
            drop_path_rate = settings['drop_path_rate']
        if not 0 <= drop_path_rate < 1:
            raise UserError(f'drop_path_rate {drop_path_rate} does not fit: choose from 0 up to, but not, 1')
        for name, value, allowed in (
            ('attn_context', attn_context, CONTEXTS),
            ('ffn_mixer', ffn_mixer, FFN_MIXERS),
        ):
            if value not in allowed:
                raise UserError(f'{name} {value!r} is unknown: choose from {", ".join(allowed)}')
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.channels_last_out = channels_last_out
        self.with_cp = with_cp

        drop_path_rates = iter(torch.linspace(0, drop_path_rate, sum(self.depths), device='cpu').tolist())
        for i, (width, depth, ffn_ratio) in enumerate(
            zip(self.embed_dims, self.depths, settings['ffn_ratios'], strict=True)
        ):
            if i == 0:
                patch_embed = StemPatchEmbed(in_channels, width, stem_strides, norm_cfg)
            else:
                patch_embed = PatchEmbed(self.embed_dims[i - 1], width, norm_cfg)
            dilation = tuple(attn_dw_dilation)
            if i == self.num_stages - 1 and not attn_final_dilation:
                dilation = (1, 2, 1)
            blocks = nn.ModuleList(
                MogaBlock(
                    embed_dims=width,
                    ffn_ratio=ffn_ratio,
                    drop_rate=drop_rate,
                    drop_path_rate=next(drop_path_rates),
                    layer_scale_init=layer_scale_init,
                    norm_cfg=norm_cfg,
                    attn_dw_dilation=dilation,
                    attn_channel_split=attn_channel_split,
                    attn_force_fp32=attn_force_fp32,
                    gate_fp32=gate_fp32,
                    attn_gate=attn_gate,
                    attn_context=attn_context,
                    attn_decompose=attn_decompose,
                    ffn_mixer=ffn_mixer,
                )
                for _ in range(depth)
            )
            self.add_module(f'patch_embed{i + 1}', patch_embed)
            self.add_module(f'blocks{i + 1}', blocks)
            self.add_module(f'norm{i + 1}', build_norm(width, norm_cfg))
        self.reset_parameters()
        self._freeze_stages()

    def reset_parameters(self) -> None:
        """Initialise convolutions as published: normal with std sqrt(2 / fan_out), zero bias."""
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                fan_out = math.prod(m.kernel_size) * m.out_channels // m.groups
                nn.init.normal_(m.weight, std=math.sqrt(2 / fan_out))
                nn.init.zeros_(m.bias)

    def init_weights(self) -> None:
        """Initialise from ``init_cfg``; without one the network keeps what its constructor drew.

        ``dict(type='Pretrained', checkpoint=..., prefix=None)`` loads the trunk of any published file, whole or with
        an error; 'official' is ``mogacore://moganet_tiny`` for the size tiny, the file that the published detectors,
        segmentors and pose models started from. ``prefix`` picks the part of a larger model's file whose names begin
        so.

        Raises:
            CheckpointError: If the weights do not fit.
        """
        init_cfg = self.init_cfg
        if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
            checkpoint = init_cfg['checkpoint']
            if checkpoint == 'official':
                if self.arch_name is None:
                    raise UserError("init_cfg checkpoint 'official' needs a published size: give arch by name")
                checkpoint = f'{SCHEME}moganet_{self.arch_name}'
            weights = load(CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu'))
            if prefix := init_cfg.get('prefix'):
                weights = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
            load_into(self, weights)
        elif init_cfg is not None:
            super().init_weights()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Normed maps of the stages in ``out_indices``.

        Args:
            x: Images (B, in_channels, H, W).

        Returns:
            One (B, embed_dims[i], H / 2**(i+2), W / 2**(i+2)) map per index, odd sizes rounded up; contiguous, or
            channels_last if ``channels_last_out``.
        """
        x = channels_last(x)
        outs = []
        for i in range(self.num_stages):
            x = getattr(self, f'patch_embed{i + 1}')(x)
            for block in getattr(self, f'blocks{i + 1}'):
                x = self._recomputed(block, x) if self.with_cp and x.requires_grad else block(x)
            x = getattr(self, f'norm{i + 1}')(x)
            if i in self.out_indices:
                outs.append(x if self.channels_last_out else x.contiguous())
        return tuple(outs)

    @staticmethod
    def _recomputed(block: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), FrozenRunningStats(block)))

    def train(self, mode: bool = True) -> MogaNet:
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for m in self.modules():
                if isinstance(m, nn.modules.batchnorm._BatchNorm):
                    m.eval()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning rate decay, counted from the input.

        Two blocks of stage 3 make a layer; the blocks from the 17th on share one, as do all of stage 4. The stage norms
        count as part of the head.

        Args:
            param_name: Name of a parameter, e.g. ``blocks3.4.norm1.weight``.
            prefix: What stands before the backbone's own names in ``param_name``, e.g. ``backbone.``.

        Returns:
            Depth 0..13 and the number of layers, 14: of the learning rate a parameter gets rate ** (13 - depth).

        Source: the layer-decay constructor of the published detectors (Westlake-AI/MogaNet, detection/).
        """
        num_layers = 14
        part, _, rest = param_name.removeprefix(prefix).partition('.')
        if part == 'blocks3':
            block = int(rest.partition('.')[0])
            return min(3 + block // 2, 11), num_layers
        depths = {
            'patch_embed1': 0,
            'blocks1': 2,
            'patch_embed2': 3,
            'blocks2': 3,
            'patch_embed3': 4,
            'patch_embed4': 12,
            'blocks4': 12,
        }
        return depths.get(part, num_layers - 1), num_layers

    def _freeze_stages(self) -> None:
        for i in range(self.frozen_stages + 1):
            for part in ('patch_embed', 'blocks', 'norm'):
                getattr(self, f'{part}{i + 1}').eval().requires_grad_(False)


class MogaNetClassifier(MogaNet):
    """MogaNet with its published linear classifier: mean over the normed last map, then ``head``.

    Args:
        num_classes: Length of the logits; 0 leaves the head out and returns the pooled features.
        **kwargs: Settings of :class:`MogaNet`, without ``out_indices``.
    """

    def __init__(self, num_classes: int = 1000, **kwargs):
        super().__init__(out_indices=(3,), **kwargs)
        self.head = nn.Linear(self.embed_dims[-1], num_classes) if num_classes else nn.Identity()
        if num_classes:
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_channels, H, W)."""
        return self.head(super().forward(x)[-1].mean((2, 3)))
