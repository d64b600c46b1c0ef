"""mmpose's data set and metric on keypoint files with few fields: perfect predictions have AP 1."""

import json
from importlib import import_module

import numpy as np
import pytest
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

import mogacore.registry  # noqa: F401
from mogacore.errors import UserError
from mogacore.libraries import import_quietly

pytest.importorskip('mmpose')
NAMES = ('top', 'left', 'right')
INFO = {index: dict(name=name, id=index) for index, name in enumerate(NAMES)}
POINTS = {1: [20, 10, 2, 10, 40, 2, 30, 40, 1], 2: [60, 50, 2, 50, 90, 2, 70, 90, 2]}


@pytest.fixture(autouse=True)
def library():
    import_quietly('mmpose')
    init_default_scope('mmpose')


def build(folder, change=None, metainfo=None):
    """A file without info, iscrowd, area and num_keypoints; its data set and its metric."""
    annotations = [
        dict(id=n, image_id=n, category_id=1, bbox=[min(p[::3]), min(p[1::3]), 20, 40], keypoints=list(p))
        for n, p in POINTS.items()
    ]
    images = [dict(id=n, file_name=f'{n}.png', width=100, height=100) for n in POINTS]
    content = dict(images=images, annotations=annotations, categories=[dict(id=1, name='bird', keypoints=NAMES)])
    if change:
        change(content)
    path = folder / 'file.json'
    path.write_text(json.dumps(content))
    fields = dict(type='CocoDataset', ann_file=str(path), metainfo=metainfo or dict(keypoint_info=INFO), test_mode=True)
    registry = import_module('mmpose.registry')
    return registry.DATASETS.build(fields), registry.METRICS.build(dict(type='CocoMetric', ann_file=str(path)))


def score(data, metric, shift=0.0):
    """AP of the annotations, moved by ``shift`` pixels, as predictions."""
    metric.dataset_meta = data.metainfo
    for item in data:
        points = item['keypoints'] + shift
        pred = dict(keypoints=points, keypoint_scores=np.ones(points.shape[:2]), bboxes=item['bbox'])
        fields = dict(id=item['id'], img_id=item['img_id'], category_id=int(item['category_id']))
        boxes = dict(bbox_scores=np.ones(1), bbox_scales=item['bbox'][:, 2:] - item['bbox'][:, :2])
        metric.process([], [dict(fields, pred_instances=pred, gt_instances=boxes)])
    return metric.evaluate(len(data))['coco/AP']


def nest(content):
    for entry in content['annotations']:
        entry['keypoints'] = np.reshape(entry['keypoints'], (-1, 3)).tolist()


def add_object_without_keypoints(content):
    content['annotations'].append(dict(id=3, image_id=1, category_id=1, bbox=[1, 1, 9, 9]))


@pytest.mark.parametrize('change', [None, nest, add_object_without_keypoints])
def test_perfect_predictions_have_ap_1(change, tmp_path):
    assert score(*build(tmp_path, change)) == 1
    assert score(*build(tmp_path, change), shift=50) == 0


def test_missing_areas_are_those_of_boxes_and_are_reported(tmp_path, caplog):
    MMLogger.get_current_instance().addHandler(caplog.handler)
    data, _ = build(tmp_path)
    assert 'file.json: 2 of 2 objects have no area, 0.53 times the area of the box' in caplog.text
    assert [item['area'] for item in data] == pytest.approx([0.53 * 20 * 40] * 2)
    caplog.clear()
    data, _ = build(tmp_path, lambda content: [entry.update(area=700) for entry in content['annotations']])
    assert 'no area' not in caplog.text and [item['area'] for item in data] == [700, 700]
    MMLogger.get_current_instance().removeHandler(caplog.handler)


def test_metainfo_needs_only_the_keypoints(tmp_path):
    data, _ = build(tmp_path)
    assert data.metainfo['num_keypoints'] == 3 and data.metainfo['skeleton_links'] == []
    np.testing.assert_array_equal(data.metainfo['dataset_keypoint_weights'], [1, 1, 1])
    coco = import_module('mmpose.datasets').CocoDataset._load_metainfo(
        dict(from_file='configs/_base_/datasets/coco.py')
    )
    np.testing.assert_allclose(data.metainfo['sigmas'], coco['sigmas'].mean(), atol=5e-4)


def test_keypoints_without_skeleton_are_drawn(tmp_path):
    structures = import_module('mmengine.structures')
    visualizer = import_module('mmpose.visualization').PoseLocalVisualizer()
    visualizer.set_dataset_meta(build(tmp_path)[0].metainfo)
    points = np.array(POINTS[1], float).reshape(1, 3, 3)
    instances = structures.InstanceData(keypoints=points[..., :2], keypoints_visible=np.ones((1, 3)))
    sample = import_module('mmpose.structures').PoseDataSample(pred_instances=instances)
    drawn = visualizer.add_datasample('', np.zeros((100, 100, 3), np.uint8), sample, draw_gt=False, draw_bbox=False)
    assert all(drawn[y, x].any() for x, y in points[0, :, :2].astype(int)) and not drawn[90, 90].any()


def test_given_metainfo_replaces_the_defaults(tmp_path):
    links = {0: dict(link=('top', 'left'), id=0)}
    given = dict(keypoint_info=INFO, skeleton_info=links, sigmas=[0.1, 0.2, 0.3], joint_weights=[1, 2, 3])
    found = build(tmp_path, metainfo=given)[0].metainfo
    np.testing.assert_allclose(found['sigmas'], [0.1, 0.2, 0.3])
    np.testing.assert_array_equal(found['dataset_keypoint_weights'], [1, 2, 3])
    assert found['skeleton_links'] == [(0, 1)]


def test_file_whose_objects_are_all_ignored_is_reported(tmp_path):
    def hide(content):
        for entry in content['annotations']:
            entry['num_keypoints'] = 0

    with pytest.raises(UserError, match=r'file\.json has no object with a box and visible keypoints'):
        build(tmp_path, hide)
