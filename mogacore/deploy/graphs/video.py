"""Video prediction: future frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mogacore.engine.dataset_meta import video_facts
from mogacore.errors import UserError
from mogacore.models import SimVP

from .base import Graph


class VideoPrediction(Graph):
    """Output: ``frames`` (B, num_targets, C, H, W) in the range of the data set, of SimVP.

    The input is ``past_frames`` (B, T, C, H, W) float32 in the same range.
    """

    task = 'video_prediction'
    input_names = ('past_frames',)
    output_names = ('frames',)

    def __init__(self, model: nn.Module, cfg: Mapping[str, Any], meta: Mapping[str, Any] | None = None):
        super().__init__(model, cfg, meta)
        self.size_step = int(self.model.size_divisor)
        self.facts = video_facts(cfg)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.model(images),)

    def postprocess(self) -> dict:
        return self.facts


def create(model: nn.Module, cfg: Mapping[str, Any], meta: Mapping[str, Any] | None = None) -> Graph:
    """The graph of a video predictor.

    Raises:
        UserError: If the model is not SimVP.
    """
    if not isinstance(model, SimVP):
        raise UserError(f'{type(model).__name__} cannot be exported: use --raw for the outputs of the network')
    return VideoPrediction(model, cfg, meta)
