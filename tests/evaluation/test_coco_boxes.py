"""Data set and metric with perfect predictions: each class has AP 1, whatever the order and the ids of the file."""

import itertools
import json
import shutil
from importlib import import_module

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from PIL import Image

import mogacore.registry  # noqa: F401
from mogacore.errors import UserError
from mogacore.libraries import import_quietly

pytest.importorskip('mmdet')
CLASSES = ('a', 'b', 'c')
SIZE = 200
# Each class has its own box, so that a prediction with another label matches nothing.
BOXES = {'a': [10, 10, 40, 40], 'b': [60, 60, 80, 80], 'c': [150, 20, 30, 120]}
FILES = [(order, ids) for order in itertools.permutations(CLASSES) for ids in ([1, 2, 3], [7, 3, 100], [2, 1, 0])]


@pytest.fixture(autouse=True)
def library():
    import_quietly('mmdet')
    init_default_scope('mmdet')


def coco(order=CLASSES, ids=(1, 2, 3), names=CLASSES):
    """One image per class with one object, and a fourth without any."""
    id_of = dict(zip(order, ids, strict=True))
    annotations = [
        dict(
            id=number,
            image_id=number,
            category_id=id_of[name],
            bbox=BOXES[name],
            area=BOXES[name][2] * BOXES[name][3],
            segmentation=[outline(BOXES[name])],
        )
        for number, name in enumerate(CLASSES, 1)
        if name in names
    ]
    return dict(
        images=[dict(id=number, file_name=f'{number}.png', width=SIZE, height=SIZE) for number in (1, 2, 3, 4)],
        categories=[dict(id=id_of[name], name=name) for name in order],
        annotations=annotations,
    )


def outline(box):
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def write(folder, content):
    path = folder / 'file.json'
    path.write_text(json.dumps(content))
    return str(path)


def data_set(path, classes=CLASSES, **settings):
    registry = import_module('mmdet.registry').DATASETS
    fields = dict(type='CocoDataset', ann_file=path, data_prefix=dict(img=''), metainfo=dict(classes=classes))
    return registry.build(fields | settings)


def evaluate(path, predictions, classes=CLASSES, **settings):
    """``predictions``: image id to (class name, box, box of the mask)."""
    registry = import_module('mmdet.registry').METRICS
    metric = registry.build(dict(type='CocoMetric', ann_file=path, classwise=True, **settings))
    metric.dataset_meta = dict(classes=classes)
    for image in (1, 2, 3, 4):
        found = predictions.get(image, [])
        boxes = [[x, y, x + w, y + h] for _, (x, y, w, h), _ in found]
        masks = torch.zeros(len(found), SIZE, SIZE, dtype=torch.bool)
        for mask, (_, _, (x, y, w, h)) in zip(masks, found, strict=True):
            mask[y : y + h, x : x + w] = True
        instances = dict(
            bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            scores=torch.ones(len(found)),
            labels=torch.tensor([classes.index(name) if name in classes else 3 for name, _, _ in found], dtype=int),
            masks=masks,
        )
        metric.process({}, [dict(pred_instances=instances, img_id=image, ori_shape=(SIZE, SIZE))])
    return metric.evaluate(4)


PERFECT = {number: [(name, BOXES[name], BOXES[name])] for number, name in enumerate(CLASSES, 1)}


@pytest.mark.parametrize('order, ids', FILES)
@pytest.mark.parametrize('classes', [CLASSES, ('c', 'a', 'b')])
def test_labels_are_indices_of_the_names(order, ids, classes, tmp_path):
    content = coco(order, ids)
    found = data_set(write(tmp_path, content), classes)
    labels = {image['img_id']: [item['bbox_label'] for item in image['instances']] for image in found}
    assert labels == {1: [classes.index('a')], 2: [classes.index('b')], 3: [classes.index('c')], 4: []}
    assert found.cat2label == {entry['id']: classes.index(entry['name']) for entry in content['categories']}


