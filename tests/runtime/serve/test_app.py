"""Addresses of the server: answers equal those of the predictor, and invalid requests are refused with a message."""

import base64
import json
import zlib

import numpy as np
import pytest

pytest.importorskip('fastapi')
pytest.importorskip('onnx')
from fastapi import HTTPException
from fastapi.testclient import TestClient
from onnx_files import write_classifier
from runtime.serve.serving import encode, filled

from mogacore.runtime import Predictor
from mogacore.runtime.serve.app import LARGEST_IMAGES, create_app
from mogacore.runtime.serve.settings import Settings
from mogacore.runtime.serve.uploads import PixelBudget


@pytest.fixture
def predictor(tmp_path):
    return Predictor(write_classifier(tmp_path / 'colors.onnx'), threads=1)


@pytest.fixture
def client(predictor):
    with TestClient(create_app({'colors': predictor}, Settings(max_bytes=20_000, max_queue=4))) as client:
        yield client


def refused(answer, status, message):
    """Whether a request was refused, with a text of one line."""
    assert answer.status_code == status, answer.text
    (error,) = answer.json().values()
    assert message in error and '\n' not in error, error
    return True


def test_upload_as_form_and_as_body_gives_the_record_of_the_predictor(client, predictor):
    content = encode(filled((1, 3, 2)))
    for request in (dict(files={'image': ('photo.png', content)}), dict(content=content)):
        answer = client.post('/predict', **request)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body['time_ms'] > 0
        assert {**body, 'time_ms': 0} == {
            'model': 'colors', 'task': 'classification', 'time_ms': 0, 'prediction': predictor(content),
        }  # fmt: skip
    assert predictor(content)['pred_class'] == 'green'


def test_health_and_metadata_follow_the_protocol(client):
    assert client.get('/v2').json()['name'] == 'mogacore'
    for path in ('/v2/health', '/v2/health/live', '/v2/health/ready', '/v2/models/colors/ready'):
        assert client.get(path).status_code == client.head(path).status_code == 200
    assert client.head('/v2/models/other').status_code == 404 and client.head('/predict').status_code == 405
    assert client.get('/v2/health').json()['models'] == {'colors': 'classification'}
    metadata = client.get('/v2/models/colors').json()
    assert metadata['name'] == 'colors' and metadata['versions'] == ['1'] and metadata['platform']
    assert {(tensor['name'], tensor['datatype']) for tensor in metadata['inputs']} == {
        ('images', 'UINT8'), ('encoded_images', 'BYTES'),
    }  # fmt: skip
    assert refused(client.get('/v2/models/other'), 404, "model 'other' is unknown: choose from colors")


def infer(client, **tensor):
    return client.post('/v2/models/colors/infer', json={'id': 'a', 'inputs': [tensor]})


def test_inference_takes_files_and_pixels(client, predictor):
    images = [filled(np.roll([9, 0, 0], i), 4 + i, 5) for i in range(3)]
    texts = [base64.b64encode(encode(image)).decode() for image in images]
    answer = infer(client, name='encoded_images', datatype='BYTES', shape=[3], data=texts).json()
    assert (answer['model_name'], answer['id']) == ('colors', 'a')
    (output,) = answer['outputs']
    assert (output['name'], output['datatype'], output['shape']) == ('predictions', 'BYTES', [3])
    assert [json.loads(text) for text in output['data']] == predictor(images)

    stacked = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3))
    expected = predictor(list(stacked.astype(np.uint8)))
    for data in (stacked.tolist(), stacked.ravel().tolist()):
        output = infer(client, name='images', datatype='UINT8', shape=[2, 4, 5, 3], data=data).json()['outputs'][0]
        assert [json.loads(text) for text in output['data']] == expected
    output = infer(client, name='images', datatype='UINT8', shape=[4, 5, 3], data=stacked[0].tolist()).json()
    assert json.loads(output['outputs'][0]['data'][0]) == expected[0]
    body = client.post('/v2/models/colors/infer', json={'inputs': [PIXELS]}).json()
    assert list(body) == ['model_name', 'model_version', 'outputs']  # null is no valid id


PIXELS = dict(name='images', datatype='UINT8', shape=[1, 1, 1, 3], data=[1, 2, 3])


