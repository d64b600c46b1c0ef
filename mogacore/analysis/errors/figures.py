"""Figures of a report, as PNG files in memory."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from mogacore.evaluation.confusion import draw_confusion

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CLASSES = 60  # of a confusion matrix that is legible
NUM_LABELED = 6  # curves with a name


def new_figure(width: float = 5.5, height: float = 4.0) -> tuple[Figure, Axes]:
    """A figure in inches, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout='constrained')
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    return figure, axes


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=100)
    return buffer.getvalue()


def confusion(matrix: np.ndarray, names: Sequence[str]) -> tuple[bytes, str]:
    """A confusion matrix, and how to read it; of many classes, those with the most errors.

    Args:
        matrix: (C, C) counts, true classes in rows.
        names: The C names.
    """
    note = 'Percent of each true class (row) that is predicted as each class (column).'
    if len(names) > MAX_CLASSES:
        errors = matrix.sum(1) + matrix.sum(0) - 2 * np.diag(matrix)
        chosen = np.sort(np.argsort(-errors, kind='stable')[:MAX_CLASSES])
        matrix, names = matrix[np.ix_(chosen, chosen)], [names[i] for i in chosen]
        note += f' Only the {MAX_CLASSES} classes with the most errors are shown, and percent of these.'
    image = draw_confusion(matrix, names)
    return cv2.imencode('.png', image[..., ::-1])[1].tobytes(), note


def precision_recall(curves: Sequence[tuple[str, np.ndarray, np.ndarray, float]], average: str) -> bytes:
    """Precision over recall of each class; the classes with the lowest average precision have their names.

    Args:
        curves: Name, recalls, precisions, and average precision of each class.
        average: Name of the mean curve over the classes, which is drawn where all have the same recalls; '' for none.
    """
    figure, axes = new_figure()
    order = sorted(range(len(curves)), key=lambda i: curves[i][3])
    labeled = set(order[:NUM_LABELED])
    for number, (_, recall, precision, _) in enumerate(curves):
        if number not in labeled:
            axes.plot(recall, precision, color='0.75', linewidth=0.8, zorder=1)
    for rank, number in enumerate(order[:NUM_LABELED]):
        name, recall, precision, area = curves[number]
        axes.plot(recall, precision, color=f'C{rank}', linewidth=1.2, label=f'{name}  {area:.3f}')
    if average and curves:
        values = np.mean([curve[2] for curve in curves], axis=0)
        axes.plot(curves[0][1], values, color='black', linewidth=2, label=f'{average}  {values.mean():.3f}')
    axes.set(xlabel='recall', ylabel='precision', xlim=(0, 1.01), ylim=(0, 1.03))
    legend = axes.legend(fontsize=8, loc='lower left', title='average precision')
    for text in legend.get_texts():
        text.set_parse_math(False)
    return png(figure)


def reliability(edges: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray, counts: np.ndarray) -> bytes:
    """Accuracy over confidence of a classifier, with the number of images in each interval of confidence.

    Args:
        edges: (B + 1,) borders of the intervals.
        confidence: (B,) mean confidence; NaN in empty intervals.
        accuracy: (B,) share of right predictions.
        counts: (B,) number of images.
    """
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1], '--', color='0.5', linewidth=1, label='calibrated')
    axes.bar(edges[:-1], np.nan_to_num(accuracy), np.diff(edges), align='edge', color='C0', alpha=0.5, edgecolor='C0')
    axes.plot(confidence, accuracy, 'o', color='C3', markersize=4, clip_on=False, label='mean of an interval')
    axes.set(xlabel='confidence', ylabel='accuracy', xlim=(0, 1), ylim=(0, 1))
    other = axes.twinx()
    other.step(np.append(edges, 1), [0, *counts, 0], where='pre', color='0.3', linewidth=0.8)
    other.set(ylabel='images (line)', ylim=(0, None))
    axes.legend(fontsize=8, loc='upper left')
    return png(figure)


def joint_errors(names: Sequence[str], medians: np.ndarray, quartiles: np.ndarray) -> bytes:
    """The error of each joint: a bar to the median, and a line between the quartiles.

    Args:
        names: The K joints.
        medians: (K,) relative errors.
        quartiles: (2, K), the lower and the upper.
    """
    figure, axes = new_figure(6.0, 1.2 + 0.26 * len(names))
    rows = np.arange(len(names))
    axes.barh(rows, np.nan_to_num(medians), color='C0', alpha=0.6)
    axes.hlines(rows, *np.nan_to_num(quartiles), color='C3')
    axes.set_yticks(rows, names, parse_math=False)
    axes.invert_yaxis()
    axes.set(xlabel='error / longer side of the box: median and quartiles', xlim=(0, None))
    return png(figure)


def pck_curves(names: Sequence[str], errors: np.ndarray, limit: float = 0.3) -> bytes:
    """Share of keypoints within a distance, over the distance; the worst joints have their names.

    Args:
        names: The K joints.
        errors: (N, K) relative errors, NaN where the truth is unknown.
        limit: Largest distance.
    """
    figure, axes = new_figure()
    steps = np.linspace(0, limit, 121)
    known = [errors[:, joint][~np.isnan(errors[:, joint])] for joint in range(len(names))]
    shares = [np.searchsorted(np.sort(values), steps) / max(len(values), 1) for values in known]
    order = sorted((joint for joint in range(len(names)) if len(known[joint])), key=lambda joint: shares[joint].mean())
    for joint in order[NUM_LABELED:]:
        axes.plot(steps, shares[joint], color='0.75', linewidth=0.8)
    for rank, joint in enumerate(order[:NUM_LABELED]):
        axes.plot(steps, shares[joint], color=f'C{rank}', linewidth=1.2, label=names[joint])
    axes.plot(steps, np.mean([shares[joint] for joint in order], axis=0), color='black', linewidth=2, label='mean')
    axes.set(xlabel='distance / longer side of the box', ylabel='PCK', xlim=(0, limit), ylim=(0, 1.01))
    legend = axes.legend(fontsize=8, loc='lower right')
    for text in legend.get_texts():
        text.set_parse_math(False)
    return png(figure)
