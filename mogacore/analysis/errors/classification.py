"""Errors of classifiers, with one label per image or several."""

from __future__ import annotations

from typing import Any

import numpy as np

from mogacore.errors import UserError
from mogacore.runtime.drawing.canvas import enlarged

from . import figures
from .findings import Analysis, Findings, Picture, Table, confused_pairs, mean

NUM_INTERVALS = 15  # of confidence
MAX_POINTS = 300  # of a curve


class ClassificationAnalysis(Analysis):
    """Accuracy, confusions, calibration, and precision and recall of each class."""

    task = 'classification'
    panel_width = 300

    def __init__(self, cfg, dataset, score_thr):
        super().__init__(cfg, dataset, score_thr)
        self.labels: list[np.ndarray] = []
        self.scores: list[np.ndarray] = []

    def add(self, names, info, result):
        scores = result['probabilities']
        self.names = self.names or [str(label) for label in range(len(scores))]
        if len(scores) != len(self.names):
            raise UserError(
                f'the predictions have {len(scores)} classes, but the test set has {len(self.names)}: give the config '
                'with which they were made'
            )
        if 'gt_label' not in info:
            raise UserError('the test set has no labels: give a config whose test set has them')
        truth = _labels(info)
        self.check_classes(truth, f'image {info.get("img_path")}')
        self.is_single = np.ndim(info['gt_label']) == 0
        self.labels.append(truth)
        self.scores.append(scores)
        if self.is_single:
            return float(scores[truth[0]] - np.delete(scores, truth[0]).max(initial=0)), 0.0
        is_true = np.isin(np.arange(len(scores)), truth)
        return float(np.log(np.maximum(np.where(is_true, scores, 1 - scores), 1e-12)).mean()), 0.0

    def findings(self):
        scores = np.stack(self.scores)
        is_true = np.zeros(scores.shape, bool)
        for image, truth in enumerate(self.labels):
            is_true[image, truth] = True
        areas, picture = self._precision_recall(is_true, scores)
        rows: list[dict[str, Any]] = [
            {'class': name, 'images': int(is_true[:, k].sum()), 'AP': areas[k]} for k, name in enumerate(self.names)
        ]
        note = 'AP: area below the curve of precision over recall of the class against the rest.'
        findings = Findings({}, {'classes': Table('Classes', note, rows)}, {})
        if self.is_single:
            self._compare_labels(is_true.argmax(1), scores, findings)
        else:
            findings.scores['mAP'] = 100 * mean(areas)
        findings.pictures['precision_recall'] = picture
        return findings

    def _compare_labels(self, truth: np.ndarray, scores: np.ndarray, findings: Findings) -> None:
        """Add what is defined for one label per image."""
        num_classes, predicted = len(self.names), scores.argmax(1)
        matrix = np.bincount(truth * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, -1)
        right, total, claimed = np.diag(matrix), matrix.sum(1), matrix.sum(0)
        precision, recall = right / np.maximum(claimed, 1), right / np.maximum(total, 1)
        f1 = 2 * right / np.maximum(claimed + total, 1)
        for k, row in enumerate(findings.tables['classes'].rows):
            row |= {'precision': float(precision[k]), 'recall': float(recall[k]), 'F1': float(f1[k])}
        found = {'top1': 100 * float((truth == predicted).mean())}
        if num_classes > 5:
            best = np.argsort(-scores, axis=1, kind='stable')[:, :5]
            found['top5'] = 100 * float((best == truth[:, None]).any(1).mean())
        for name, values in (('precision', precision), ('recall', recall), ('f1-score', f1)):
            found[name] = 100 * float(values.mean())
        image, how = figures.confusion(matrix, self.names)
        calibration, found['ECE'] = self._reliability(truth == predicted, scores.max(1))
        note = 'Accuracy of the images whose highest probability lies in an interval; a calibrated model lies on the '
        note += f'diagonal. Expected calibration error (ECE): {found["ECE"]:.2f} points.'
        findings.scores |= found
        pairs = confused_pairs(matrix, self.names)
        findings.tables['confused'] = Table('Most confused pairs', 'Images of a class predicted as another.', pairs)
        findings.pictures['confusion'] = Picture('Confusion matrix', how, image)
        findings.pictures['reliability'] = Picture('Calibration', note, calibration)

    def _precision_recall(self, is_true: np.ndarray, scores: np.ndarray):
        from sklearn.metrics import average_precision_score, precision_recall_curve

        areas, curves = [], []
        for k, name in enumerate(self.names):
            if not is_true[:, k].any():
                areas.append(float('nan'))
                continue
            precision, recall, _ = precision_recall_curve(is_true[:, k], scores[:, k])
            areas.append(float(average_precision_score(is_true[:, k], scores[:, k])))
            drawn = np.unique(np.linspace(0, len(recall) - 1, MAX_POINTS).round().astype(int))
            curves.append((name, recall[drawn], precision[drawn], areas[-1]))
        note = 'Each class against the rest; the classes with the lowest average precision are named.'
        return areas, Picture('Precision and recall', note, figures.precision_recall(curves, ''))

    def _reliability(self, is_right: np.ndarray, confidence: np.ndarray) -> tuple[bytes, float]:
        edges = np.linspace(0, 1, NUM_INTERVALS + 1)
        interval = np.clip(np.ceil(confidence.astype(float) * NUM_INTERVALS).astype(int) - 1, 0, NUM_INTERVALS - 1)
        counts = np.bincount(interval, minlength=NUM_INTERVALS)
        sums = (np.bincount(interval, values, minlength=NUM_INTERVALS) for values in (confidence, is_right))
        with np.errstate(invalid='ignore'):
            confidences, accuracies = (values / counts for values in sums)
        error = np.nansum(counts * abs(confidences - accuracies)) / counts.sum()
        return figures.reliability(edges, confidences, accuracies, counts), 100 * float(error)

    def panels(self, image, info, result):
        truth = ', '.join(self.names[label] for label in _labels(info))
        predicted = self.names[int(result['probabilities'].argmax())]
        return [
            (f'truth: {truth}', enlarged(image)),
            (f'predicted: {predicted}', self.writer.draw(image, result)),
        ]

    def caption(self, info, result, score):
        truth = ', '.join(self.names[label] for label in _labels(info)) or 'none'
        label = int(result['probabilities'].argmax())
        return f'truth {truth}, predicted {self.names[label]} ({result["probabilities"][label]:.1%})'


def _labels(info: dict) -> np.ndarray:
    return np.asarray(info['gt_label'], np.int64).reshape(-1)
