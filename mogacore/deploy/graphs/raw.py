"""The outputs of a network without post-processing, and the maps of its backbone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mogacore.models import MogaNet, MogaNetClassifier, SimVP

from .base import Graph, Normalize, refuse_queries
from .layers import replace_sized_layers

# Outputs of heads, by class or base class. mmdet's and mmseg's heads name theirs in the signature of loss_by_feat.
HEAD_OUTPUTS = {
    'ClsHead': ('logits',),
    'HeatmapHead': ('heatmaps',),
    'InternetHead': ('heatmaps', 'root_depth', 'hand_type'),
}
# Tasks by what the model has, since a raw graph serves all of them.
TASKS = {'mmpretrain': 'classification', 'mmdet': 'detection', 'mmseg': 'segmentation', 'mmpose': 'pose'}


class Raw(Graph):
    """Outputs of a network in mode 'tensor', with nested lists flattened, each named after what it is.

    A two-stage detector, whose heads need proposals, gives the maps of its neck.
    """

    def __init__(self, model: nn.Module, cfg: Mapping[str, Any], meta: Mapping[str, Any] | None = None):
        super().__init__(model, cfg, meta)
        if not isinstance(self, Features):
            refuse_queries(model)
        replace_sized_layers(model)
        scope = cfg.get('default_scope', 'mmengine')
        self.task = TASKS.get(scope, 'features')
        if isinstance(model, SimVP):
            self.task, self.input_names, self.size_step = 'video_prediction', ('past_frames',), model.size_divisor
            self.normalize = Normalize(None)  # frames are in the range of the data
        elif isinstance(model, MogaNetClassifier):
            self.task = 'classification'

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(tree_leaves(self._outputs(images)))

    def _outputs(self, images: Tensor) -> Any:
        x, model = self.normalize(images), self.model
        if hasattr(model, 'rpn_head'):
            return model.extract_feat(x)
        if hasattr(model, 'bbox_head'):
            return model.bbox_head(model.extract_feat(x))
        return model(x, None, mode='tensor') if isinstance(model, BaseModel) else model(x)

    def name_outputs(self, *inputs: Tensor) -> None:
        """Name each output after what it is; a number follows where there is one per pyramid level."""
        with torch.no_grad():
            outputs = self._outputs(*inputs)
        indices = getattr(self.model, 'out_indices', ())  # of a backbone
        if not isinstance(outputs, Tensor) and len(indices) == len(outputs):
            self.output_names = tuple(f'features_{index}' for index in indices)
        else:
            kinds = _kinds(self.model, 1 if isinstance(outputs, Tensor) else len(outputs))
            self.output_names = tuple(_name_leaves(outputs, kinds))


class Features(Raw):
    """The maps of a backbone: ``features_0``, ... by stage.

    Args:
        model: A backbone, or a model that has one.
    """

    def __init__(self, model: nn.Module, cfg: Mapping[str, Any], meta: Mapping[str, Any] | None = None):
        super().__init__(model, cfg, meta)
        self.task = 'features'
        self.model = getattr(model, 'backbone', model)
        if isinstance(self.model, MogaNet):
            self.model.out_indices = tuple(range(self.model.num_stages))

    def _outputs(self, images: Tensor) -> Any:
        return self.model(self.normalize(images))


def _kinds(network: nn.Module, count: int) -> list[str]:
    """What the outputs of a network are, in order; ['output'] if unknown."""
    if isinstance(network, SimVP):
        return ['frames']
    if isinstance(network, MogaNetClassifier):
        return ['logits']
    if hasattr(network, 'rpn_head'):
        return ['features']
    heads = (getattr(network, name, None) for name in ('bbox_head', 'decode_head', 'head'))
    head: Any = next((head for head in heads if isinstance(head, nn.Module)), None)
    if head is None:
        return ['features'] if hasattr(network, 'backbone') else ['output']
    if hasattr(head, 'loss_by_feat'):
        parameters = list(inspect.signature(head.loss_by_feat).parameters.values())[:count]
        return [parameter.name for parameter in parameters]
    return next(
        (list(HEAD_OUTPUTS[cls.__name__]) for cls in type(head).__mro__ if cls.__name__ in HEAD_OUTPUTS), ['output']
    )


def _name_leaves(outputs: Tensor | Sequence | dict, kinds: list[str]) -> list[str]:
    """One name per tensor, in the order of ``tree_leaves``."""
    if isinstance(outputs, Tensor):
        return kinds[:1]
    if isinstance(outputs, dict):
        return [name for key, value in outputs.items() for name in _name_leaves(value, [str(key)])]
    if len(kinds) != len(outputs):
        kinds = [f'{kinds[0]}_{number}' for number in range(len(outputs))] if len(outputs) > 1 else kinds[:1]
    return [name for kind, value in zip(kinds, outputs, strict=True) for name in _name_leaves(value, [kind])]
