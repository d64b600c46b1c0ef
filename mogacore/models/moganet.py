"""The MogaNet backbone (arXiv 2211.03295): four stages of the parts in layers.py, with the published key names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mogacore.errors import UserError
from mogacore.kinds import checks_arguments
from mogacore.published.archs import arch_name, parse_arch

from . import accelerated
from .features import FeatureInfo, stage_indices
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

    @checks_arguments()
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
        self.in_chans, self.num_features = in_channels, self.embed_dims[-1]
        if isinstance(out_indices, int):
            raise UserError(f'out_indices {out_indices} is a number: give a sequence such as ({out_indices},)')
        if not out_indices or any(i not in range(self.num_stages) for i in out_indices):
            raise UserError(f'out_indices {tuple(out_indices)} is invalid: choose from 0, 1, 2, 3')
        if frozen_stages not in range(-1, self.num_stages):
            raise UserError(f'frozen_stages {frozen_stages} is invalid: choose from -1 (none), 0, 1, 2, 3')
        if drop_path_rate is None:
            drop_path_rate = settings['drop_path_rate']
        if not 0 <= drop_path_rate < 1:
            raise UserError(f'drop_path_rate {drop_path_rate} is invalid: choose at least 0 and less than 1')
        if not 0 <= drop_rate <= 1:
            raise UserError(f'drop_rate {drop_rate} is invalid: choose from 0 to 1')
        if in_channels < 1:
            raise UserError(f'in_channels {in_channels} is invalid: give a positive integer')
        if len(stem_strides) != 2 or min(stem_strides) < 1:
            raise UserError(f'stem_strides {tuple(stem_strides)} is invalid: give two positive integers')
        stage_norm, norm_cfg = choose_norms(norm_cfg, stem_norm_cfg, conv_norm_cfg, stem_norm_type, conv_norm_type)
        self.out_indices = tuple(out_indices)
        self.stem_stride = stem_strides[0] * stem_strides[1]
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
                    layer_scale_init=float(layer_scale_init),
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
            x = self._run_norm(i, self._run_stage(i, x))
            if i in self.out_indices:
                outs.append(self._returned(x))
        return tuple(outs)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = True,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Maps of any stages, with the interface of timm's method of this name.

        Args:
            x: Images (B, in_channels, H, W).
            indices: Stages, where -1 is the last one; a number n for the last n stages; None for all.
            norm: Return normalized maps, as :meth:`forward` does; False for those before the norm of their stage.
            stop_early: Stop after the last stage in ``indices``.
            output_fmt: 'NCHW'.
            intermediates_only: Omit the first result.

        Returns:
            The normalized map of the last stage that was run, and the maps of the stages in ascending order.

        Raises:
            UserError: If a stage does not exist or ``output_fmt`` is another one.
        """
        if output_fmt != 'NCHW':
            raise UserError(f"output_fmt {output_fmt!r} is not supported: use 'NCHW'")
        taken = stage_indices(indices, self.num_stages)
        x = accelerated.fast_layout(x)
        maps = []
        for i in range(taken[-1] + 1 if stop_early else self.num_stages):
            before = self._run_stage(i, x)
            x = self._run_norm(i, before)
            if i in taken:
                maps.append(self._returned(x if norm else before))
        return maps if intermediates_only else (self._returned(x), maps)

    def _run_stage(self, i: int, x: Tensor) -> Tensor:
        """Patch embedding and blocks of stage i."""
        x = getattr(self, f'patch_embed{i + 1}')(x)
        for block in getattr(self, f'blocks{i + 1}'):
            run = accelerated.select(block)
            x = recompute(block, run, x) if self.with_cp and x.requires_grad else run(x)
        return x

    def _run_norm(self, i: int, x: Tensor) -> Tensor:
        return getattr(self, f'norm{i + 1}')(x)

    def _returned(self, x: Tensor) -> Tensor:
        return x if self.channels_last_out else x.contiguous()

    @property
    def feature_info(self) -> FeatureInfo:
        """Channels, stride and module of each stage, see :class:`FeatureInfo`."""
        stages = (
            dict(num_chs=width, reduction=self.stem_stride * 2**i, module=f'norm{i + 1}', index=i)
            for i, width in enumerate(self.embed_dims[: self.num_stages])
        )
        return FeatureInfo(stages, sorted(set(self.out_indices)))

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] | None = None, prune_norm: bool = False, prune_head: bool = True
    ) -> tuple[int, ...]:
        """Remove the stages after the last one in ``indices``, in place, and return only those in ``indices``.

        Args:
            indices: See :meth:`forward_intermediates`.
            prune_norm: Replace the norm of the last kept stage by the identity.
            prune_head: Has an effect on a classifier only, see :class:`MogaNetClassifier`.

        Returns:
            The indices, ascending.
        """
        taken = stage_indices(indices, self.num_stages)
        for i in range(taken[-1] + 1, self.num_stages):
            for part in ('patch_embed', 'blocks', 'norm'):
                delattr(self, f'{part}{i + 1}')
        self.num_stages = taken[-1] + 1
        self.frozen_stages = min(self.frozen_stages, taken[-1])
        self.num_features = self.embed_dims[taken[-1]]
        self.out_indices = taken
        if prune_norm:
            setattr(self, f'norm{self.num_stages}', nn.Identity())
        return taken

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Turn activation checkpointing, the setting ``with_cp``, on or off."""
        self.with_cp = enable

    def no_weight_decay(self) -> set[str]:
        """Names of the layer scales and of sigma, in timm's manner, which adds norms and biases by itself.

        They are what the published recipe of OpenMixup excludes from weight decay; that of the MogaNet release, built
        on timm, decays them.
        """
        return {name for name, _ in self.named_parameters() if 'layer_scale' in name or name.endswith('sigma.scale')}

    def group_matcher(self, coarse: bool = False) -> dict:
        """Patterns of the parameters' names from the input to the output, for timm's layer-wise learning rate decay.

        :meth:`get_layer_depth` has the groups of the published detectors instead.

        Args:
            coarse: One group per stage, otherwise one per block; a patch embedding belongs to the block after it, a
                norm to the block before it.
        """
        previous = (99999,)  # timm's number for the group before
        per_block = [
            (r'^patch_embed([2-4])\.', (0,)),
            (r'^blocks(\d)\.(\d+)\.', None),
            (r'^norm(\d)\.', previous),
        ]
        return dict(stem=r'^patch_embed1\.', blocks=r'^(?:patch_embed|blocks|norm)(\d)\.' if coarse else per_block)

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
