"""The paper's ablations of the block: replace parts of a network with simpler ones."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mogacore.errors import UserError

from .classifier import MogaNetClassifier
from .initialize import init_convolutions
from .layers import ChannelAggregationFFN, ElementScale, FeedForward, MogaBlock, MultiOrderGatedAggregation
from .moganet import MogaNet


class SqueezeExcitationFFN(FeedForward):
    """Feed-forward network with squeeze and excitation (Hu et al., arXiv 1709.01507) on its hidden channels.

    The published code does not specify the squeezed width; C / 32 is nearly as narrow as the single channel of channel
    aggregation.
    """

    def __init__(self, embed_dims: int, feedforward_channels: int, kernel_size: int = 3, ffn_drop: float = 0.0):
        super().__init__(embed_dims, feedforward_channels, kernel_size, ffn_drop)
        squeezed = max(embed_dims // 32, 1)
        self.squeeze = nn.Conv2d(feedforward_channels, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, feedforward_channels, 1)

    def mix(self, h: Tensor) -> Tensor:
        weights = self.excite(F.relu(self.squeeze(h.mean((2, 3), keepdim=True))))
        return h * weights.sigmoid()


class SingleOrderDWConv(nn.Module):
    """A depth-wise convolution of all channels and a 1x1 convolution, in place of the multi-order convolution."""

    def __init__(self, embed_dims: int, kernel_size: int):
        super().__init__()
        self.DW_conv0 = nn.Conv2d(embed_dims, embed_dims, kernel_size, padding=kernel_size // 2, groups=embed_dims)
        self.PW_conv = nn.Conv2d(embed_dims, embed_dims, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.PW_conv(self.DW_conv0(x))


class AblatedAggregation(MultiOrderGatedAggregation):
    """Spatial aggregation without some of its parts.

    Args:
        attn: Spatial aggregation whose other parts are reused.
        use_gate: False removes the gate: ``proj_2(SiLU(value(s))) + x``.
        context: Depth-wise convolution of the value: 'multi-order', '5x5' or '7x7'.
        use_decompose: False removes the feature decomposition: ``s = SiLU(proj_1(x))``.
    """

    gate: nn.Conv2d | None  # type: ignore[assignment]  # None if removed
    value: nn.Module  # type: ignore[assignment]  # any context
    sigma: ElementScale | None  # type: ignore[assignment]  # None if removed

    def __init__(self, attn: MultiOrderGatedAggregation, use_gate: bool, context: str, use_decompose: bool):
        nn.Module.__init__(self)
        self.attn_force_fp32, self.gate_fp32 = attn.attn_force_fp32, attn.gate_fp32
        self.proj_1 = attn.proj_1
        self.gate = attn.gate if use_gate else None
        kernel_size = CONTEXTS[context]
        width = attn.proj_1.in_channels
        self.value = attn.value if kernel_size is None else SingleOrderDWConv(width, kernel_size)
        self.proj_2 = attn.proj_2
        self.sigma = attn.sigma if use_decompose else None
        self.act = attn.act

    def forward(self, x: Tensor) -> Tensor:
        p = self.proj_1(x)
        s = self.act(p if self.sigma is None else self.decompose(p))
        if self.gate is None:
            return self.proj_2(self.act(self.value(s))) + x
        return self.aggregate(self.gate(s), self.value(s)) + x


# Choices of each option; the first is the published network.
CONTEXTS = {'multi-order': None, '5x5': 5, '7x7': 7}
FFN_MIXERS = {'ca': ChannelAggregationFFN, 'se': SqueezeExcitationFFN, 'plain': FeedForward}


def ablate(
    network: MogaNet,
    gate: bool = True,
    context: str = 'multi-order',
    decompose: bool = True,
    ffn_mixer: str = 'ca',
) -> None:
    """Replace parts of every Moga block of ``network`` in place, and initialize the network as published.

    Args:
        network: Backbone or classifier.
        gate: False removes the gate.
        context: Depth-wise convolution: 'multi-order', '5x5' or '7x7'.
        decompose: False removes the feature decomposition.
        ffn_mixer: Channel mixer: 'ca' (channel aggregation), 'se' (squeeze and excitation) or 'plain'.

    Raises:
        UserError: If ``context`` or ``ffn_mixer`` is unknown.
    """
    for name, choice, allowed in (('context', context, CONTEXTS), ('ffn_mixer', ffn_mixer, FFN_MIXERS)):
        if choice not in allowed:
            raise UserError(f'{name} {choice!r} is unknown: choose from {", ".join(allowed)}')
    for block in network.modules():
        if not isinstance(block, MogaBlock):
            continue
        if not gate or not decompose or context != 'multi-order':
            block.attn = AblatedAggregation(block.attn, gate, context, decompose)
        if ffn_mixer != 'ca':
            mlp = block.mlp
            mixer = FFN_MIXERS[ffn_mixer]
            block.mlp = mixer(  # type: ignore[assignment]  # an ablated block has another feed-forward network
                mlp.fc1.in_channels, mlp.fc1.out_channels, mlp.dwconv.kernel_size[0], mlp.drop.p
            )
    init_convolutions(network)


class AblatedMogaNet(MogaNet):
    """MogaNet with parts of its blocks removed or replaced.

    Args:
        ablation: Arguments of :func:`ablate`.
        **kwargs: Settings of :class:`MogaNet`.
    """

    def __init__(self, ablation: dict, **kwargs):
        super().__init__(**kwargs)
        ablate(self, **ablation)
        self._freeze_stages()


class AblatedMogaNetClassifier(MogaNetClassifier):
    """Classifier with an ablated backbone.

    Args:
        ablation: Arguments of :func:`ablate`.
        **kwargs: Settings of :class:`MogaNetClassifier`.
    """

    def __init__(self, ablation: dict, **kwargs):
        super().__init__(**kwargs)
        ablate(self, **ablation)
        self._freeze_stages()