@pytest.mark.parametrize('order, ids', FILES)
def test_perfect_predictions_have_ap_1_for_each_class(order, ids, tmp_path):
    found = evaluate(write(tmp_path, coco(order, ids)), PERFECT, metric=['bbox', 'segm'])
    assert {f'coco/{kind}_{name}_precision': 1.0 for kind in ('bbox', 'segm') for name in CLASSES}.items() <= (
        found.items()
    )
    assert found['coco/bbox_mAP'] == found['coco/segm_mAP'] == 1


@pytest.mark.parametrize('order, ids', FILES)
def test_results_of_a_class_have_its_name(order, ids, tmp_path):
    """Boxes of c and masks of b are wrong."""
    predictions = {1: PERFECT[1], 2: [('b', BOXES['b'], BOXES['a'])], 3: [('c', BOXES['a'], BOXES['c'])]}
    found = evaluate(write(tmp_path, coco(order, ids)), predictions, metric=['bbox', 'segm'])
    names = [f'{kind}_{name}_precision' for kind in ('bbox', 'segm') for name in CLASSES]
    assert [found[f'coco/{name}'] for name in names] == [1, 1, 0, 1, 0, 1]


def test_written_predictions_have_the_ids_of_the_file(tmp_path):
    path = write(tmp_path, coco(('c', 'a', 'b'), [7, 3, 100]))
    evaluate(path, PERFECT, metric='bbox', format_only=True, outfile_prefix=str(tmp_path / 'out'))
    written = json.loads((tmp_path / 'out.bbox.json').read_text())
    assert [(entry['image_id'], entry['category_id'], entry['bbox']) for entry in written] == [
        (1, 3, BOXES['a']), (2, 100, BOXES['b']), (3, 7, BOXES['c'])
    ]  # fmt: skip


def test_results_repeat_with_each_evaluation(tmp_path):
    """As in training, where a metric evaluates after each epoch."""
    path = write(tmp_path, coco(('b', 'c', 'a')))
    assert evaluate(path, PERFECT) == evaluate(path, PERFECT)
    metric = import_module('mmdet.registry').METRICS.build(dict(type='CocoMetric', ann_file=path, classwise=True))
    metric.dataset_meta = dict(classes=CLASSES)
    box = {name: np.array([[x, y, x + w, y + h]]) for name, (x, y, w, h) in BOXES.items()}
    scores = []
    for labels in ([0, 1, 2], [1, 0, 2]):
        predictions = [
            dict(img_id=number, bboxes=box[name], scores=np.ones(1), labels=np.array([label]))
            for number, name, label in zip((1, 2, 3), CLASSES, labels, strict=True)
        ]
        found = metric.compute_metrics([({}, prediction) for prediction in predictions])
        scores.append([found[f'bbox_{name}_precision'] for name in CLASSES])
    assert scores == [[1, 1, 1], [0, 0, 1]]


def test_a_class_that_the_file_lacks_shifts_no_label(tmp_path):
    content = coco(names=('b', 'c'))
    content['categories'] = content['categories'][:0:-1]  # c and b
    path = write(tmp_path, content)
    assert [item['bbox_label'] for image in data_set(path) for item in image['instances']] == [1, 2]
    found = evaluate(path, PERFECT)
    assert found['coco/bbox_b_precision'] == found['coco/bbox_c_precision'] == found['coco/bbox_mAP'] == 1
    assert 'coco/bbox_a_precision' not in found


def test_some_classes_of_the_file(tmp_path):
    path = write(tmp_path, coco(('c', 'b', 'a'), [7, 3, 100]))
    assert [item['bbox_label'] for image in data_set(path, ('c', 'b')) for item in image['instances']] == [1, 0]
    found = evaluate(path, {number: PERFECT[number] for number in (2, 3)}, classes=('c', 'b'))
    assert found['coco/bbox_b_precision'] == found['coco/bbox_c_precision'] == found['coco/bbox_mAP'] == 1


def test_file_without_any_of_the_classes_is_reported(tmp_path):
    path = write(tmp_path, coco())
    with pytest.raises(UserError, match=r'none of the classes of the data set \(x, y\), its categories are a, b, c'):
        data_set(path, ('x', 'y'))
    with pytest.raises(UserError, match='none of the classes of the test data'):
        evaluate(path, {}, classes=('x', 'y'))


