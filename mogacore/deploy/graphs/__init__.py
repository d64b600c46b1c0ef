"""What is exported of each task's models."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import nn

from mogacore.errors import UserError
from mogacore.models import MogaNet

from .base import Difference, Graph

__all__ = ['Difference', 'Graph', 'create_graph']

# Modules of this package by default_scope of the config. Each has ``create(model, cfg, meta)``.
MODULES = {
    'mmpretrain': 'classification',
    'mmdet': 'detection',
    'mmseg': 'segmentation',
    'mmpose': 'pose',
    'mmengine': 'video',
}


def create_graph(
    model: nn.Module, cfg: Mapping[str, Any], meta: Mapping[str, Any] | None = None, raw: bool = False
) -> Graph:
    """The graph of a config's model.

    Args:
        model: Model built from the config, in eval mode; parts of it may be replaced.
        cfg: Its config.
        meta: Metainfo of its data set.
        raw: Whether the outputs are those of the network, without post-processing.

    Raises:
        UserError: If the model cannot be exported.
    """
    if raw:
        from .raw import Raw

        return Raw(model, cfg, meta)
    scope = 'mmpretrain' if isinstance(model, MogaNet) else cfg.get('default_scope', 'mmengine')
    if scope not in MODULES:
        raise UserError(f'models of {scope} cannot be exported: use a config for {", ".join(MODULES)}')
    return import_module(f'.{MODULES[scope]}', __name__).create(model, cfg, meta)
