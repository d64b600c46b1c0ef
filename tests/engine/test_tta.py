import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from torch import nn

from mogacore.engine.tta import InstanceTTAModel, unflip

HEIGHT, WIDTH = 6, 8


def instances(mask_box, score, label=0):
    """One instance whose mask fills the box x1, y1, x2, y2."""
    x1, y1, x2, y2 = mask_box
    mask = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    mask[:, y1:y2, x1:x2] = True
    return InstanceData(
        bboxes=torch.tensor([mask_box], dtype=torch.float), scores=torch.tensor([score]),
        labels=torch.tensor([label]), masks=mask,
    )  # fmt: skip


def box_of(mask):
    ys, xs = np.nonzero(mask.numpy())
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@pytest.mark.parametrize(
    'direction, box', [(None, (1, 0, 3, 2)), ('horizontal', (5, 0, 7, 2)), ('vertical', (1, 4, 3, 6)),
                       ('diagonal', (5, 4, 7, 6))],
)  # fmt: skip
def test_a_flipped_view_is_flipped_back(direction, box):
    meta = dict(ori_shape=(HEIGHT, WIDTH), flip=direction is not None, flip_direction=direction)
    found = unflip(instances((1, 0, 3, 2), 0.9), meta)
    assert found.bboxes[0].tolist() == list(box)
    assert box_of(found.masks[0]) == list(box)


class Detector(nn.Module):
    def test_step(self, data):
        raise NotImplementedError


class Sample:
    def __init__(self, pred_instances, flip):
        self.pred_instances = pred_instances
        self.metainfo = dict(ori_shape=(HEIGHT, WIDTH), flip=flip, flip_direction='horizontal' if flip else None)


def test_duplicates_across_views_are_merged_and_other_objects_kept():
    pytest.importorskip('mmcv')
    model = InstanceTTAModel(module=Detector(), iou_threshold=0.5, max_per_img=2)
    plain = InstanceData.cat([instances((1, 0, 3, 2), 0.6), instances((4, 2, 6, 5), 0.5, label=1)])
    mirrored = InstanceData.cat([instances((5, 0, 7, 2), 0.8), instances((0, 4, 2, 6), 0.3)])
    (merged,) = model.merge_preds([[Sample(plain, False), Sample(mirrored, True)]])
    torch.testing.assert_close(merged.pred_instances.scores, torch.tensor([0.8, 0.5]))  # best two of three
    assert merged.pred_instances.bboxes.tolist() == [[1, 0, 3, 2], [4, 2, 6, 5]]
    assert merged.pred_instances.labels.tolist() == [0, 1]
    assert box_of(merged.pred_instances.masks[0]) == [1, 0, 3, 2]
