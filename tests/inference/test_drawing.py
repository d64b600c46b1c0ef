"""Drawings are located at the predictions, for every task."""

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import BaseDataElement, InstanceData, PixelData

import mogacore.registry  # noqa: F401, registers our classes
from mogacore.inference.drawing import Detection, Pose, Segmentation
from mogacore.libraries import import_quietly

RED = (255, 0, 0)


def visualizer_of(task, **meta):
    library = {Detection: 'mmdet', Segmentation: 'mmseg', Pose: 'mmpose'}[task]
    pytest.importorskip(library)
    import_quietly(library)
    init_default_scope(library)
    return task(None, meta, 0.3)


def red_extent(task, sample, height, width):
    """Bounding box (x1, y1, x2, y2) of the red pixels of a sample drawn on black; height and width of the drawing."""
    drawn = task.draw(np.zeros((height, width, 3), np.uint8), sample).astype(int)
    ys, xs = np.nonzero(drawn[..., 0] - drawn[..., 1] > 60)
    return (xs.min(), ys.min(), xs.max(), ys.max()), drawn.shape[:2]


@pytest.mark.parametrize('size, factor', [((100, 80), 4), ((399, 90), 2), ((400, 90), 1)])
def test_small_images_are_enlarged_together_with_predictions(size, factor):
    box = np.array([20, 30, 50, 70])
    region = np.s_[30:70, 20:50]

    task = visualizer_of(Detection, classes=['thing'], palette=[RED])
    masks = torch.zeros(1, *size, dtype=bool)
    masks[0][region] = True
    instances = InstanceData(bboxes=torch.tensor(box)[None], labels=torch.tensor([0]), scores=torch.tensor([0.9]))
    for has_masks in (False, True):
        if has_masks:
            instances.masks = masks
        extent, drawn_size = red_extent(task, BaseDataElement(pred_instances=instances), *size)
        assert drawn_size == (size[0] * factor, size[1] * factor)
        np.testing.assert_allclose(extent, box * factor, atol=5)

    task = visualizer_of(Segmentation, classes=['ground', ''], palette=[(0, 0, 0), RED])
    labels = torch.zeros(1, *size, dtype=torch.long)
    labels[0][region] = 1
    extent, _ = red_extent(task, BaseDataElement(pred_sem_seg=PixelData(data=labels)), *size)
    assert extent[:2] == tuple(box[:2] * factor) and extent[3] == box[3] * factor - 1  # the label is at the right

    names = dict(keypoint_id2name={0: 'a', 1: 'b'}, skeleton_links=[(0, 1)])
    colors = dict(keypoint_colors=np.array([RED, RED]), skeleton_link_colors=np.array([RED]))
    task = visualizer_of(Pose, **names, **colors)
    instances = InstanceData(
        bboxes=box[None], keypoints=np.array([[[30, 42], [40, 58]]]), keypoint_scores=np.ones((1, 2))
    )
    extent, _ = red_extent(task, BaseDataElement(pred_instances=instances), *size)
    radius = task.visualizer.radius * round(max(size) * factor / 300)  # thicker in large images
    points = (np.array([30, 42, 40, 58]) + 0.5) * factor - 0.5
    np.testing.assert_allclose(extent, points + radius * np.array([-1, -1, 1, 1]), atol=1)
