"""Files with known predictions, on data for which they are right or wrong in known ways."""

import json

import cv2
import numpy as np
import pytest
from onnx_files import write_model

from mogacore.deploy.accuracy import evaluate_files
from mogacore.errors import UserError

SIDE = 96


@pytest.fixture
def scenes(tmp_path):
    """Three images with one digit each, annotated for all tasks, in place of the digit scenes."""
    for part in ('val', 'annotations', 'segmentation/val'):
        (tmp_path / part).mkdir(parents=True)
    images, annotations = [], []
    for number in range(3):
        image = np.full((SIDE, SIDE, 3), 255, np.uint8)
        image[10:50, 20:60] = 40 * number
        assert cv2.imwrite(str(tmp_path / f'val/{number}.png'), image)
        classes = np.zeros((SIDE, SIDE), np.uint8)
        classes[10:50, 20:60] = 3
        assert cv2.imwrite(str(tmp_path / f'segmentation/val/{number}.png'), classes)
        images.append(dict(id=number, file_name=f'{number}.png', width=SIDE, height=SIDE))
        points = [30, 20, 2, 40, 40, 2, 25, 30, 2, 55, 30, 2, 40, 30, 2]
        shape = dict(bbox=[20, 10, 40, 40], area=1600, iscrowd=0, keypoints=points, num_keypoints=5)
        annotations.append(dict(id=number + 1, image_id=number, category_id=3, **shape))
    names = [dict(id=number + 1, name=str(number)) for number in range(10)]
    points = dict(keypoints=['top', 'bottom', 'left', 'right', 'centroid'], skeleton=[])
    for kind, categories in (('instances', names), ('keypoints', [{**name, **points} for name in names])):
        content = dict(images=images, annotations=annotations, categories=categories)
        (tmp_path / f'annotations/{kind}_val.json').write_text(json.dumps(content))
    return tmp_path


def constants(**arrays):
    """Nodes of constant outputs."""
    lines = []
    for name, values in arrays.items():
        values = np.asarray(values)
        kind = 'value_ints' if values.dtype.kind == 'i' else 'value_floats'
        lines.append(f'{name}_flat = Constant <{kind} = [{", ".join(map(str, values.ravel()))}]> ()')
        lines.append(f'{name}_shape = Constant <value_ints = [{", ".join(map(str, values.shape))}]> ()')
        lines.append(f'{name} = Reshape ({name}_flat, {name}_shape)')
    return '\n'.join(lines)


def write_constant(path, outputs, inputs='uint8[batch, 3, height, width] images', **metadata):
    """A file with the same outputs for every image."""
    kinds = {name: 'int64' if values.dtype.kind == 'i' else 'float' for name, values in outputs.items()}
    declared = ', '.join(f'{kinds[name]}{list(values.shape)} {name}' for name, values in outputs.items())
    return write_model(path, f'constant ({inputs}) => ({declared}) {{\n{constants(**outputs)}\n}}', **metadata)


def test_top_1_counts_the_images_whose_class_is_right(tmp_path):
    for label in range(10):
        folder = tmp_path / 'val' / str(label)
        folder.mkdir(parents=True)
        for number in range(1 + (label == 4)):
            assert cv2.imwrite(str(folder / f'{number}.png'), np.full((32, 32), 25 * label, np.uint8))
    # The class of an image with gray level 25 k is k.
    graph = """
    nearest (uint8[batch, 1, height, width] images) => (float[batch, 10] probabilities) {
        floats = Cast <to = 1> (images)
        means_4d = ReduceMean <keepdims = 1> (floats, axes)
        means = Reshape (means_4d, column)
        distances = Sub (means, levels)
        sizes = Abs (distances)
        negated = Neg (sizes)
        probabilities = Softmax <axis = 1> (negated)
    }"""
    shapes = 'axes = Constant <value_ints = [2, 3]> ()\ncolumn = Constant <value_ints = [-1, 1]> ()\n'
    paths = []
    for name, levels in (('right', range(0, 250, 25)), ('wrong', [0, 25, 50, 75, 125, 100, 150, 175, 200, 225])):
        values = constants(levels=np.array([levels], np.float32))
        filled = graph.replace('floats =', f'{shapes}{values}\nfloats =', 1)
        paths.append(write_model(tmp_path / f'{name}.onnx', filled, task='classification'))
    options = {'test_dataloader.dataset.data_root': str(tmp_path)}
    metrics, count = evaluate_files(paths, 'classification/moganet-xtiny_digits', options)
    assert count == 11
    assert [one['accuracy/top1'] for one in metrics] == pytest.approx([100, 100 * 8 / 11], abs=1e-3)
    _, count = evaluate_files(paths, 'classification/moganet-xtiny_digits', options, num_images=4)
    assert count == 4


def test_outputs_of_the_network_itself_have_no_accuracy(tmp_path):
    path = write_constant(tmp_path / 'raw.onnx', dict(logits=np.zeros((1, 10))), task='classification', raw=True)
    with pytest.raises(UserError, match='a file of --raw has no predictions to evaluate'):
        evaluate_files([path], 'classification/moganet-xtiny_digits')


