"""Target of the HTTP server: requests to its ASGI application, without a network."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
from functools import cache

import numpy as np
from fuzzing.files import folder
from fuzzing.harness import NUMBERS, SCALARS, VALUES, Target, check_message, damaged, near
from hypothesis import strategies as st
from onnx_files import write_classifier, write_detector, write_pose
from PIL import Image

from mogacore.images import LIMIT_VARIABLE
from mogacore.runtime import Predictor
from mogacore.runtime.serve.app import create_app
from mogacore.runtime.serve.settings import Settings

FORMATS = ('PNG', 'JPEG', 'GIF', 'BMP', 'TIFF', 'WEBP', 'PPM', 'JPEG2000')
# Method, path, query, headers, parts of the body, and whether the body is complete.
Request = tuple[str, str, bytes, list[tuple[bytes, bytes]], list[bytes], bool]


@cache
def application():
    """The application with three small models, and the event loop that runs it."""
    os.environ[LIMIT_VARIABLE] = '1000000'
    models = {
        'colors': write_classifier(folder() / 'colors.onnx'), 'boxes': write_detector(folder() / 'boxes.onnx'),
        'pose': write_pose(folder() / 'pose.onnx'),
    }  # fmt: skip
    predictors = {name: Predictor(path, threads=1) for name, path in models.items()}
    return create_app(predictors, Settings(max_bytes=2_000_000, max_queue=8, max_delay_ms=0)), asyncio.new_event_loop()


def send(request: Request) -> str:
    """Send a request; the answer must be complete, below status 500, and an error must have its text in JSON."""
    method, path, query, headers, chunks, is_whole = request
    app, loop = application()
    scope = {
        'type': 'http', 'asgi': {'version': '3.0'}, 'http_version': '1.1', 'method': method, 'scheme': 'http',
        'path': path, 'raw_path': path.encode('utf-8', 'replace'), 'query_string': query, 'root_path': '',
        'headers': headers, 'client': ('127.0.0.1', 1), 'server': ('127.0.0.1', 80),
    }  # fmt: skip
    last = len(chunks) - 1
    events = [
        {'type': 'http.request', 'body': chunk, 'more_body': index < last or not is_whole}
        for index, chunk in enumerate(chunks)
    ]
    answer: list[dict] = []

    async def receive() -> dict:
        return events.pop(0) if events else {'type': 'http.disconnect'}

    async def collect(message: dict) -> None:
        answer.append(message)

    loop.run_until_complete(asyncio.wait_for(app(scope, receive, collect), 60))
    kinds = [message['type'] for message in answer]
    assert kinds[0] == 'http.response.start' and set(kinds[1:]) == {'http.response.body'}, kinds
    assert not answer[-1].get('more_body', False), 'the answer is not complete'
    status = answer[0]['status']
    body = b''.join(message.get('body', b'') for message in answer[1:])
    assert 200 <= status < 500, f'status {status}: {body[:200]!r}'
    if status < 400:
        return 'accepted'
    (error,) = json.loads(body).values()
    check_message(error)
    return 'refused'


def image_file(kind: str) -> bytes:
    """A small image of a format of PIL."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, kind, **({'exif': _rotated()} if kind in ('PNG', 'JPEG', 'WEBP') else {}))
    return buffer.getvalue()


def _rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _form(content: bytes, boundary: bytes = b'edge') -> bytes:
    head = b'Content-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    return b'--' + boundary + b'\r\n' + head + content + b'\r\n--' + boundary + b'--\r\n'


def _request(method, path, query, headers, body, size, is_whole) -> Request:
    chunks = [body[start : start + size] for start in range(0, len(body), size)] or [b'']
    return method, path, query, headers, chunks, is_whole