@pytest.mark.parametrize(
    'tensor, status, message',
    [
        ({**PIXELS, 'data': [1, 2]}, 400, 'has 2 values'),
        ({**PIXELS, 'data': [1, 2, 256]}, 400, 'not UINT8'),
        ({**PIXELS, 'data': [1, 2, 2.5]}, 400, 'not UINT8'),
        ({**PIXELS, 'data': [[1, 2], [3]]}, 400, 'not UINT8'),
        ({**PIXELS, 'data': []}, 400, 'not UINT8'),
        ({**PIXELS, 'shape': [1, 1, 1, 1]}, 400, 'shape [1, 1, 1, 1] of images is invalid'),
        ({**PIXELS, 'shape': [0, 1, 1, 3]}, 400, 'is invalid'),
        ({**PIXELS, 'shape': [5, 1, 1, 3]}, 413, '5 images, more than 4'),
        ({**PIXELS, 'shape': [1, 20000, 20000, 3]}, 413, 'more than 200,000,000 pixels'),
        ({**PIXELS, 'name': 'image'}, 400, "name it 'images'"),
        ({**PIXELS, 'datatype': 'FP32'}, 400, 'inputs.0.datatype'),
        (dict(name='encoded_images', datatype='BYTES', shape=[1], data=['?']), 400, 'not base64'),
        (dict(name='encoded_images', datatype='BYTES', shape=[1], data=[1]), 400, 'not base64'),
        (dict(name='encoded_images', datatype='BYTES', shape=[2], data=['']), 400, 'has 1 entries'),
        (dict(name='encoded_images', datatype='BYTES', shape=[1], data=['AAAA']), 415, 'not an image'),
    ],
)  # fmt: skip
def test_invalid_tensors_are_refused(client, tensor, status, message):
    assert refused(infer(client, **tensor), status, message)


def test_malformed_inference_requests_are_refused(client):
    post = client.post
    assert refused(post('/v2/models/colors/infer', content=b'{'), 400, 'Invalid JSON')
    assert refused(post('/v2/models/colors/infer', json={'inputs': []}), 400, 'has 0 inputs')
    body = {'inputs': [PIXELS], 'outputs': [{'name': 'logits'}]}
    assert refused(post('/v2/models/colors/infer', json=body), 400, "output 'logits' is unknown")
    assert refused(post('/v2/models/none/infer', json={'inputs': [PIXELS]}), 404, 'unknown')


def test_texts_in_place_of_pixels_take_no_memory(client):
    """As an array of texts, 1,000 of them next to a long one would take 40 MB."""
    answer = infer(client, name='images', datatype='UINT8', shape=[1, 1, 1, 3], data=['x' * 10_000, *[''] * 1000])
    assert refused(answer, 400, 'not UINT8')


@pytest.mark.parametrize('length', ['9' * 5000, '20001', '0' * 5000 + '20001'])
def test_a_body_that_is_declared_too_long_is_refused(client, length):
    assert refused(client.post('/predict', content=b'x', headers={'content-length': length}), 413, 'larger than 20,000')


def test_an_error_is_one_line_whatever_the_request_names(client):
    answer = client.post('/v2/models/colors/infer', json={'inputs': [PIXELS], 'outputs': [{'name': 'a\nb'}]})
    assert refused(answer, 400, "output 'a\\nb' is unknown")


def png_header(width, height):
    """A PNG file of a few bytes that declares a size."""
    chunk = b'IHDR' + width.to_bytes(4, 'big') + height.to_bytes(4, 'big') + bytes([8, 2, 0, 0, 0])
    header = b'\0\0\0\x0d' + chunk + zlib.crc32(chunk).to_bytes(4, 'big')
    return b'\x89PNG\r\n\x1a\n' + header + b'\0\0\0\0IDAT' + zlib.crc32(b'IDAT').to_bytes(4, 'big')


NOISE = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
# Its chunk of pixels declares 2 GiB.
HUGE_CHUNK = encode(NOISE).replace(encode(NOISE).partition(b'IDAT')[0][-4:] + b'IDAT', b'\x7f\xff\xff\xffIDAT', 1)


@pytest.mark.parametrize(
    'content, status, message',
    [
        (b'', 400, 'empty'),
        (b'hello', 415, 'the upload of 5 bytes is not an image: send BMP,'),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415, 'not an image'),
        (encode(NOISE)[:2000], 400, 'the PNG image of 2,000 bytes is corrupt'),
        (encode(NOISE, '.jpg')[:-300], 400, 'the JPEG image'),
        (HUGE_CHUNK, 400, 'bytes is corrupt'),
        (png_header(20_000, 20_000), 413, '20000 x 20000 px has more than 200,000,000 pixels'),
        (bytes(20_001), 413, 'larger than 20,000'),
    ],
)
def test_uploads_that_are_no_acceptable_image_are_refused(client, content, status, message):
    assert refused(client.post('/predict', content=content), status, message)
    if content:
        assert refused(client.post('/predict', files={'image': ('a.png', content)}), status, message)


