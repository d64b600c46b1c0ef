import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mogacore.deploy.graphs import create_graph
from mogacore.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1]))
from small_models import build_small, predict, write_small

CONFIG = 'pose/td-hm_moganet-xtiny_digits'


@MODELS.register_module(force=True)
class StraightHand(torch.nn.Module):
    """Joints that depend on every parameter."""

    def forward(self, global_orient, hand_pose, betas):
        steps = torch.cat([global_orient[:, :1], hand_pose[:, :, 0], betas[:, None, :5].expand(-1, 5, 5)[..., :3]], 1)
        return 0.02 * steps.cumsum(1) @ global_orient


@pytest.fixture
def small(tmp_path):
    pytest.importorskip('mmpose')

    def build(config=CONFIG, more=''):
        path, _ = write_small(tmp_path, config, more)
        return build_small(path), Config.fromfile(path)

    return build


def test_iterative_hand_is_that_of_mmpose(small):
    more = 'model["head"] = dict(_delete_=True, type="IterativeHandHead", in_channels=32, '
    more += 'hand_model=dict(type="mmengine.StraightHand"), hidden_dims=16)'
    model, cfg = small('pose/hand3d/heatmap3d_moganet-xtiny_freihand-synthetic', more)
    graph = create_graph(model, cfg)
    assert graph.task == 'hands'
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        keypoints, scores = graph(images)
    for i, sample in enumerate(predict(model, images, {})):
        np.testing.assert_allclose(keypoints[i], sample.pred_instances.keypoints[0], rtol=0, atol=1e-3)
        assert (scores[i] == 1).all()
    shapes = {'images': {0: torch.export.Dim('batch', min=1)}}
    program = torch.export.export(graph, (images,), dynamic_shapes=shapes, strict=False).module()
    more_images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(program(more_images), graph(more_images), rtol=1e-4, atol=1e-4)


def test_chosen_keypoints(small):
    model, cfg = small(more='model["test_cfg"] = dict(flip_test=False, output_keypoint_indices=[4, 0])')
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        keypoints, scores = create_graph(model, cfg)(images)
    (sample,) = predict(model, images, {})
    np.testing.assert_allclose(scores, sample.pred_instances.keypoint_scores, rtol=1e-5)
    np.testing.assert_allclose(keypoints, sample.pred_instances.keypoints, rtol=1e-3, atol=0.05)


@pytest.mark.parametrize(
    'more, problem',
    [
        ('model["test_cfg"] = dict(flip_test=True, flip_mode="offset")', "flip_mode 'offset' cannot be exported"),
        (
            'model["head"]["decoder"] = dict(_delete_=True, type="MegviiHeatmap", input_size=(64, 64), '
            'heatmap_size=(16, 16), kernel_size=3)',
            'keypoints of HeatmapHead with MegviiHeatmap cannot be decoded',
        ),
    ],
)
def test_unknown_decoders_and_flip_tests_are_refused(more, problem, small):
    model, cfg = small(more=more)
    with pytest.raises(UserError, match=problem):
        create_graph(model, cfg)


def test_a_keypoint_at_another_place_is_a_difference_only_if_there_are_many(small):
    model, cfg = small()
    graph = create_graph(model, cfg, {'flip_indices': [0, 1, 3, 2, 4]})
    scores = torch.ones(4, 5)
    expected = torch.full((4, 5, 2), 10.0)

    def refused(moved, distance):
        found = expected.clone()
        found[:, :moved] += distance
        differences = graph.differences((found, scores), (expected, scores), 1e-4)
        return any(difference.value > difference.limit for difference in differences)

    assert not refused(0, 0) and not refused(5, 0.04)
    assert refused(1, 20)
    expected[0, 0] += 200  # outside the crop, where a flat heatmap puts it
    assert not refused(0, 0)