HEADERS = st.lists(
    st.tuples(
        st.sampled_from((b'content-type', b'content-length', b'accept', b'host', b'content-encoding', b'range')),
        st.one_of(
            st.binary(max_size=12),
            st.sampled_from((
                b'application/json', b'multipart/form-data', b'multipart/form-data; boundary=edge', b'image/png',
                b'multipart/form-data; boundary="', b'multipart/form-data; charset=none; boundary=edge', b'-1', b'0',
                b'9' * 5000, b'\xb2', b'text/plain; charset=utf-16', *NUMBERS[:4],
            )),
        ),
    ),
    max_size=2,
)  # fmt: skip
PATHS = (
    '/', '/v2', '/v2/', '/v2/health', '/v2/health/live', '/v2/models/colors', '/v2/models/none',
    '/v2/models/boxes/ready', '/v2/models/colors/infer', '/predict', '/metrics', '/docs', '/openapi.json',
    '/v2/models/\0', '/v2/models/a\nb/infer', '/v2/models/%2e%2e', '/static-offline-docs/../x', '/v2/models/\ud800',
    '//', '',
)  # fmt: skip
QUERIES = (
    b'', b'model=colors', b'model=pose', b'model=none', b'model=', b'model=%ff', b'model=a%0Ab',
    b'model=colors&model=pose', b'boxes=1', b'model=pose&boxes=[[0,0,4,4]]', b'model=pose&boxes=[]',
    b'model=pose&boxes=[[0,0,1e999,4]]', b'model=pose&boxes=' + b'[' * 5000, b'model=pose&boxes=[[0,0,NaN,4]]',
    b'model=pose&boxes=[[0,0,3,4,1],[0,0,3,4]]', b'model=pose&boxes=[[0,0,' + b'9' * 400 + b',4]]',
    b'model=pose&boxes=[[999999,0,9999999,1]]', b'%', b'=&=', b'model=pose&boxes=[[-99999,-99999,99999,99999]]',
    b'model=pose&boxes=[[0,0,1e-30,1e-30]]', b'model=boxes',
)  # fmt: skip


def server_target() -> Target:
    """Requests near valid ones, and any."""
    images = [image_file(kind) for kind in FORMATS]
    file_input = {'name': 'encoded_images', 'datatype': 'BYTES', 'shape': [1]}
    messages = [
        {'id': 'a', 'inputs': [{**file_input, 'data': [base64.b64encode(images[0]).decode()]}]},
        {
            'inputs': [{'name': 'images', 'datatype': 'UINT8', 'shape': [1, 2, 1, 3], 'data': [1, 2, 3, 4, 5, 6]}],
            'outputs': [{'name': 'predictions'}], 'parameters': {'a': 1},
        },
        {'inputs': [{'name': 'images', 'datatype': 'UINT8', 'shape': [1, 1, 3], 'data': [[[1, 2, 3]]]}]},
    ]  # fmt: skip
    keys = ('id', 'inputs', 'outputs', 'name', 'datatype', 'shape', 'data', 'parameters')
    edited = st.builds(json.dumps, near(messages, keys, st.one_of(SCALARS, VALUES))).map(str.encode)
    bodies = st.one_of(edited, damaged([json.dumps(message).encode() for message in messages]))
    sizes = st.sampled_from((1, 7, 100, 10**7))
    whole = st.sampled_from((True,) * 9 + (False,))
    # A request is built from its method, path, query, headers and body, the size of the parts of the body, and whether
    # the body is complete.
    post, json_type = st.just('POST'), [(b'content-type', b'application/json')]
    form_type = [(b'content-type', b'multipart/form-data; boundary=edge')]
    paths = st.sampled_from([f'/v2/models/{model}/infer' for model in ('colors', 'boxes', 'pose')])
    uploads = st.one_of(damaged(images), st.sampled_from(images))
    forms = damaged([_form(image) for image in images[:2]])
    # uvicorn refuses other characters in a query before the application is called.
    query_text = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=10)
    queries = st.one_of(st.sampled_from(QUERIES), query_text.map(str.encode))
    methods = st.sampled_from(('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'A'))
    any_path = st.one_of(st.sampled_from(PATHS), st.text(max_size=5).map('/'.__add__))
    infer = st.builds(_request, post, paths, st.just(b''), st.just(json_type), bodies, sizes, whole)
    predict = st.builds(_request, post, st.just('/predict'), queries, HEADERS, uploads, sizes, whole)
    form_headers = HEADERS.map(form_type.__add__)
    form = st.builds(_request, post, st.just('/predict'), st.just(b'model=colors'), form_headers, forms, sizes, whole)
    anything = st.builds(_request, methods, any_path, queries, HEADERS, st.binary(max_size=20), sizes, whole)
    valid: list[Request] = [
        ('POST', f'/v2/models/{model}/infer', b'', [], [json.dumps(message).encode()], True)
        for model in ('colors', 'boxes', 'pose')
        for message in messages
    ]
    valid += [('POST', '/predict', b'model=colors', [], [image], True) for image in images]
    valid += [('POST', '/predict', b'model=pose', form_type, [_form(images[1])], True)]
    return Target(st.one_of(infer, infer, predict, predict, form, anything), send, valid)
