"""Detectors with their post-processing: RetinaNet, Faster R-CNN, Mask R-CNN and their cascades, of mmdet.

Backbone, neck and heads are mmdet's; what follows the heads is rewritten with operations that export, see
:mod:`.boxes`. One image per call: the number of detections differs between images.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mogacore.errors import UserError

from .base import Difference, Graph, refuse_queries
from .boxes import anchors_at, decode, image_corners, larger_than, match, pool_regions, suppress

# The methods of mmdet and mmcv that this module replaces: part of a model -> class and method that define it.
CODER = ('DeltaXYWHBBoxCoder.decode',)
ANCHORS = ('AnchorGenerator.single_level_grid_priors',)
ONE_STAGE = {
    '': ('BaseDenseHead._predict_by_feat_single', 'BaseDenseHead._bbox_post_process'),
    'prior_generator': ANCHORS,
    'bbox_coder': CODER,
}
PROPOSALS = ONE_STAGE | {'': ('RPNHead._predict_by_feat_single', 'RPNHead._bbox_post_process')}
BOX_HEAD = {'': ('BBoxHead._predict_by_feat_single', 'BBoxHead.regress_by_class'), 'bbox_coder': CODER}
POOLING = {
    '': ('SingleRoIExtractor.forward', 'SingleRoIExtractor.map_roi_levels'),
    'roi_layers.0': ('RoIAlign.forward',),
}
MASK_HEAD = {'': ('FCNMaskHead._predict_by_feat_single',)}
ROI_HEADS = ('StandardRoIHead', 'CascadeRoIHead')
NMS_SETTINGS = {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}  # split_thr changes the memory only

# What rounding may change in a file, at the default tolerance.
TOLERANCE = 1e-4
MAX_MOVED = 0.05  # pixels
LIMITS = {'scores': 1e-3, 'masks': 1e-2}
MAX_FLIPPED, FEW_FLIPPED = (
    0.05,
    2,
)  # detections that suppression keeps or drops: a fraction, or a number if that is more


class Detector(Graph):
    """Outputs: ``boxes`` (N, 4), ``scores`` (N,), ``labels`` (N,) int64, by falling score; N may be 0.

    Boxes are (x1, y1, x2, y2) in pixels of the input.
    """

    task = 'detection'
    output_names: tuple[str, ...] = ('boxes', 'scores', 'labels')
    dynamic = ('height', 'width')
    score_thr: Tensor

    def __init__(self, model: nn.Module, cfg: Mapping[str, Any], meta: Mapping[str, Any] | None = None):
        super().__init__(model, cfg, meta)
        self.settings = self.final_settings()
        self.register_buffer('score_thr', torch.tensor(float(self.settings['score_thr'])))
        anchors: Any = getattr(model, 'rpn_head', None) or model.bbox_head
        self.traced_side = 2 * max(max(stride) for stride in anchors.prior_generator.strides)

    def final_settings(self) -> Mapping[str, Any]:
        """The test_cfg of the last head."""
        raise NotImplementedError

    def example(self, shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, ...]:
        """As for every graph, but one image in three is dark, in which a detector finds least.

        A black one has anchors with equal scores, of which every runtime keeps others.
        """
        images, *_ = super().example(shape, dtype, seed)
        return (images // 4 if seed % 3 == 2 else images,)

    def constants_to_check(self, examples: Sequence[tuple[Tensor, ...]]) -> list[dict[str, float]]:
        """A threshold above the scores of one example and below those of the others, since a trained detector finds
        nothing in random images; then that of the config."""
        own = self.score_thr.item()
        self.score_thr.fill_(0)
        with torch.no_grad():
            least, *others = sorted(max(self(*example)[1].tolist(), default=0.0) for example in examples)
        self.score_thr.fill_(own)
        lowered = least + 0.1 * (others[0] - least) if others else 0.5 * least
        return [{'score_thr': lowered}, {'score_thr': own}]

    def postprocess(self) -> dict:
        return {
            'score_thr': float(self.settings['score_thr']),
            'iou_threshold': float(self.settings['nms']['iou_threshold']),
            'max_per_img': int(self.settings['max_per_img']),
        }

    def differences(
        self, found: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float
    ) -> list[Difference]:
        pairs = match(found[0], found[2], expected[0], expected[2])
        ours = [output[pairs[:, 0]] for output in found]
        theirs = [output[pairs[:, 1]] for output in expected]
        same = (ours[0] - theirs[0]).abs().amax(1) <= MAX_MOVED * tolerance / TOLERANCE
        count = max(len(found[0]), len(expected[0]), 1)
        flipped = 1 - int(same.sum()) / count if len(found[0]) or len(expected[0]) else 0.0
        differences = [
            Difference('boxes (fraction that moved or is missing)', flipped, max(MAX_FLIPPED, FEW_FLIPPED / count))
        ]
        for name, a, b in zip(self.output_names, ours, theirs, strict=True):
            if name in LIMITS and same.any():
                error = (a[same] - b[same]).abs().max().item()
                differences.append(Difference(name, error, LIMITS[name] * tolerance / TOLERANCE))
        return differences


class OneStage(Detector):
    """A one-stage detector with anchors, such as RetinaNet."""

    def final_settings(self) -> Mapping[str, Any]:
        return self.model.bbox_head.test_cfg

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.model.extract_feat(self.normalize(images))
        corners = image_corners(images.shape[2:])
        return dense_boxes(self.model.bbox_head, maps, corners, self.score_thr)


class TwoStage(Detector):
    """A two-stage detector with one or more box heads; with a mask head, the outputs include ``masks``.

    ``masks`` (N, 28, 28) are probabilities in the box, for the class of the box.
    """

    def __init__(self, model: nn.Module, cfg: Mapping[str, Any], meta: Mapping[str, Any] | None = None):
        super().__init__(model, cfg, meta)
        roi: Any = model.roi_head
        if roi.with_mask:
            self.output_names = (*self.output_names, 'masks')

    def final_settings(self) -> Mapping[str, Any]:
        return self.model.roi_head.test_cfg

    def postprocess(self) -> dict:
        threshold = self.settings.get('mask_thr_binary')
        return super().postprocess() | ({'mask_threshold': float(threshold)} if 'masks' in self.output_names else {})

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.model.extract_feat(self.normalize(images))
        corners = image_corners(images.shape[2:])
        proposals, _, _ = dense_boxes(self.model.rpn_head, maps, corners)
        boxes, scores, labels = self.classify(maps, proposals, corners)
        if 'masks' not in self.output_names:
            return boxes, scores, labels
        return boxes, scores, labels, self.masks(maps, boxes, labels)

    def classify(self, maps: Sequence[Tensor], proposals: Tensor, corners: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and labels of proposals (P, 4)."""
        roi, boxes = self.model.roi_head, _with_spare(proposals)
        heads, logits = _stages(roi.bbox_head), []
        for stage, (head, extractor) in enumerate(zip(heads, _stages(roi.bbox_roi_extractor), strict=True)):
            stage_logits, deltas = head(pool_regions(extractor, maps, boxes))
            logits.append(stage_logits)
            if stage < len(heads) - 1:
                classes = stage_logits[:, :-1].argmax(1)
                boxes = decode(head.bbox_coder, boxes, _of_class(head.reg_class_agnostic, deltas, classes), corners)
        scores = (torch.stack(logits).sum(0) / float(len(heads))).softmax(1)[:-1, :-1]
        region, labels = torch.nonzero(scores > self.score_thr).unbind(1)
        scores = scores.flatten().index_select(0, region * scores.shape[1] + labels)
        boxes, deltas = boxes.index_select(0, region), deltas.index_select(0, region)
        boxes = decode(head.bbox_coder, boxes, _of_class(head.reg_class_agnostic, deltas, labels), corners)
        return _suppressed(boxes, scores, labels, labels, self.settings)

    def masks(self, maps: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """Mask probabilities (N, 28, 28) of boxes (N, 4), for their classes."""
        roi, boxes, total = self.model.roi_head, _with_spare(boxes), []
        for head, extractor in zip(_stages(roi.mask_head), _stages(roi.mask_roi_extractor), strict=True):
            logits = head(pool_regions(extractor, maps, boxes))[:-1]
            total.append(_of_class(head.class_agnostic, logits, labels, 1).sigmoid())
        return torch.stack(total).sum(0)[:, 0] / float(len(total))


def dense_boxes(head: Any, maps: Sequence[Tensor], corners: Tensor, score_thr: Tensor | None = None):
    """Boxes, scores and labels of a head with anchors at each place of a pyramid, for one image.

    Args:
        head: Head of a one-stage detector, or head for proposals.
        maps: Features, (1, C, H_i, W_i) each.
        corners: See :func:`.boxes.image_corners`.
        score_thr: Scores are above it. None: of a head for proposals, where suppression is per level, not per class.
    """
    cfg, parts = head.test_cfg, []
    count = cfg.get('nms_pre', -1)
    for level, (logits, deltas) in enumerate(zip(*head(maps), strict=True)):
        width = logits.shape[3]
        logits = logits[0].permute(1, 2, 0).reshape(-1, head.cls_out_channels)
        scores = logits.sigmoid() if head.use_sigmoid_cls else logits.softmax(1)[:, :-1]
        classes = scores.shape[1]
        deltas = deltas[0].permute(1, 2, 0).reshape(-1, 4)
        # Spare entries keep the number of candidates the same for all image sizes.
        scores = torch.cat([scores.flatten(), scores.new_full((count,), -1.0)])
        deltas = torch.cat([deltas, deltas.new_zeros(count, 4)])
        scores, index = scores.topk(count)
        anchor = index // classes
        priors = anchors_at(head.prior_generator, level, anchor, width)
        groups = index % classes if score_thr is not None else torch.full_like(index, level)
        parts.append((priors, deltas.index_select(0, anchor), scores, groups))
    priors, deltas, scores, groups = (torch.cat(part) for part in zip(*parts, strict=True))
    boxes = decode(head.bbox_coder, priors, deltas, corners)
    is_valid = scores > (-0.5 if score_thr is None else score_thr)
    which = torch.nonzero(is_valid & larger_than(boxes, cfg.get('min_bbox_size', -1))).flatten()
    boxes, scores, groups = (values.index_select(0, which) for values in (boxes, scores, groups))
    return _suppressed(boxes, scores, groups, groups, cfg)


def _suppressed(boxes, scores, labels, groups, cfg) -> tuple[Tensor, Tensor, Tensor]:
    kept = suppress(boxes, scores, groups, cfg['nms'], int(cfg['max_per_img']))
    return boxes.index_select(0, kept), scores.index_select(0, kept), labels.index_select(0, kept)


def _with_spare(boxes: Tensor) -> Tensor:
    """Append one box, since some runtimes cannot run a network on zero regions."""
    return torch.cat([boxes, boxes.new_zeros(1, 4)])


def _stages(part: nn.Module) -> list:
    """The parts of a cascade, or the single one."""
    return list(part) if isinstance(part, nn.ModuleList) else [part]


def _of_class(is_agnostic: bool, values: Tensor, classes: Tensor, size: int = 4) -> Tensor:
    """The values of the class of each row.

    Args:
        is_agnostic: Whether all classes share the values.
        values: (N, size) if so, else (N, classes * size), with further axes.
        classes: (N,) int64.
        size: Number of values of a class.

    Returns:
        (N, size), with further axes.
    """
    if is_agnostic:
        return values
    count, rest = values.shape[1] // size, values.shape[2:]
    rows = torch.arange(classes.shape[0]) * count + classes
    return values.reshape(-1, size, *rest).index_select(0, rows)


def create(model: nn.Module, cfg: Mapping[str, Any], meta: Mapping[str, Any] | None = None) -> Graph:
    """The graph of a detector.

    Raises:
        UserError: If a part of the model has no equivalent among the operations that export.
    """
    refuse_queries(model)
    if not hasattr(model, 'roi_head'):
        _check_dense_head(getattr(model, 'bbox_head', None), ONE_STAGE)
        return OneStage(model, cfg, meta)
    roi: Any = model.roi_head
    if type(roi).__name__ not in ROI_HEADS or roi.with_shared_head:
        raise _refusal(f'{type(roi).__name__}{" with a shared head" * bool(roi.with_shared_head)}')
    _check_dense_head(model.rpn_head, PROPOSALS)
    _check_suppression(roi.test_cfg)
    for head in _stages(roi.bbox_head):
        _check(head, BOX_HEAD)
        if head.custom_cls_channels or not (head.with_cls and head.with_reg):
            raise _refusal(f'{type(head).__name__} without softmax scores or boxes')
    extractors = _stages(roi.bbox_roi_extractor)
    if roi.with_mask:
        extractors += _stages(roi.mask_roi_extractor)
        for head in _stages(roi.mask_head):
            _check(head, MASK_HEAD)
    for extractor in extractors:
        _check(extractor, POOLING)
        if any(layer.pool_mode != 'avg' for layer in extractor.roi_layers):
            raise _refusal('RoIAlign with pool_mode max')
    return TwoStage(model, cfg, meta)


def _check_dense_head(head: Any, needed: Mapping[str, tuple[str, ...]]) -> None:
    _check(head, needed)
    third = list(inspect.signature(head.loss_by_feat).parameters)[2]
    if third != 'batch_gt_instances':  # an output besides scores and boxes
        raise _refusal(f'{type(head).__name__} with {third}')
    if getattr(head.loss_cls, 'custom_cls_channels', False):
        raise _refusal(f'{type(head).__name__} with {type(head.loss_cls).__name__}')
    _check_suppression(head.test_cfg)
    if head.test_cfg.get('nms_pre', -1) <= 0:
        raise _refusal(f'{type(head).__name__} without nms_pre in its test_cfg')


def _check_suppression(cfg: Mapping[str, Any]) -> None:
    nms_cfg = cfg.get('nms') or {'type': None}
    if nms_cfg.get('type') != 'nms' or not NMS_SETTINGS.issuperset(nms_cfg) or 'iou_threshold' not in nms_cfg:
        raise _refusal(f'nms={dict(nms_cfg)} in test_cfg', "dict(type='nms', iou_threshold=...)")


def _check(part: Any, needed: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse a part of a model whose class, or that of a part of it, defines a method that this module replaces."""
    for path, methods in needed.items():
        inner = part
        for name in path.split('.') if path else ():
            inner = inner[int(name)] if name.isdigit() else getattr(inner, name, None)
        for method in methods:
            own = getattr(type(inner), method.partition('.')[2], None)
            if getattr(own, '__qualname__', None) != method:
                raise _refusal(type(inner).__name__, f'a subclass of {method.partition(".")[0]}')


def _refusal(what: str, allowed: str = 'a config of RetinaNet, Mask R-CNN or Cascade R-CNN') -> UserError:
    return UserError(f'{what} cannot be exported with its post-processing: use {allowed}, or --raw for the outputs')
