"""Create models by name, without any task library."""

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
    name: str,
    num_classes: int = 1000,
    checkpoint: str | None = None,
    features_only: bool = False,
    new_head: bool = False,
    **kwargs,
) -> nn.Module:
    """Create a MogaNet by name.

    Args:
        name: One of :func:`list_models`.
        num_classes: Number of logits; 0 returns the pooled features.
        checkpoint: Weight file, which must match the model exactly, see :func:`mogacore.checkpoint.load_into`;
            'official' for the paper's weights of this size; or ``mogacore://NAME`` for any published file. Published
            files are downloaded on first use. If a file has both raw and averaged weights, those behind the published
            accuracy are loaded.
        features_only: Omit the classifier and return the tuple of normalized stage maps.
        new_head: Load everything but the classifier, which keeps its initial values: to fine-tune on other classes.
        **kwargs: Further settings of :class:`MogaNet`, e.g. ``drop_path_rate`` or ``attn_force_fp32``.

    Returns:
        A model in training mode that maps (B, 3, H, W) images to (B, num_classes) logits or to the tuple of maps.

    Raises:
        UserError: If the name is unknown, the weight file does not match or cannot be downloaded, or its gate function
            is not the one selected by ``attn_force_fp32``.
    """
    if name not in list_models():
        raise UserError(f'model {name!r} is unknown: choose from {", ".join(list_models())}')
    arch = name.removeprefix(PREFIX)
    model = MogaNet(arch, **kwargs) if features_only else MogaNetClassifier(num_classes, arch=arch, **kwargs)
    initial = {key: value.clone() for key, value in model.state_dict().items() if key.startswith('head.')}
    settings: dict = dict(advice='')
    if num_classes != 1000 and not features_only:
        settings = dict(advice='or pass new_head=True to load everything but the classifier')
    if new_head:
        settings = dict(advice='', allow_missing=['head.*'], allow_unexpected=['head.*'])
    if checkpoint is not None:
        load_named(model, name, checkpoint, **settings)
    if new_head:
        model.load_state_dict(initial, strict=False)  # a head of the same shape has been loaded, too
    return model


def load_named(model: nn.Module, name: str, checkpoint: str, **settings) -> None:
    """Load the weights of a model that :func:`create_model` has created.

    Args:
        model: The model.
        name: Its name.
        checkpoint: As in :func:`create_model`.
        **settings: Further settings of :func:`mogacore.checkpoint.load_into`.

    Raises:
        UserError: As in :func:`create_model`.
    """
    checkpoint = SCHEME + name if checkpoint == 'official' else checkpoint
    if isinstance(checkpoint, str) and checkpoint.startswith(SCHEME):
        load_official(model, checkpoint, **settings)
    else:
        load_into(model, checkpoint, **settings)
