"""Records of small files, computed by hand."""

import cv2
import numpy as np
import pytest

from mogacore.errors import UserError
from mogacore.runtime import Predictor

BACKENDS = ('onnxruntime', 'openvino')


@pytest.fixture
def classifier(write_model):
    """Function that writes a classifier whose probabilities are the softmax of the mean red, green and blue."""
    from onnx import TensorProto, helper

    def write(name='classifier', batch='batch', **metadata):
        axes = helper.make_tensor('axes', TensorProto.INT64, [2], [2, 3])
        nodes = [
            helper.make_node('Cast', ['images'], ['floats'], to=TensorProto.FLOAT),
            helper.make_node('ReduceMean', ['floats', 'axes'], ['means'], keepdims=0),
            helper.make_node('Softmax', ['means'], ['probabilities'], axis=1),
        ]
        return write_model(
            name, nodes, {'images': (TensorProto.UINT8, [batch, 3, 'height', 'width'])},
            {'probabilities': (TensorProto.FLOAT, [batch, 3])}, [axes],
            **{'task': 'classification', 'classes': ['red', 'green', 'blue'], **metadata},
        )  # fmt: skip

    return write


def filled(color, height=8, width=6):
    return np.full((height, width, 3), color, np.uint8)


@pytest.mark.parametrize('backend', BACKENDS)
def test_images_are_taken_as_paths_arrays_and_bytes(backend, classifier, tmp_path):
    pytest.importorskip(backend)
    predictor = Predictor(classifier(), backend)
    assert (predictor.task, predictor.classes) == ('classification', ['red', 'green', 'blue'])
    image = filled((1, 3, 2))
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), image[..., ::-1])
    expected = np.exp([1, 3, 2]) / np.exp([1, 3, 2]).sum()
    record = predictor(image)
    assert (record['pred_label'], record['pred_class']) == (1, 'green')
    assert [entry['class'] for entry in record['top']] == ['green', 'blue', 'red']
    np.testing.assert_allclose([entry['score'] for entry in record['top']], sorted(expected)[::-1], atol=1e-6)
    assert predictor(path.read_bytes()) == record
    assert predictor([path, str(path)]) == [{'image': str(path), **record}] * 2


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('batch', ['batch', 1, 2])
def test_images_of_several_sizes_are_predicted_in_order_whatever_the_batch(backend, batch, classifier):
    pytest.importorskip(backend)
    predictor = Predictor(classifier(batch=batch), backend, threads=1)
    images = [filled(np.roll([9, 0, 0], i), 4 + i % 2, 5) for i in range(7)]
    for batch_size in (None, 1, 3):
        predictions = predictor.predict(images, batch_size=batch_size)
        assert [prediction.record['pred_label'] for prediction in predictions] == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(backend='tflite'), "backend 'tflite' does not read .*: use auto, onnxruntime or openvino"),
        (dict(device='coreml'), "device 'coreml' is not available: use cpu"),
        (dict(backend='openvino', device='cuda'), "device 'cuda' is not available in openvino: use cpu"),
        (dict(threads=0), 'threads is 0: use 1 or more'),
        (dict(score_thr=2), 'score_thr 2 is out of range'),
    ],
)
def test_settings_that_do_not_work_are_reported(options, message, classifier):
    with pytest.raises(UserError, match=message) as raised:
        Predictor(classifier(), **options)
    assert '\n' not in str(raised.value)
