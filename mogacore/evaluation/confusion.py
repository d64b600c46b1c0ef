"""Confusion matrix as a drawing with class names, for classification, class maps and boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub
from mmengine.registry import METRICS
from mmengine.visualization import Visualizer

from mogacore.errors import UserError

IGNORED = 255  # value of pixels without a class
MAX_NUMBERS = 40  # classes up to which the cells contain numbers
BACKGROUND = 'background'


@METRICS.register_module()
class ConfusionMatrixPlot(BaseMetric):
    """Draws for each true class as which classes it is predicted, in percent.

    The visualizer of the run stores the drawing, by default as ``confusion_ITERATION.png`` in
    ``WORK_DIR/TIME/vis_data/vis_image``. Rows are true classes, with their number of samples, pixels or boxes; columns
    are predicted classes. No score is returned.

    For boxes there is one more class, the background: its column counts missed objects, its row false detections. A
    prediction and an object are matched if they overlap enough, whatever their classes, the largest overlaps first.

    Args:
        min_score: Lowest score of a predicted box that counts, in 0..1.
        min_iou: Lowest overlap of a match, in 0..1.
        collect_device: As in mmengine's BaseMetric.
        prefix: As in mmengine's BaseMetric.

    Raises:
        UserError: If the data set has no class names, or a result is none of the three kinds.
    """

    default_prefix = 'confusion'

    def __init__(
        self,
        min_score: float = 0.3,
        min_iou: float = 0.5,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ):
        super().__init__(collect_device, prefix)
        self.min_score, self.min_iou = min_score, min_iou

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Count the pairs of true and predicted class of each sample."""
        classes = (self.dataset_meta or {}).get('classes')
        if not classes:
            raise UserError('ConfusionMatrixPlot needs class names: set metainfo=dict(classes=...) of the data set')
        for sample in data_samples:
            truth, predicted, names = self._pairs(sample, list(classes))
            cells, counts = np.unique(truth * len(names) + predicted, return_counts=True)
            self.results.append((names, cells, counts))

    def compute_metrics(self, results: list) -> dict:
        """Draw the matrix of all samples."""
        names = results[0][0]
        matrix = np.zeros(len(names) ** 2, np.int64)
        for _, cells, counts in results:
            matrix[cells] += counts
        image = draw_confusion(matrix.reshape(len(names), len(names)), names)
        step = MessageHub.get_current_instance().get_info('iter', -1) + 1  # counted from 0; a test has none
        Visualizer.get_current_instance().add_image('confusion', image, step)
        return {}

    def _pairs(self, sample: Mapping, names: list[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """True and predicted classes of a sample, and the names of all classes."""
        if {'gt_sem_seg', 'pred_sem_seg'} <= sample.keys():
            truth, predicted = (_array(sample[key]['data']) for key in ('gt_sem_seg', 'pred_sem_seg'))
            is_valid = truth != IGNORED
            return truth[is_valid], predicted[is_valid], names
        if 'labels' in sample.get('pred_instances', ()) and 'gt_instances' in sample:
            pairs = np.array([*self._box_pairs(sample, len(names))], np.int64).reshape(-1, 2)
            return pairs[:, 0], pairs[:, 1], [*names, BACKGROUND]
        labels = [sample[key] for key in ('gt_label', 'pred_label') if key in sample]
        if [label.numel() for label in labels] == [1, 1]:
            return _array(sample['gt_label']), _array(sample['pred_label']), names
        raise UserError(
            'ConfusionMatrixPlot draws results of classification with one label per image, class maps and boxes, whose '
            f'test pipeline loads the annotations; the results have {", ".join(sample)}: remove it from the evaluator'
        )

    def _box_pairs(self, sample: Mapping, background: int) -> Iterator[tuple[int, int]]:
        """Pairs of classes of the matched boxes of an image, then of its missed objects and false detections."""
        found, real = sample['pred_instances'], sample['gt_instances']
        is_counted = found['scores'] >= self.min_score
        labels, truth = _array(found['labels'][is_counted]), _array(real['labels'])
        pairs = match_boxes(real['bboxes'].to(found['bboxes']), found['bboxes'][is_counted], self.min_iou)
        missed, false = set(range(len(truth))), set(range(len(labels)))
        for row, column, _ in pairs:
            missed.remove(row)
            false.remove(column)
            yield truth[row], labels[column]
        yield from ((truth[row], background) for row in missed)
        yield from ((background, labels[column]) for column in false)


def match_boxes(truth: torch.Tensor, found: torch.Tensor, min_iou: float) -> list[tuple[int, int, float]]:
    """Match boxes with objects, whatever their classes, the largest overlaps first.

    Args:
        truth: (N, 4), boxes of the objects, x1 y1 x2 y2.
        found: (M, 4), other boxes.
        min_iou: Lowest overlap of a match, in 0..1.

    Returns:
        Index of the object, index of the box, and overlap of each match; no index occurs twice.
    """
    from torchvision.ops import box_iou

    overlaps = box_iou(truth, found).cpu().numpy()
    free_rows, free_columns = set(range(len(truth))), set(range(len(found)))
    matches = []
    for index in np.argsort(-overlaps, axis=None, kind='stable'):
        row, column = divmod(int(index), len(found))
        if overlaps[row, column] < min_iou:
            break
        if row in free_rows and column in free_columns:
            free_rows.remove(row)
            free_columns.remove(column)
            matches.append((row, column, float(overlaps[row, column])))
    return matches


def _array(values) -> np.ndarray:
    """Flat int64 array of a tensor of labels."""
    return values.detach().cpu().numpy().astype(np.int64).reshape(-1)


def draw_confusion(matrix: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Draw a confusion matrix.

    Args:
        matrix: (C, C) counts, true classes in rows.
        names: The C class names.

    Returns:
        (H, W, 3) RGB image, uint8.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    totals = matrix.sum(1)
    percent = 100 * matrix / np.maximum(totals, 1)[:, None]
    size = min(max(4.0, 0.45 * len(names)), 30.0)  # inches
    figure = Figure(figsize=(size + 1.5, size + 1), layout='constrained')
    axes = figure.add_subplot()
    drawn = axes.imshow(percent, cmap='Blues', vmin=0, vmax=100)
    axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
    rows = [f'{name} ({total:,})' for name, total in zip(names, totals, strict=True)]
    axes.set_yticks(range(len(names)), rows, parse_math=False)
    axes.set(xlabel='predicted class', ylabel='true class (number)')
    figure.colorbar(drawn, ax=axes, label='% of the true class', shrink=0.8)
    if len(names) <= MAX_NUMBERS:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            value = percent[row, column]
            color = 'white' if value > 50 else 'black'
            axes.text(column, row, f'{value:.0f}', ha='center', va='center', fontsize=8, color=color)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
