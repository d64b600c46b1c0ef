"""Drawings are located at the predictions, for every task."""

import cv2
import numpy as np
import pytest

from mogacore.datasets.hands import BASES, BONES
from mogacore.runtime.drawing import canvas
from mogacore.runtime.drawing.overview import GAP, draw_overview
from mogacore.runtime.tasks import Classification, Detection, HandPose, Pose, Segmentation
from mogacore.runtime.tasks.hands import BONE_LENGTH_SUM
from mogacore.runtime.tasks.pose import RADIUS

RED = (255, 0, 0)
KEYPOINTS = {'names': ['a', 'b'], 'colors': [RED, RED], 'skeleton': [(0, 1)], 'skeleton_colors': [RED]}


def red_extent(task, result, height, width):
    """Bounding box (x1, y1, x2, y2) of the red pixels of a result drawn on black; height and width of the drawing."""
    image = np.zeros((height, width, 3), np.uint8)
    drawn = task.draw(image, result).astype(int)
    assert not image.any()
    ys, xs = np.nonzero(drawn[..., 0] - drawn[..., 1] > 60)
    return (xs.min(), ys.min(), xs.max(), ys.max()), drawn.shape[:2]


@pytest.mark.parametrize('size, factor', [((100, 80), 4), ((399, 90), 2), ((400, 90), 1)])
def test_small_images_are_enlarged_together_with_predictions(size, factor):
    box = np.array([20, 30, 50, 70])
    region = np.s_[30:70, 20:50]

    task = Detection({'classes': [''], 'palette': [RED]}, 0.3)
    result = {'boxes': box[None].astype(np.float32), 'labels': np.array([0]), 'scores': np.array([0.9])}
    mask = np.zeros((1, *size), bool)
    mask[0][region] = True
    label_height = 40
    for masks in ({}, {'masks': mask}):
        extent, drawn_size = red_extent(task, result | masks, *size)
        assert drawn_size == (size[0] * factor, size[1] * factor)
        np.testing.assert_allclose(extent[3], box[3] * factor, atol=4)
        np.testing.assert_allclose(extent[0], box[0] * factor, atol=4)
        assert box[1] * factor - label_height <= extent[1] < box[1] * factor  # the label stands above the box

    task = Segmentation({'classes': ['', ''], 'palette': [(0, 0, 0), RED]}, 0.3)
    labels = np.zeros(size, int)
    labels[region] = 1
    extent, _ = red_extent(task, {'class_map': labels}, *size)
    assert extent == tuple(box * factor - [0, 0, 1, 1])

    task = Pose({'keypoints': KEYPOINTS}, 0.3)
    result = {'boxes': box[None], 'keypoints': np.array([[[30, 42], [40, 58]]]), 'scores': np.ones((1, 2))}
    extent, _ = red_extent(task, result, *size)
    radius = RADIUS * max(1, round(max(size) * factor / 300))  # thicker in large images
    points = (np.array([30, 42, 40, 58]) + 0.5) * factor - 0.5
    np.testing.assert_allclose(extent, points + radius * np.array([-1, -1, 1, 1]), atol=1)


def test_only_keypoints_above_the_threshold_are_drawn():
    task = Pose({'keypoints': KEYPOINTS}, 0.3)
    result = {
        'boxes': np.zeros((1, 4)),
        'keypoints': np.array([[[30.0, 42], [300, 300]]]),
        'scores': np.array([[1, 0.2]]),
    }
    extent, _ = red_extent(task, result, 400, 400)
    np.testing.assert_allclose(extent, [27, 39, 33, 45], atol=1)


