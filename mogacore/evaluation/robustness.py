"""Scores of classifiers on ImageNet-A, -R and -C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from mogacore.errors import UserError
from mogacore.published.corruptions import ALEXNET_ERRORS


def subset_predictions(scores: np.ndarray, subset: Sequence[int]) -> np.ndarray:
    """The class of highest score among a subset of the classes.

    Args:
        scores: (N, classes).
        subset: Labels of the classes that may be predicted.

    Returns:
        (N,), labels among all classes.
    """
    labels = np.asarray(subset)
    return labels[scores[:, labels].argmax(1)]


def corruption_scores(errors: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """Errors of a classifier on ImageNet-C in percent.

    Args:
        errors: By corruption and severity, the fraction of the images whose class is wrong.

    Returns:
        The error of each corruption, the mean over its severities; ``mean_error``, the mean of these; ``mCE``, the mean
        of their ratios to those of AlexNet.

    Source: Hendrycks and Dietterich, arXiv 1903.12261, section 4.
    """
    means = {name: float(np.mean(list(errors[name].values()))) for name in ALEXNET_ERRORS}
    ratios = [means[name] / ALEXNET_ERRORS[name] for name in means]
    scores = {name: 100 * mean for name, mean in means.items()}
    return {**scores, 'mean_error': 100 * float(np.mean(list(means.values()))), 'mCE': 100 * float(np.mean(ratios))}


class _Classified(BaseMetric):
    """Base class: checks that the model has the classes of the data set."""

    def scores_of(self, sample: Mapping) -> np.ndarray:
        """Scores (classes,) of a sample.

        Raises:
            UserError: If the model has another number of classes than the data set.
        """
        scores = sample['pred_score'].cpu().numpy()
        num_classes = len((self.dataset_meta or {}).get('classes') or scores)
        if len(scores) != num_classes:
            raise UserError(
                f'the model has {len(scores)} classes, but the class folders are {num_classes}: use a model of '
                'ImageNet-1K, and all of its 1,000 class folders'
            )
        return scores


@METRICS.register_module()
class SubsetAccuracy(_Classified):
    """Top-1 accuracy in percent among the classes that the data set contains, as for ImageNet-A and ImageNet-R.

    The scores of the other classes are ignored.

    Args:
        collect_device: As in mmengine's BaseMetric.
        prefix: As in mmengine's BaseMetric.
    """

    default_prefix = 'accuracy'

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Compare the prediction of each sample with its label."""
        subset = (self.dataset_meta or {}).get('subset')
        if not subset:
            raise UserError('SubsetAccuracy needs a data set of the type ImageNetSubset: use Accuracy for others')
        scores = np.stack([self.scores_of(sample) for sample in data_samples])
        labels = [int(sample['gt_label']) for sample in data_samples]
        self.results += (subset_predictions(scores, subset) == labels).tolist()

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The accuracy."""
        return {'top1': 100 * float(np.mean(results))}


@METRICS.register_module()
class CorruptionError(_Classified):
    """Errors on ImageNet-C, see :func:`corruption_scores`.

    Args:
        collect_device: As in mmengine's BaseMetric.
        prefix: As in mmengine's BaseMetric.
    """

    default_prefix = 'corruption'

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Compare the prediction of each sample with its label; the path has corruption and severity."""
        for sample in data_samples:
            parts = Path(sample['img_path']).parts
            at = max(index for index, part in enumerate(parts) if part in ALEXNET_ERRORS)
            is_wrong = int(self.scores_of(sample).argmax()) != int(sample['gt_label'])
            self.results.append((parts[at], int(parts[at + 1]), is_wrong))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The errors."""
        wrong: dict[str, dict[int, list[bool]]] = {name: {} for name in ALEXNET_ERRORS}
        for corruption, severity, is_wrong in results:
            wrong[corruption].setdefault(severity, []).append(is_wrong)
        return corruption_scores(
            {name: {level: float(np.mean(of)) for level, of in levels.items()} for name, levels in wrong.items()}
        )
