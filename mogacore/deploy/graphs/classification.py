"""Classifiers: class probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mogacore.errors import UserError
from mogacore.models import MogaNetClassifier

from .base import Graph


class Classification(Graph):
    """Output: ``probabilities`` (B, classes), of mmpretrain's ImageClassifier or :func:`mogacore.create_model`."""

    task = 'classification'
    output_names = ('probabilities',)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.normalize(images)
        logits = self.model(x) if isinstance(self.model, MogaNetClassifier) else self.model(x, None, mode='tensor')
        return (logits.softmax(1),)


def create(model: nn.Module, cfg: Mapping[str, Any], meta: Mapping[str, Any] | None = None) -> Graph:
    """The graph of a classifier.

    Raises:
        UserError: If the model's head does not classify into one of several classes.
    """
    head = getattr(model, 'head', None)
    if not isinstance(model, MogaNetClassifier) and not _is_softmax_head(head):
        raise UserError(
            f'{type(model).__name__} with {type(head).__name__} has no class probabilities: use --raw for the outputs '
            'of the network'
        )
    return Classification(model, cfg, meta)


def _is_softmax_head(head: object) -> bool:
    """Whether mmpretrain's ClsHead makes the predictions of a head."""
    predictor = getattr(type(head), '_get_predictions', None)
    return getattr(predictor, '__qualname__', '') == 'ClsHead._get_predictions'
