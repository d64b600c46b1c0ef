"""Records of served models of each task, and which models get batches."""

import base64
import json
from urllib.parse import quote

import cv2
import numpy as np
import pytest

pytest.importorskip('fastapi')
pytest.importorskip('onnx')
from fastapi.testclient import TestClient
from onnx_files import write_classifier, write_detector, write_pose, write_segmenter
from runtime.serve.serving import encode

from mogacore.runtime import Predictor
from mogacore.runtime.serve.app import create_app
from mogacore.runtime.serve.metrics import Metrics
from mogacore.runtime.serve.models import ServedModel, record_of
from mogacore.runtime.serve.settings import Settings

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
IMAGE[10:20, 5:25] = (250, 0, 0)


def predict(predictor, parameters=''):
    """Body of the answer to an upload."""
    with TestClient(create_app({'model': predictor})) as client:
        return client.post(f'/predict{parameters}', content=encode(IMAGE)).json()


def test_class_map_is_a_png_file_in_the_record(tmp_path):
    predictor = Predictor(write_segmenter(tmp_path / 'model.onnx'), threads=1)
    record = predict(predictor)['prediction']
    labels = cv2.imdecode(np.frombuffer(base64.b64decode(record.pop('map')), np.uint8), cv2.IMREAD_UNCHANGED)
    (expected,) = predictor.predict([IMAGE])
    assert len(np.unique(labels)) > 1
    np.testing.assert_array_equal(labels, expected.class_map)
    assert record == json.loads(json.dumps(expected.record))


def test_objects_of_a_detector_are_those_of_the_predictor(tmp_path):
    predictor = Predictor(write_detector(tmp_path / 'model.onnx'), threads=1)
    record = predict(predictor)['prediction']
    assert record['instances'] and record == json.loads(json.dumps(predictor(IMAGE)))


def test_pose_model_takes_the_boxes_of_objects(tmp_path):
    predictor = Predictor(write_pose(tmp_path / 'model.onnx'), threads=1)
    boxes = [[5, 10, 25, 20], [0, 0, 10, 30]]
    for given in (boxes, boxes[:1], []):
        body = predict(predictor, f'?boxes={quote(json.dumps(given))}')
        assert len(body['prediction']['instances']) == len(given)
        assert body['prediction'] == json.loads(json.dumps(predictor(IMAGE, np.array(given).reshape(-1, 4))))
    assert predict(predictor)['prediction'] == json.loads(json.dumps(predictor(IMAGE)))
    for wrong in (
        '[[1, 2, 3]]',
        '[[9, 9, 3, 3]]',
        '[[0, 0, NaN, 3]]',
        'x',
        '[["a", 0, 1, 1]]',
        '{}',
        '[[0, 0, 3e38, 3e38]]',
        '[' * 3000,
    ):
        assert 'are invalid: use [[x1, y1, x2, y2], ...]' in predict(predictor, f'?boxes={quote(wrong)}')['error']


@pytest.mark.parametrize('batch, expected', [('batch', 8), (16, 8), (2, 2), (1, 1)])
def test_models_get_batches_up_to_the_batch_size_of_their_file(tmp_path, batch, expected):
    path = write_classifier(tmp_path / 'model.onnx', batch)
    model = ServedModel('model', Predictor(path, threads=1), Settings(), Metrics())
    assert model.batcher.max_batch == expected
    shapes, run = [], model.predictor.backend.run
    model.predictor.backend.run = lambda arrays: (shapes.append(arrays['images'].shape[0]), run(arrays))[1]
    images = [model.predictor.load(np.roll(IMAGE, number, 2)) for number in range(expected)]
    records = model.predict([(image, None) for image in images])
    assert shapes == [expected if batch == 'batch' else batch]
    assert records == [record_of(*model.predictor.predict([image])) for image in images]
    model.batcher.stop()
