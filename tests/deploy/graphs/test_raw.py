import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from mmengine.config import Config

from mogacore.deploy.graphs import create_graph

sys.path.insert(0, str(Path(__file__).parents[1]))
from small_models import WIDTHS, build_small, write_small

NAMES = {
    'classification/moganet-xtiny_digits': ['logits'],
    'segmentation/upernet_moganet-xtiny_digits': ['seg_logits'],
    'pose/td-hm_moganet-xtiny_digits': ['heatmaps'],
    'pose/hand3d/internet_moganet-xtiny_interhand3d-synthetic': ['heatmaps', 'root_depth', 'hand_type'],
}


@pytest.mark.parametrize('config', NAMES)
def test_outputs_of_a_network_are_named_for_what_they_are(config, tmp_path):
    pytest.importorskip('mmdet')
    path, _ = write_small(tmp_path, config)
    model, cfg = build_small(path), Config.fromfile(path)
    graph = create_graph(model, cfg, raw=True)
    images = torch.randint(0, 256, (2, cfg.input_shape[0], 64, 64), dtype=torch.uint8)
    graph.name_outputs(images)
    assert list(graph.output_names) == NAMES[config] and graph.task == config.partition('/')[0]
    assert len(graph(images)) == len(NAMES[config])


def test_head_maps_of_a_one_stage_detector_have_a_name_per_level(tmp_path):
    pytest.importorskip('mmdet')
    base = ROOT / 'configs' / 'detection' / 'retinanet_moganet-xtiny_fpn_digits.py'
    path = tmp_path / 'small.py'
    path.write_text(
        f"_base_ = '{base}'\nmodel = dict(backbone=dict(_delete_=True, type='Pyramid'), "
        f'neck=dict(in_channels={WIDTHS}))\n'
    )
    graph = create_graph(build_small(path), Config.fromfile(path), raw=True)
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    graph.name_outputs(images)
    outputs = dict(zip(graph.output_names, graph(images), strict=True))
    anchors = outputs['bbox_preds_0'].shape[1] // 4  # ten classes and four coordinates each
    for level in range(len(outputs) // 2):
        scores, boxes = outputs[f'cls_scores_{level}'], outputs[f'bbox_preds_{level}']
        assert scores.shape[1] == 10 * anchors and boxes.shape[1] == 4 * anchors
        assert scores.shape[2:] == boxes.shape[2:]


def test_outputs_in_a_dict_and_unknown_outputs_have_names():
    class Head(torch.nn.Module):
        def forward(self, images):
            return {'rotations': images, 'points': [images, images]}

    images = torch.rand(1, 3, 8, 8)
    for model, names in ((Head(), ('rotations', 'points_0', 'points_1')), (torch.nn.Identity(), ('output',))):
        graph = create_graph(model, {}, raw=True)
        graph.name_outputs(images)
        assert graph.output_names == names