def test_prediction_beyond_the_classes_is_reported(tmp_path):
    with pytest.raises(UserError, match='predicts class 3, but the test data has 3 classes'):
        evaluate(write(tmp_path, coco()), {1: [('d', BOXES['a'], BOXES['a'])]})


def test_masks_are_required_for_mask_scores_only(tmp_path):
    content = coco()
    content['annotations'][1].pop('segmentation')
    path = write(tmp_path, content)
    assert evaluate(path, PERFECT, metric='bbox')['coco/bbox_mAP'] == 1
    with pytest.raises(UserError, match=r'file\.json: 1 of 3 annotations have no segmentation, .* id 2'):
        evaluate(path, PERFECT, metric=['bbox', 'segm'])


@pytest.mark.parametrize('metric, share', [('bbox', 1.0), ('segm', 0.5)])
def test_missing_areas_are_those_of_boxes_or_masks(tmp_path, metric, share):
    content = coco()
    for annotation, area in zip(content['annotations'], (None, 0, 7), strict=True):
        x, y, width, height = annotation['bbox']
        annotation['segmentation'] = [outline([x, y, width, height // 2])]
        del annotation['area']
        if area is not None:
            annotation['area'] = area
    registry = import_module('mmdet.registry').METRICS
    built = registry.build(dict(type='CocoMetric', ann_file=write(tmp_path, content), metric=metric))
    found = [annotation['area'] for annotation in built.annotations.anns.values()]
    boxes = [BOXES[name][2] * BOXES[name][3] for name in CLASSES]
    assert found == [boxes[0] * share, boxes[1] * share, 7]


def test_crowds_are_ignored_and_iscrowd_is_optional(tmp_path):
    """Without its prediction, a crowd costs nothing, an object does."""
    content = coco()
    content['annotations'][0]['iscrowd'] = 1
    predictions = {number: PERFECT[number] for number in (2, 3)}
    found = evaluate(write(tmp_path, content), predictions)
    assert found['coco/bbox_mAP'] == 1
    del content['annotations'][0]['iscrowd']
    assert evaluate(write(tmp_path, content), predictions)['coco/bbox_mAP'] == pytest.approx(2 / 3, abs=1e-3)


def test_background_images_are_kept(tmp_path):
    filtered = dict(filter_cfg=dict(filter_empty_gt=True, min_size=32))
    assert [image['img_id'] for image in data_set(write(tmp_path, coco()), **filtered)] == [1, 2, 3]
    background = data_set(write(tmp_path, dict(coco(), annotations=[])), **filtered)
    assert [image['img_id'] for image in background] == [1, 2, 3, 4]
    assert not any(image['instances'] for image in background)


def test_a_background_set_is_read_beside_one_with_objects(tmp_path):
    Image.new('L', (SIZE, SIZE)).save(tmp_path / '1.png')
    for name in ('2.png', '3.png', '4.png'):
        shutil.copy(tmp_path / '1.png', tmp_path / name)
    (tmp_path / 'background.json').write_text(json.dumps(dict(coco(), annotations=[])))
    fields = dict(
        type='CocoDataset',
        data_prefix=dict(img=str(tmp_path)),
        metainfo=dict(classes=CLASSES),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='PackDetInputs'),
        ],
    )
    files = write(tmp_path, coco()), str(tmp_path / 'background.json')
    joined = dict(type='ConcatDataset', datasets=[dict(fields, ann_file=file) for file in files])
    found = import_module('mmdet.registry').DATASETS.build(joined)
    instances = [item['data_samples'].gt_instances for item in found]
    assert [item.labels.tolist() for item in instances] == [[0], [1], [2], [], [], [], []]
    assert [len(item.masks) for item in instances] == [1, 1, 1, 0, 0, 0, 0]


def test_filter_that_leaves_no_image_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"filter_cfg=\{'min_size': 300\} removes all 4 images"):
        data_set(write(tmp_path, coco()), filter_cfg=dict(min_size=300))
