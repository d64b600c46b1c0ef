"""The confusion matrix against scikit-learn and brute force."""

import itertools

import numpy as np
import pytest
import torch
from mmengine.visualization import Visualizer

from mogacore.errors import UserError
from mogacore.evaluation import ConfusionMatrixPlot, confusion
from mogacore.evaluation.confusion import draw_confusion

NAMES = ('cat', 'dog', 'cow')


@pytest.fixture
def drawn(monkeypatch):
    """Matrices and names given to the drawing."""
    calls = []

    def draw(matrix, names):
        calls.append((matrix, names))
        return draw_confusion(matrix, names)

    monkeypatch.setattr(confusion, 'draw_confusion', draw)
    return calls


@pytest.fixture
def folder(tmp_path):
    """Where the current visualizer stores images."""
    Visualizer.get_instance(tmp_path.name, vis_backends=[dict(type='LocalVisBackend')], save_dir=str(tmp_path))
    return tmp_path / 'vis_data' / 'vis_image'


def evaluate(samples, **settings):
    metric = ConfusionMatrixPlot(**settings)
    metric.dataset_meta = dict(classes=NAMES)
    for sample in samples:
        metric.process(None, [sample])
    assert metric.evaluate(len(samples)) == {}


def test_labels_are_counted_as_by_scikit_learn_and_drawn(drawn, folder):
    metrics = pytest.importorskip('sklearn.metrics')
    truth, predicted = np.random.default_rng(0).integers(0, 3, (2, 50))
    evaluate(
        [dict(gt_label=torch.tensor([t]), pred_label=torch.tensor([p])) for t, p in zip(truth, predicted, strict=True)]
    )
    ((matrix, names),) = drawn
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(truth, predicted))
    assert names == list(NAMES)
    assert len(list(folder.glob('confusion_*.png'))) == 1


def test_pixels_are_counted_as_by_scikit_learn_without_those_ignored(drawn, folder):
    metrics = pytest.importorskip('sklearn.metrics')
    rng = np.random.default_rng(0)
    truth, predicted = rng.choice([0, 2, 255], (4, 1, 8, 9)), rng.integers(0, 3, (4, 1, 8, 9))
    samples = [
        dict(gt_sem_seg=dict(data=torch.tensor(t)), pred_sem_seg=dict(data=torch.tensor(p)))
        for t, p in zip(truth, predicted, strict=True)
    ]
    evaluate(samples)
    valid = truth != 255
    expected = metrics.confusion_matrix(truth[valid], predicted[valid], labels=[0, 1, 2])
    np.testing.assert_array_equal(drawn[0][0], expected)


def brute_force(truth, boxes, labels, found, min_iou):
    """Assignment of boxes that takes the pair of largest overlap again and again, by loops over coordinates."""

    def iou(a, b):
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        both = max(width, 0) * max(height, 0)
        return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)

    matrix = np.zeros((4, 4), int)
    rows, columns = list(range(len(truth))), list(range(len(labels)))
    while pairs := [p for p in itertools.product(rows, columns) if iou(boxes[p[0]], found[p[1]]) >= min_iou]:
        row, column = max(pairs, key=lambda p: iou(boxes[p[0]], found[p[1]]))
        matrix[truth[row], labels[column]] += 1
        rows.remove(row)
        columns.remove(column)
    for row in rows:
        matrix[truth[row], 3] += 1
    for column in columns:
        matrix[3, labels[column]] += 1
    return matrix


def test_boxes_are_matched_as_by_brute_force(drawn, folder):
    pytest.importorskip('torchvision')
    rng = np.random.default_rng(0)
    samples, expected = [], np.zeros((4, 4), int)
    for num_real, num_found in ((6, 8), (5, 0), (0, 4), (0, 0), (7, 7)):
        corners = rng.uniform(0, 30, (num_real + num_found, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(15, 30, corners.shape)], 1)
        classes, scores = rng.integers(0, 3, len(boxes)), rng.uniform(0, 1, num_found)
        kept = scores >= 0.2
        expected += brute_force(
            classes[:num_real], boxes[:num_real], classes[num_real:][kept], boxes[num_real:][kept], 0.4
        )
        instances = [dict(bboxes=torch.tensor(b), labels=torch.tensor(c)) for b, c in (
            (boxes[:num_real], classes[:num_real]), (boxes[num_real:], classes[num_real:]))]  # fmt: skip
        samples.append(dict(gt_instances=instances[0], pred_instances=dict(instances[1], scores=torch.tensor(scores))))
    evaluate(samples, min_score=0.2, min_iou=0.4)
    ((matrix, names),) = drawn
    np.testing.assert_array_equal(matrix, expected)
    assert np.trace(matrix) > 0 and matrix[3].sum() > 0 and matrix[:, 3].sum() > 0 and matrix[:3, :3].sum() > 0
    assert names == [*NAMES, 'background']


@pytest.mark.parametrize('score, width, is_matched', [(0.3, 5.0, True), (0.29, 10.0, False), (0.9, 4.9, False)])
def test_a_box_counts_from_a_score_of_0_3_and_an_overlap_of_one_half(score, width, is_matched, drawn, folder):
    pytest.importorskip('torchvision')
    truth = dict(bboxes=torch.tensor([[0.0, 0, 10, 10]]), labels=torch.tensor([1]))
    found = dict(bboxes=torch.tensor([[0.0, 0, width, 10]]), labels=torch.tensor([1]), scores=torch.tensor([score]))
    evaluate([dict(gt_instances=truth, pred_instances=found)])
    assert drawn[0][0][1].tolist() == ([0, 1, 0, 0] if is_matched else [0, 0, 0, 1])


def test_numbers_are_white_on_dark_cells_up_to_40_classes(monkeypatch):
    axes = pytest.importorskip('matplotlib.axes')
    drawn = {}
    monkeypatch.setattr(
        axes.Axes, 'text', lambda self, x, y, text, color, **settings: drawn.update({(y, x): (text, color)})
    )
    draw_confusion(np.array([[49, 51], [50, 50]]), ('a', 'b'))
    expected = {(0, 0): ('49', 'black'), (0, 1): ('51', 'white'), (1, 0): ('50', 'black'), (1, 1): ('50', 'black')}
    assert drawn == expected
    for number, count in ((40, 40), (41, 0)):
        drawn.clear()
        draw_confusion(np.eye(number, dtype=int), [str(i) for i in range(number)])
        assert len(drawn) == count


def test_cells_are_colored_by_their_share_of_the_row():
    image = draw_confusion(np.array([[90, 10], [0, 0]]), ('a', 'b'))
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    other = draw_confusion(np.array([[900, 100], [0, 0]]), ('a', 'b'))
    swapped = draw_confusion(np.array([[10, 90], [0, 0]]), ('a', 'b'))
    assert (image != swapped).any()
    assert (image != other).any()  # the number of the true class


def test_missing_class_names_and_other_results_are_errors():
    metric = ConfusionMatrixPlot()
    with pytest.raises(UserError, match='needs class names'):
        metric.process(None, [dict()])
    metric.dataset_meta = dict(classes=NAMES)
    with pytest.raises(UserError, match='the results have gt_label, pred_label: remove it'):
        metric.process(None, [dict(gt_label=torch.tensor([0, 1]), pred_label=torch.tensor([1]))])
    with pytest.raises(UserError, match='the results have pred_instances: remove it'):
        metric.process(None, [dict(pred_instances=dict(keypoints=torch.zeros(1, 4, 2)))])