def test_boxes_are_compared_in_pixels_of_the_image(scenes, tmp_path):
    # The test pipeline enlarges the images from 96 to 128 px.
    right = np.array([[20, 10, 60, 50]], np.float32) * 128 / SIDE
    paths = [
        write_constant(
            tmp_path / f'{name}.onnx',
            dict(boxes=boxes, scores=np.array([0.9], np.float32), labels=np.array([2])),
            'uint8[1, 3, height, width] images',
            task='detection',
        )
        for name, boxes in (('right', right), ('half', right + np.array([[0, 0, 0, -17 * 128 / SIDE]], np.float32)))
    ]
    options = {
        'test_dataloader.dataset.data_root': str(scenes),
        'test_evaluator.ann_file': str(scenes / 'annotations/instances_val.json'),
    }
    metrics, count = evaluate_files(paths, 'detection/retinanet_moganet-xtiny_fpn_digits', options)
    assert count == 3 and metrics[0]['coco/bbox_mAP'] == 1
    assert metrics[1]['coco/bbox_mAP'] == pytest.approx(0.2, abs=1e-3)  # the IoU is 23 / 40
    metrics, count = evaluate_files(paths, 'detection/retinanet_moganet-xtiny_fpn_digits', options, num_images=2)
    assert count == 2 and metrics[0]['coco/bbox_mAP'] == 1


def test_class_maps_are_compared_at_the_size_of_the_image(scenes, tmp_path):
    classes = np.zeros((1, SIDE, SIDE), np.int64)
    classes[:, 10:50, 20:40] = 3
    path = write_constant(
        tmp_path / 'map.onnx',
        dict(class_map=classes),
        'uint8[1, 3, height, width] images, int64[2] output_size',
        task='segmentation',
    )
    options = {'test_dataloader.dataset.data_root': str(scenes)}
    ((metrics,), count) = evaluate_files([path], 'segmentation/semantic-fpn_moganet-xtiny_digits', options)
    pixels = SIDE**2
    assert count == 3 and metrics['aAcc'] == pytest.approx(100 * (pixels - 800) / pixels, abs=0.01)


def test_images_are_fitted_into_a_file_of_one_size(scenes, tmp_path):
    """The test pipeline gives 128 x 128 px, of which the files take 160 x 64: half of it, and gray to the right."""
    right = np.array([[20, 10, 60, 50]], np.float32) * 64 / SIDE
    outputs = dict(boxes=right, scores=np.array([0.9], np.float32), labels=np.array([2]))
    path = write_constant(tmp_path / 'boxes.onnx', outputs, 'uint8[1, 3, 64, 160] images', task='detection')
    options = {'test_dataloader.dataset.data_root': str(scenes)}
    boxes = options | {'test_evaluator.ann_file': str(scenes / 'annotations/instances_val.json')}
    ((metrics,), _) = evaluate_files([path], 'detection/retinanet_moganet-xtiny_fpn_digits', boxes)
    assert metrics['coco/bbox_mAP'] == 1
    classes = np.zeros((1, SIDE, SIDE * 160 // 64), np.int64)
    classes[:, 10:50, 20:60] = 3
    inputs = 'uint8[1, 3, 64, 160] images, int64[2] output_size'
    path = write_constant(tmp_path / 'map.onnx', dict(class_map=classes), inputs, task='segmentation')
    ((metrics,), _) = evaluate_files([path], 'segmentation/semantic-fpn_moganet-xtiny_digits', options)
    assert metrics['aAcc'] == 100


def test_a_classifier_of_another_size_than_the_test_images_is_refused(tmp_path):
    (tmp_path / 'val' / '0').mkdir(parents=True)
    assert cv2.imwrite(str(tmp_path / 'val/0/0.png'), np.zeros((32, 32), np.uint8))
    outputs = dict(probabilities=np.ones((1, 10), np.float32))
    path = write_constant(tmp_path / 'a.onnx', outputs, 'uint8[batch, 1, 40, 48] images', task='classification')
    message = 'the file takes images of 48 x 40 px, but the test pipeline gives 32 x 32: omit --shape'
    options = {'test_dataloader.dataset.data_root': str(tmp_path)}
    with pytest.raises(UserError, match=message):
        evaluate_files([path], 'classification/moganet-xtiny_digits', options)


def test_keypoints_are_compared_in_pixels_of_the_image(scenes, tmp_path):
    # The crop of 64 px shows 50 px around (40, 30), the center of the box.
    points = (np.array([[[30, 20], [40, 40], [25, 30], [55, 30], [40, 30]]], np.float32) - [15, 5]) * 64 / 50
    outputs = dict(keypoints=points.astype(np.float32), scores=np.ones((1, 5), np.float32))
    steps = [{'step': 'warp', 'size': [64, 64], 'padding': 1.25, 'udp': False}]
    names = {'names': ['top', 'bottom', 'left', 'right', 'centroid']}
    path = write_constant(
        tmp_path / 'pose.onnx',
        outputs,
        'uint8[1, 3, 64, 64] images',
        task='pose',
        keypoints=names,
        preprocess=steps,
    )
    options = {
        'test_dataloader.dataset.data_root': str(scenes),
        'test_evaluator.ann_file': str(scenes / 'annotations/keypoints_val.json'),
    }
    ((metrics,), count) = evaluate_files([path], 'pose/td-hm_moganet-xtiny_digits', options, num_images=1)
    assert count == 3 and metrics['coco/AP'] == pytest.approx(1, abs=1e-6)


def test_missing_data_is_reported(tmp_path):
    path = write_constant(tmp_path / 'a.onnx', dict(probabilities=np.ones((1, 10), np.float32)), task='classification')
    with pytest.raises(UserError, match='missing'):
        evaluate_files(
            [path],
            'classification/moganet-xtiny_digits',
            {'test_dataloader.dataset.data_root': str(tmp_path / 'missing')},
        )
