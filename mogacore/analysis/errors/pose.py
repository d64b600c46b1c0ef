"""Errors of pose estimation: COCO's average precision, and distances of keypoints, by joint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.registry import METRICS

from mogacore.engine.config import as_list, leaf_datasets
from mogacore.engine.dataset_meta import dataset_facts
from mogacore.errors import UserError
from mogacore.evaluation.confusion import match_boxes
from mogacore.runtime.tasks import Result
from mogacore.text import type_name

from . import figures
from .findings import Analysis, Findings, Picture, Table, mean, without_output

THRESHOLDS = (0.05, 0.1, 0.2)
MARGIN = 0.3  # of the box, around an object that is drawn


class PoseAnalysis(Analysis):
    """Distances of the keypoints of each object in pixels, and relative to the longer side of its box.

    Predictions for detected boxes, of a test set with ``bbox_file``, are compared with the annotated object that they
    overlap most, from an IoU of 0.5 on; the others are left out.
    """

    task = 'pose'
    unit = 'object'

    def __init__(self, cfg, dataset, score_thr):
        super().__init__(cfg, dataset, score_thr)
        self.joints: list[str] = dataset_facts(dataset.metainfo)['keypoints']['names']
        self.errors: list[np.ndarray] = []
        self.sizes: list[float] = []
        self.metric = _evaluator(cfg, dataset)
        self.annotated = _annotated(cfg) if getattr(dataset, 'bbox_file', None) else None

    def _truth(self, info: dict, result: Result) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Box (4,), keypoints (K, 2) and their visibility (K,) of the object that is meant; None if there is none."""
        if self.annotated is not None:
            others = self.annotated.get(info['img_id'], [])
            boxes = np.array([other['bbox'][0] for other in others], np.float32).reshape(-1, 4)
            pairs = match_boxes(torch.from_numpy(boxes), torch.from_numpy(result['boxes'][:1]), 0.5)
            if not pairs:
                return None
            info = others[pairs[0][0]]
        return info['bbox'][0], info['keypoints'][0][:, :2], np.asarray(info['keypoints_visible'][0]) > 0

    def add(self, names, info, result):
        if len(result['boxes']) != 1:
            raise UserError(
                f'the prediction for {info.get("img_path")} has {len(result["boxes"])} objects: only models that '
                'predict one object per box, TopdownPoseEstimator, can be analyzed'
            )
        if result['keypoints'].shape[1:] != (len(self.joints), 2):
            raise UserError(
                f'the prediction for {info.get("img_path")} has {result["keypoints"].shape[1]} keypoints, but the test '
                f'set has {len(self.joints)}: give the config with which the predictions were made'
            )
        if names.get('id', info.get('id')) != info.get('id'):
            raise UserError(
                f'a prediction is for object {names["id"]}, but the test set has object {info["id"]} in its place: '
                'give the config with which the predictions were made'
            )
        if self.metric:
            self.metric.process({}, [self._sample(info, result)])
        truth = self._truth(info, result)
        if truth is None:
            return float('nan'), 0.0
        box, keypoints, is_visible = truth
        error = np.linalg.norm(result['keypoints'][0] - keypoints, axis=1)
        error[~is_visible] = np.nan
        self.errors.append(error)
        self.sizes.append(float((box[2:] - box[:2]).max()))
        return -mean(error) / max(self.sizes[-1], 1e-6), float(is_visible.sum())

    def _sample(self, info: dict, result: Result) -> dict:
        """What the evaluator takes of a sample."""
        scale = padded_scale(info['bbox'], self.cfg.test_dataloader.dataset.pipeline)
        known = {'bbox_scores': np.asarray(info['bbox_score']), 'bbox_scales': scale}
        predicted = {
            'keypoints': result['keypoints'],
            'keypoint_scores': result['scores'],
            'bboxes': result['boxes'],
            'bbox_scores': known['bbox_scores'],
        }
        return {**info, 'pred_instances': predicted, 'gt_instances': known}

    def _average_precision(self) -> dict[str, float]:
        """Scores of the config's CocoMetric, such as ``AP``; -1, which it gives without objects of a size, is NaN."""
        if not self.metric:
            return {}
        with without_output():
            found = self.metric.evaluate(len(self.metric.results))
        return {name.rpartition('/')[2]: float(value) if value >= 0 else float('nan') for name, value in found.items()}

    def findings(self):
        if not self.errors:
            raise UserError('no prediction is for an annotated object: check the boxes that were given to the model')
        errors, sizes = np.stack(self.errors), np.array(self.sizes, np.float32)
        relative = np.where(sizes[:, None] > 0, errors / np.where(sizes > 0, sizes, 1)[:, None], np.nan)
        scores = self._average_precision()
        scores |= {'EPE': mean(errors), 'PCK': mean(_pck(relative, _threshold(self.cfg)))}
        scores |= {f'PCK@{threshold:g}': mean(_pck(relative, threshold)) for threshold in THRESHOLDS}
        scores['NME'] = mean(relative)
        shares = {threshold: _pck(relative, threshold) for threshold in THRESHOLDS}
        rows, spread = [], np.full((3, len(self.joints)), np.nan)
        for k, name in enumerate(self.joints):
            known = ~np.isnan(relative[:, k])
            if known.any():
                spread[:, k] = np.percentile(relative[known, k], (25, 50, 75))
            rows.append(
                {
                    'joint': name,
                    'objects': int(known.sum()),
                    'error px': mean(errors[:, k]),
                    'error / box': mean(relative[:, k]),
                    'median / box': float(spread[1, k]),
                    **{f'PCK@{threshold:g}': float(shares[threshold][k]) for threshold in THRESHOLDS},
                }
            )
        note = 'Distances in pixels of the image, and relative to the longer side of the box. PCK: share of keypoints '
        note += 'closer than that fraction of it.'
        bars = figures.joint_errors(self.joints, spread[1], spread[[0, 2]])
        curves = figures.pck_curves(self.joints, relative)
        return Findings(
            scores,
            {'joints': Table('Joints', note, rows)},
            {
                'joint_errors': Picture('Error by joint', 'Half of the keypoints lie within the line.', bars),
                'pck': Picture('Share of keypoints within a distance', 'The worst joints are named.', curves),
            },
        )

    def panels(self, image, info, result):
        truth = self._truth(info, result)
        assert truth is not None
        box, keypoints, is_visible = truth
        known = {'boxes': box[None], 'keypoints': keypoints[None], 'scores': is_visible[None].astype(np.float32)}
        left, top, right, bottom = _region(box, image.shape)
        part = np.ascontiguousarray(image[top:bottom, left:right])
        everything = dict(result, scores=np.ones_like(result['scores']))  # low scores are part of an error
        panels = []
        for title, instance in (('truth', known), ('prediction', everything)):
            shift = np.array([left, top], np.float32)
            moved = {
                'boxes': instance['boxes'] - np.tile(shift, 2),
                'keypoints': instance['keypoints'][..., :2] - shift,
                'scores': instance['scores'],
            }
            panels.append((title, self.writer.draw(part, moved)))
        return panels

    def caption(self, info, result, score):
        return f'mean error {-score:.3f} of the box'


