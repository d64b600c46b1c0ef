"""The MogaNet backbone (arXiv 2211.03295): four stages of the parts in layers.py, with the published key names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mogacore.errors import UserError
from mogacore.published.archs import arch_name, parse_arch

from . import accelerated
from .initialize import init_convolutions
from .layers import MogaBlock, PatchEmbed, StemPatchEmbed, build_norm
from .norms import choose_norms
from .pretrained import load_pretrained
from .recompute import recompute


class MogaNet(BaseModule):
    """MogaNet backbone: four stages of a patch embedding, Moga blocks and a norm.

    Args:
        arch: Name of a size (xtiny, tiny, small, base, large, xlarge), or a dict of ``embed_dims``, ``depths`` and
            ``ffn_ratios`` with four numbers each; every width must be a multiple of 8.
        in_channels: Channels of the input image.
        out_indices: Stages in 0..3 whose normalized maps are returned; stage i has stride ``2 ** (i + 2)``.
        drop_rate: Dropout rate in the feed-forward networks, 0 in every published model.
        drop_path_rate: Drop path rate of the last block; the rates increase linearly from 0 at the first. None for the
            rate of the published ImageNet-1K training (0.05, 0.1, 0.1, 0.2, 0.3, 0.4 by size), 0 for an arch dict.
        layer_scale_init: Initial value of the layer scales.
        stem_strides: Strides of the two stem convolutions; (1, 1) is the published setting for 32 px images.
        attn_dw_dilation: Dilations of the multi-order convolutions.
        attn_channel_split: Relative sizes of their channel groups.
        attn_final_dilation: False to use the dilations 1, 2, 1 in stage 4.
        attn_force_fp32: Published option that changes the **function** (SiLU is applied twice to gate and value, in
            fp32): True for OpenMixup's weights, False for those of the MogaNet release.
        gate_fp32: Compute the gate in fp32 under AMP, for fp16 training that diverges; the function is unchanged.
        norm_cfg: ``dict(type='BN' | 'SyncBN' | 'GN')`` for all norms; None for BN.
        stem_norm_cfg, conv_norm_cfg, stem_norm_type, conv_norm_type: Published names for the norms after the stages
            ("stem") and all others ("conv"), in place of ``norm_cfg``; see :func:`.norms.choose_norms`.
        norm_eval: Keep BatchNorm in eval mode during training (fixed running statistics).
        frozen_stages: Stages 0..frozen_stages, norms included, get no gradient and stay in eval mode; -1 for none.
        channels_last_out: Return maps in torch.channels_last layout, which saves a copy. Only for necks and heads that
            respect strides: mmcv's compiled RoIAlign silently returns wrong values for this layout.
        with_cp: Activation checkpointing: recompute the blocks in the backward pass, which saves memory but takes time.
        init_cfg: mmengine's initialization config, see :meth:`init_weights`.

    Raises:
        UserError: If a setting is out of range.
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
        norm_cfg: dict | None = None,
        stem_norm_cfg: dict | None = None,
        conv_norm_cfg: dict | None = None,
        stem_norm_type: str | None = None,
        conv_norm_type: str | None = None,
        norm_eval: bool = False,
        frozen_stages: int = -1,
        channels_last_out: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list | None = None,
    ):
        super().__init__(init_cfg)
        settings = parse_arch(arch, attn_channel_split)
        self.arch_name = arch_name(arch)
        self.embed_dims, self.depths = settings['embed_dims'], settings['depths']
        self.num_stages = len(self.depths)
        if not out_indices or any(i not in range(self.num_stages) for i in out_indices):
            raise UserError(f'out_indices {tuple(out_indices)} is invalid: choose from 0, 1, 2, 3')
        if frozen_stages not in range(-1, self.num_stages):
            raise UserError(f'frozen_stages {frozen_stages} is invalid: choose from -1 (none), 0, 1, 2, 3')
        if drop_path_rate is None:
            drop_path_rate = settings['drop_path_rate']
        if not 0 <= drop_path_rate < 1:
            raise UserError(f'drop_path_rate {drop_path_rate} is invalid: choose at least 0 and less than 1')
        stage_norm, norm_cfg = choose_norms(norm_cfg, stem_norm_cfg, conv_norm_cfg, stem_norm_type, conv_norm_type)
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.channels_last_out = channels_last_out
        self.with_cp = with_cp

        drop_path_rates = iter(torch.linspace(0, drop_path_rate, sum(self.depths), device='cpu').tolist())
        for i, (width, depth, ffn_ratio) in enumerate(
            zip(self.embed_dims, self.depths, settings['ffn_ratios'], strict=True)
        ):
            patch_embed: nn.Module
            if i == 0:
                patch_embed = StemPatchEmbed(in_channels, width, stem_strides, norm_cfg)
            else:
                patch_embed = PatchEmbed(self.embed_dims[i - 1], width, norm_cfg)
            is_last = i == self.num_stages - 1
            blocks = nn.ModuleList(
                MogaBlock(
                    embed_dims=width,
                    ffn_ratio=ffn_ratio,
                    drop_rate=drop_rate,
                    drop_path_rate=next(drop_path_rates),
                    layer_scale_init=layer_scale_init,
                    norm_cfg=norm_cfg,
                    attn_dw_dilation=(1, 2, 1) if is_last and not attn_final_dilation else tuple(attn_dw_dilation),
                    attn_channel_split=attn_channel_split,
                    attn_force_fp32=attn_force_fp32,
                    gate_fp32=gate_fp32,
                )
                for _ in range(depth)
            )
            self.add_module(f'patch_embed{i + 1}', patch_embed)
            self.add_module(f'blocks{i + 1}', blocks)
            self.add_module(f'norm{i + 1}', build_norm(width, stage_norm))
        init_convolutions(self)
        self._freeze_stages()

    def init_weights(self) -> None:
        """Initialize from ``init_cfg``; None keeps the published initialization made by the constructor.

        ``dict(type='Pretrained', checkpoint=..., prefix=None)`` loads weights with :func:`load_pretrained`.
        """
        if isinstance(self.init_cfg, dict) and self.init_cfg.get('type') == 'Pretrained':
            load_pretrained(self, self.init_cfg['checkpoint'], self.init_cfg.get('prefix'))
        elif self.init_cfg is not None:
            super().init_weights()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Normalized maps of the stages in ``out_indices``.

        Args:
            x: Images (B, in_channels, H, W).

        Returns:
            One (B, embed_dims[i], H / 2**(i+2), W / 2**(i+2)) map per index, odd sizes rounded up.
        """
        x = accelerated.fast_layout(x)
        outs = []
        for i in range(self.num_stages):
            x = getattr(self, f'patch_embed{i + 1}')(x)
            for block in getattr(self, f'blocks{i + 1}'):
                run = accelerated.select(block)
                x = recompute(block, run, x) if self.with_cp and x.requires_grad else run(x)
            x = getattr(self, f'norm{i + 1}')(x)
            if i in self.out_indices:
                outs.append(x if self.channels_last_out else x.contiguous())
        return tuple(outs)

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

        Every two blocks of stage 3 form a layer, but all of its blocks from the 17th share one, as do all blocks of
        stage 4. The stage norms count as part of the head.

        Args:
            param_name: Name of a parameter, e.g. ``blocks3.4.norm1.weight``.
            prefix: Prefix of the backbone in ``param_name``, e.g. ``backbone.``.

        Returns:
            Depth 0..13 and the number of layers, 14; the learning rate is multiplied by rate ** (13 - depth).

        Source: the layer-decay constructor of the published detectors (Westlake-AI/MogaNet, detection/).
        """
        num_layers = 14
        part, _, rest = param_name.removeprefix(prefix).partition('.')
        if part == 'blocks3':
            return min(3 + int(rest.partition('.')[0]) // 2, 11), num_layers
        depths = {'patch_embed1': 0, 'blocks1': 2, 'patch_embed2': 3, 'blocks2': 3, 'patch_embed3': 4}
        depths |= {'patch_embed4': 12, 'blocks4': 12}
        return depths.get(part, num_layers - 1), num_layers

    def _freeze_stages(self) -> None:
        for i in range(self.frozen_stages + 1):
            for part in ('patch_embed', 'blocks', 'norm'):
                getattr(self, f'{part}{i + 1}').eval().requires_grad_(False)


class MogaNetClassifier(MogaNet):
    """MogaNet with the published linear classifier: spatial mean of the normalized last map, then ``head``.

    Args:
        num_classes: Number of logits; 0 omits the head and returns the pooled features.
        **kwargs: Settings of :class:`MogaNet`, without ``out_indices``.
    """

    def __init__(self, num_classes: int = 1000, **kwargs):
        super().__init__(out_indices=(3,), **kwargs)
        self.head = nn.Linear(self.embed_dims[-1], num_classes) if num_classes else nn.Identity()
        if isinstance(self.head, nn.Linear):
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # logits instead of a tuple of maps
        """Logits (B, num_classes) of images (B, in_channels, H, W)."""
        return self.head(super().forward(x)[-1].mean((2, 3)))
