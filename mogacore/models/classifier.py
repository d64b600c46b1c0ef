"""The MogaNet classifier, with the methods of a timm model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral

from torch import Tensor, nn

from mogacore.errors import UserError
from mogacore.kinds import checks_arguments

from .moganet import MogaNet

# Poolings of a map (B, C, H, W) by timm's names; '' keeps the map.
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    'avg': lambda x: x.mean((2, 3)),
    'max': lambda x: x.amax((2, 3)),
    'avgmax': lambda x: 0.5 * (x.mean((2, 3)) + x.amax((2, 3))),
    '': lambda x: x,
}


class MogaNetClassifier(MogaNet):
    """MogaNet with the published linear classifier: spatial mean of the normalized last map, then ``head``.

    Args:
        num_classes: Number of logits; 0 omits the head and returns the pooled features.
        global_pool: Spatial pooling: 'avg', 'max', 'avgmax' (the mean of both), or '' for none, which requires
            ``num_classes=0``. Published weights need 'avg'.
        **kwargs: Settings of :class:`MogaNet`, without ``out_indices``.

    Raises:
        UserError: If a setting is invalid.
    """

    @checks_arguments()
    def __init__(self, num_classes: int = 1000, global_pool: str = 'avg', **kwargs):
        super().__init__(out_indices=(3,), **kwargs)
        self.num_classes: int
        self.global_pool: str
        self.head: nn.Module
        self.reset_classifier(num_classes, global_pool)

    @property
    def head_hidden_size(self) -> int:
        """Channels of the input of the head."""
        return self.num_features

    @checks_arguments()
    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by an untrained one, on the device and of the type of the network.

        Args:
            num_classes: Number of logits; 0 removes the head.
            global_pool: See :class:`MogaNetClassifier`; None keeps it.

        Raises:
            UserError: If a setting is invalid; the model is then unchanged.
        """
        global_pool = self.global_pool if global_pool is None else global_pool
        if not isinstance(num_classes, Integral) or num_classes < 0:
            raise UserError(f'num_classes {num_classes!r} is invalid: give an integer of at least 0')
        if global_pool not in POOLS:
            raise UserError(f'global_pool {global_pool!r} is unknown: choose from {", ".join(map(repr, POOLS))}')
        if num_classes and not global_pool:
            raise UserError("global_pool '' keeps the map, which a classifier cannot take: set num_classes=0 as well")
        self.num_classes, self.global_pool = num_classes, global_pool
        self.head = nn.Identity()
        if num_classes:
            like = next(self.parameters())
            self.head = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)
        self.head.train(self.training)

    def get_classifier(self) -> nn.Module:
        """The head: ``nn.Linear``, or ``nn.Identity`` without classes."""
        return self.head

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] | None = None, prune_norm: bool = False, prune_head: bool = True
    ) -> tuple[int, ...]:
        """As in :class:`MogaNet`; the head is removed if ``prune_head`` or if stages are, and the map returned."""
        before = self.num_stages
        taken = super().prune_intermediate_layers(indices, prune_norm)
        self.out_indices = (taken[-1],)
        if prune_head or self.num_stages < before:
            self.reset_classifier(0, '')
        return taken

    def forward_features(self, x: Tensor) -> Tensor:
        """Normalized last map (B, C, H / 32, W / 32) of images (B, in_channels, H, W)."""
        return super().forward(x)[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (B, num_classes) of the map of :meth:`forward_features`; ``pre_logits`` for the head's input."""
        x = POOLS[self.global_pool](x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # logits instead of a tuple of maps
        """Logits (B, num_classes) of images (B, in_channels, H, W)."""
        return self.forward_head(self.forward_features(x))