@pytest.mark.parametrize('color, text_is_white', [((250, 250, 0), False), ((0, 0, 120), True)])
def test_labels_contrast_with_their_box_and_stay_within_the_image(color, text_is_white):
    image = np.full((60, 80, 3), 127, np.uint8)
    canvas.draw_label(image, 'abc', 70, -5, color, 14)
    changed = (image != 127).any(2)
    ys, xs = np.nonzero(changed)
    assert ys.min() == 0 and xs.max() == 79 and 14 < np.ptp(ys) < 25 and 20 < np.ptp(xs) < 50
    text = image[changed & (abs(image.astype(int) - color).max(2) > 100)]
    assert len(text) > 20 and (text.mean() > 127) == text_is_white


def test_each_class_of_a_map_is_named_once_in_its_largest_region():
    labels = np.zeros((400, 400), np.uint16)
    labels[50:350, 220:380] = 300
    labels[:10, :10] = 300
    labels[399, 399] = 7  # too small for a label
    names = [str(number) for number in range(301)]
    drawn = Segmentation({'classes': names}, 0.3).draw(np.zeros((400, 400, 3), np.uint8), {'class_map': labels})
    white = (drawn == 255).all(2) | (drawn == 0).all(2)  # text
    count, _, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(white.astype(np.uint8), np.ones((9, 9))))
    centers = stats[1:, :2] + stats[1:, 2:4] / 2
    assert count == 3
    assert sorted((50 < y < 350, 220 < x < 380) for x, y in centers)[1] == (True, True)


def test_the_best_classes_are_listed_with_bars_as_long_as_their_probability():
    task = Classification({'classes': ['one', 'two', 'three']}, 0.3)
    bars = {}
    for probabilities in ([0.5, 0.4, 0.1], [0.25, 0.25, 0.5]):
        drawn = task.draw(np.full((400, 400, 3), 99, np.uint8), {'probabilities': np.array(probabilities)})
        rows = (drawn == (120, 190, 255)).all(2).sum(1)
        bars = [max(part) for part in np.split(rows, np.flatnonzero(np.diff(rows > 0)) + 1) if part.any()]
        np.testing.assert_allclose(np.array(bars) / sum(bars), sorted(probabilities)[::-1], atol=0.03)


def test_views_of_hands_are_drawn_beside_the_image():
    bones = BASES.sum() and np.linalg.norm(BASES, axis=1).sum() + BONES.sum()
    assert pytest.approx(bones) == BONE_LENGTH_SUM
    task = HandPose({'keypoints': KEYPOINTS}, 0.3)
    joints = np.array([[[10.0, 10, 0], [30, 10, 40]]])
    result = {'boxes': np.zeros((1, 4)), 'keypoints': joints, 'scores': np.ones((1, 2))}
    drawn = task.draw(np.zeros((401, 400, 3), np.uint8), result)
    assert drawn.shape == (401, 600, 3)
    empty = {name: values[:0] for name, values in result.items()}
    assert (task.draw(np.zeros((401, 400, 3), np.uint8), empty)[:, 400:] == 255).all()


def test_overview_shows_every_image_below_its_title(tmp_path):
    files = []
    for number, size in enumerate([(30, 60), (600, 300), (100, 100)]):
        files.append(tmp_path / f'{number}.png')
        cv2.imwrite(str(files[-1]), np.full((*size, 3), (0, 0, 255), np.uint8))
    titles = [('a very long name ' * 9, 'black'), ('b\nc', 'red'), ('日本語', 'black')]
    draw_overview(tmp_path / 'out.png', files, titles, 160)
    drawn = cv2.imread(str(tmp_path / 'out.png'))[..., ::-1].astype(int)
    assert drawn.shape[1] == 3 * (160 + GAP) + GAP
    for number, (height, width) in enumerate([(80, 160), (160, 80), (160, 160)]):
        cell = drawn[:, GAP + number * (160 + GAP) :][:, :160]
        ys, xs = np.nonzero((cell == RED).all(2))
        assert (np.ptp(ys) + 1, np.ptp(xs) + 1) == (height, width)
        title = cell[: ys.min()]
        assert (title.min() < 60) and (title[..., 0].min() > 150) == (number == 1)
