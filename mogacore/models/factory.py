"""Models by name, for use without any task library."""

from __future__ import annotations

from torch import nn

from mogacore.checkpoint import SCHEME, load_into, load_official
from mogacore.errors import UserError
from mogacore.published.archs import ARCHS

from .moganet import MogaNet, MogaNetClassifier

PREFIX = 'moganet_'


def list_models() -> list[str]:
    """Names that :func:`create_model` accepts, from small to large."""
    return [PREFIX + arch for arch in ARCHS]


def create_model(
    name: str, num_classes: int = 1000, checkpoint: str | None = None, features_only: bool = False, **kwargs
) -> nn.Module:
    """A MogaNet by name.

    Args:
        name: One of :func:`list_models`.
        num_classes: Length of the logits; 0 returns the pooled features.
        checkpoint: Weight file to load, see :func:`mogacore.checkpoint.load_into`; it must fit whole. 'official' is the
            paper's file of this size, ``mogacore://NAME`` any that was published: fetched at the first use, and of the
            raw and averaged weights in it those that the published figure belongs to. To give a trained trunk a new
            classifier, call ``load_into(model, path, allow_missing=['head.*'], allow_unexpected=['head.*'])`` yourself.
        features_only: Leave the classifier out and return the tuple of normed stage maps.
        **kwargs: Further settings of :class:`MogaNet`, e.g. ``drop_path_rate`` or ``attn_force_fp32``.

    Returns:
        A model in training mode: (B, 3, H, W) images to (B, num_classes) logits, or to the tuple of maps.

    Raises:
        UserError: If the name is unknown, the weight file does not fit or cannot be fetched, or it was trained with the
            other gate function than ``attn_force_fp32`` says.
    """
    if name not in list_models():
        raise UserError(f'model {name!r} is unknown: choose from {", ".join(list_models())}')
    arch = name.removeprefix(PREFIX)
    model = MogaNet(arch, **kwargs) if features_only else MogaNetClassifier(num_classes, arch=arch, **kwargs)
    if checkpoint == 'official':
        checkpoint = SCHEME + name
    if isinstance(checkpoint, str) and checkpoint.startswith(SCHEME):
        load_official(model, checkpoint)
    elif checkpoint is not None:
        load_into(model, checkpoint)
    return model