def _evaluator(cfg, dataset) -> Any:
    """The CocoMetric of a config; without one, that of its data set's file, or None if it has none."""
    settings = [item for item in as_list(cfg.get('test_evaluator')) if type_name(item['type']) == 'CocoMetric']
    if not settings and 'sigmas' not in dataset.metainfo:
        return None
    if not settings:
        settings = [dict(type='CocoMetric', ann_file=next(leaf_datasets(cfg, 'test')).get('ann_file'))]
    if not settings[0].get('ann_file'):
        return None
    metric = METRICS.build(settings[0])
    metric.dataset_meta = dataset.metainfo
    return metric


def padded_scale(boxes: np.ndarray, pipeline: Sequence[Mapping]) -> np.ndarray:
    """Width and height of the crops for boxes (N, 4), (N, 2) px; CocoMetric suppresses duplicates by their area.

    Args:
        boxes: x1, y1, x2, y2.
        pipeline: The transforms of the test: padding and aspect ratio are those of its crop.
    """
    steps = {type_name(step['type']): step for step in pipeline}
    scale = (boxes[:, 2:] - boxes[:, :2]) * steps.get('GetBBoxCenterScale', {}).get('padding', 1.25)
    if 'TopdownAffine' in steps:
        width, height = steps['TopdownAffine']['input_size']
        ratio = width / height
        is_wide = scale[:, 0] > scale[:, 1] * ratio
        scale = np.where(
            is_wide[:, None],
            np.stack([scale[:, 0], scale[:, 0] / ratio], 1),
            np.stack([scale[:, 1] * ratio, scale[:, 1]], 1),
        )
    return scale


def _annotated(cfg) -> dict[int, list[dict]]:
    """Annotated objects of a test set with detected boxes, by image."""
    from mmengine.registry import DATASETS

    dataset = DATASETS.build(dict(cfg.test_dataloader.dataset, bbox_file=None, pipeline=[]))
    found: dict[int, list[dict]] = {}
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        found.setdefault(info['img_id'], []).append(info)
    return found


def _pck(relative: np.ndarray, threshold: float) -> np.ndarray:
    """Share of keypoints closer than a threshold, by joint; NaN for joints that are never known."""
    known = ~np.isnan(relative)
    with np.errstate(invalid='ignore'):
        return (relative < threshold).sum(0) / known.sum(0)


def _threshold(cfg) -> float:
    """The threshold of the config's own PCK; mmpose's default if it has none."""
    own = [item for item in as_list(cfg.get('test_evaluator')) if type_name(item['type']) == 'PCKAccuracy']
    return own[0].get('thr', 0.05) if own else 0.05


def _region(box: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The box with a margin, within the image, in whole pixels."""
    margin = MARGIN * float((box[2:] - box[:2]).max()) + 2
    left, top = (max(0, int(value - margin)) for value in box[:2])
    right, bottom = (min(limit, int(value + margin) + 1) for value, limit in zip(box[2:], shape[1::-1], strict=True))
    return left, top, max(right, left + 1), max(bottom, top + 1)
