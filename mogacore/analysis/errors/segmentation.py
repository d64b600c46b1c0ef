"""Errors of semantic segmentation: classes, pixels and images."""

from __future__ import annotations

import numpy as np
from mmengine.registry import TRANSFORMS

from mogacore.engine.config import leaf_datasets
from mogacore.errors import UserError
from mogacore.evaluation.confusion import IGNORED
from mogacore.runtime.drawing.canvas import enlarge_mask, enlargement
from mogacore.text import type_name

from . import figures
from .findings import Analysis, Findings, Picture, Table, confused_pairs, mean, ratio

RIGHT, WRONG, UNKNOWN = (225, 235, 225), (215, 25, 28), (120, 120, 120)


class SegmentationAnalysis(Analysis):
    """Intersection over union of each class, and confusions of pixels."""

    task = 'segmentation'
    decimals = 2

    def __init__(self, cfg, dataset, score_thr):
        super().__init__(cfg, dataset, score_thr)
        steps = [step for step in next(leaf_datasets(cfg, 'test')).pipeline]
        steps = [step for step in steps if type_name(step['type']) == 'LoadAnnotations']
        if not steps:
            raise UserError('the test pipeline loads no class maps: add LoadAnnotations to it')
        self.load = TRANSFORMS.build(steps[0])
        self.matrix = np.zeros((len(self.names), len(self.names)), np.int64)

    def _truth(self, info: dict) -> np.ndarray:
        return self.load(dict(info))['gt_seg_map'].astype(np.int64)

    def add(self, names, info, result):
        truth, predicted = self._truth(info), result['class_map'].astype(np.int64)
        if truth.shape != predicted.shape:
            raise UserError(
                f'the prediction for {info["img_path"]} has {predicted.shape[0]} x {predicted.shape[1]} pixels, but '
                f'its map {truth.shape[0]} x {truth.shape[1]}: give the config with which the predictions were made'
            )
        is_known = truth != IGNORED
        truth, predicted = truth[is_known], predicted[is_known]
        self.check_classes(truth, f'map {info["seg_map_path"]}')
        self.check_classes(predicted, f'the prediction for {info["img_path"]}')
        num_classes = len(self.names)
        matrix = np.bincount(truth * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, -1)
        self.matrix += matrix
        return mean(_overlaps(matrix)[matrix.sum(1) > 0]), float(len(np.unique(truth)))

    def findings(self):
        matrix = self.matrix
        both, truth, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
        overlaps, recall, precision = _overlaps(matrix), ratio(both, truth), ratio(both, predicted)
        scores = {
            'aAcc': 100 * float(both.sum() / max(truth.sum(), 1)),
            'mIoU': 100 * mean(overlaps),
            'mAcc': 100 * mean(recall),
        }
        rows = [
            {
                'class': name,
                'pixels': int(truth[k]),
                'share': float(truth[k] / max(truth.sum(), 1)),
                'IoU': float(overlaps[k]),
                'precision': float(precision[k]),
                'recall': float(recall[k]),
            }
            for k, name in enumerate(self.names)
        ]
        image, how = figures.confusion(matrix, self.names)
        return Findings(
            scores,
            {
                'classes': Table('Classes', 'IoU: intersection over union of all pixels of the test set.', rows),
                'confused': Table(
                    'Most confused pairs', 'Pixels of a class that are predicted as another.',
                    confused_pairs(matrix, self.names),
                ),
            },
            {'confusion': Picture('Confusion matrix', how, image)},
        )  # fmt: skip

    def panels(self, image, info, result):
        truth, predicted = self._truth(info), result['class_map'].astype(np.int64)
        is_known = truth != IGNORED
        known = np.where(is_known, truth, np.bincount(truth[is_known], minlength=1).argmax())
        drawn = self.writer.draw(image, {'class_map': known})
        factor = enlargement(image)
        drawn[enlarge_mask(~is_known, factor)] = UNKNOWN
        errors = np.where((truth == predicted)[..., None], RIGHT, WRONG)
        errors[~is_known] = UNKNOWN
        errors = errors.astype(np.uint8).repeat(factor, 0).repeat(factor, 1)
        return [('truth', drawn), ('prediction', self.writer.draw(image, result)), ('errors', errors)]

    def caption(self, info, result, score):
        return f'mean IoU of its classes {score:.3f}'


def _overlaps(matrix: np.ndarray) -> np.ndarray:
    both = np.diag(matrix)
    return ratio(both, matrix.sum(0) + matrix.sum(1) - both)