def test_form_without_file_and_unknown_parameters_are_refused(client):
    assert refused(client.post('/predict', data={'image': 'x'}, files={}), 415, 'not an image')
    form = {'content-type': 'multipart/form-data; boundary=x'}
    body = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n--x--\r\n'
    assert refused(client.post('/predict', content=body, headers=form), 400, 'contains no file')
    assert refused(
        client.post('/predict', content=b'x', headers={'content-type': 'multipart/form-data'}), 400, 'oundary'
    )
    content = encode(filled((1, 2, 3)))
    assert refused(client.post('/predict?model=x', content=content), 404, 'choose from colors')
    assert refused(client.post('/predict?boxes=[]', content=content), 400, 'boxes are for pose estimation')
    assert refused(client.get('/predict'), 405, 'Method Not Allowed')
    assert refused(client.get('/nowhere'), 404, 'Not Found')


def test_body_of_unknown_length_is_refused_above_the_limit(client):
    def stream():
        for _ in range(100):
            yield bytes(1000)

    assert refused(client.post('/predict', content=stream()), 413, 'larger than 20,000')


def test_decoded_images_share_a_budget_of_pixels(predictor, monkeypatch):
    monkeypatch.setenv('MOGACORE_MAX_PIXELS', '600')
    assert LARGEST_IMAGES * 600 == 2400  # each image below has 24 x 24 pixels, so that four fit
    content = base64.b64encode(encode(filled((1, 3, 2), 24, 24))).decode()
    with TestClient(create_app({'colors': predictor}, Settings(max_queue=8))) as client:
        for count, status in ((4, 200), (5, 413), (4, 200)):  # a refused request leaves nothing reserved
            tensor = dict(name='encoded_images', datatype='BYTES', shape=[count], data=[content] * count)
            answer = client.post('/v2/models/colors/infer', json={'inputs': [tensor]})
            assert answer.status_code == status, answer.text


def test_a_budget_is_shared_by_requests():
    budget = PixelBudget(10)
    with budget.reserve(6):
        with pytest.raises(HTTPException) as caught, budget.reserve(5):
            pass
        assert caught.value.status_code == 503 and caught.value.headers == {'Retry-After': '1'}
        with budget.reserve(4):
            assert budget.used == 10
    assert budget.used == 0
    with pytest.raises(HTTPException) as caught, budget.reserve(11):
        pass
    assert caught.value.status_code == 413


def test_one_of_several_models_must_be_chosen(predictor, tmp_path):
    other = write_classifier(tmp_path / 'bgr.onnx', classes=['blue', 'green', 'red'])
    models = {'rgb': predictor, 'bgr': Predictor(other, threads=1)}
    with TestClient(create_app(models)) as client:
        content = encode(filled((1, 3, 9)))
        assert refused(client.post('/predict', content=content), 400, 'add ?model= with one of rgb, bgr')
        for name, expected in (('rgb', 'blue'), ('bgr', 'red')):
            body = client.post(f'/predict?model={name}', content=content).json()
            assert (body['model'], body['prediction']['pred_class']) == (name, expected)


def test_metrics_count_requests_by_route_and_images_by_model(client):
    for _ in range(3):
        client.post('/predict', content=encode(filled((1, 2, 3))))
    client.post('/predict', content=b'x')
    client.get('/secret/path')
    lines = client.get('/metrics').text.splitlines()
    assert 'mogacore_requests_total{route="/predict",status="200"} 3.0' in lines
    assert 'mogacore_requests_total{route="/predict",status="415"} 1.0' in lines
    assert 'mogacore_requests_total{route="other",status="404"} 1.0' in lines
    assert 'mogacore_batch_images_sum{model="colors"} 3.0' in lines
    assert any(line.startswith('process_resident_memory_bytes ') for line in lines)
    assert 'secret' not in '\n'.join(lines)


def test_documentation_needs_no_other_host(client):
    page = client.get('/docs').text
    assert 'swagger' in page and 'https://' not in page
    for path in set(part.split('"')[0] for part in page.split('="/')[1:]):
        assert client.get(f'/{path}').status_code == 200
    schema = client.get('/openapi.json').json()
    assert {'/predict', '/v2/models/{name}/infer', '/v2/health', '/metrics'} <= set(schema['paths'])
