"""Messages of KServe's v2 protocol in JSON: https://github.com/kserve/open-inference-protocol.

A request has one input, images as pixels or as files; the response has one output, a JSON text per image.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any, Literal

import numpy as np
from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, ValidationError

from mogacore.images import max_pixels

PIXELS, FILES, RESULT = 'images', 'encoded_images', 'predictions'


class Message(BaseModel):
    """A JSON object; further keys are ignored, as the protocol allows extensions."""

    model_config = ConfigDict(protected_namespaces=())


class Tensor(Message):
    """An input: `images`, UINT8 of shape [B, H, W, 3] or [H, W, 3], RGB, or `encoded_images`, BYTES of shape [B],
    image files in base64."""

    name: str
    datatype: Literal['UINT8', 'BYTES']
    shape: list[int]
    data: list[Any]


class RequestedOutput(Message):
    """An output that the client wants."""

    name: str


class InferRequest(Message):
    """Body of `POST /v2/models/NAME/infer`."""

    id: str | None = None
    inputs: list[Tensor]
    outputs: list[RequestedOutput] | None = None


class Result(Message):
    """The output `predictions`: one JSON text per image, as in the predictions.json of `mogacore infer`."""

    name: str = RESULT
    datatype: str = 'BYTES'
    shape: list[int]
    data: list[str]


class InferResponse(Message):
    """Answer of `POST /v2/models/NAME/infer`."""

    model_name: str
    model_version: str = '1'
    id: str | None = None
    outputs: list[Result]


class TensorMetadata(Message):
    """Name, type and shape of an input or output; -1 is any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Message):
    """Answer of `GET /v2/models/NAME`. Of the inputs, a request has one."""

    name: str
    versions: list[str] = ['1']
    platform: str
    inputs: list[TensorMetadata] = [
        TensorMetadata(name=FILES, datatype='BYTES', shape=[-1]),
        TensorMetadata(name=PIXELS, datatype='UINT8', shape=[-1, -1, -1, 3]),
    ]
    outputs: list[TensorMetadata] = [TensorMetadata(name=RESULT, datatype='BYTES', shape=[-1])]


def parse_request(body: bytes) -> InferRequest:
    """Parse a request.

    Raises:
        HTTPException: If it is malformed.
    """
    try:
        request = InferRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = '.'.join(map(str, first['loc'])) or 'the body'
        raise HTTPException(400, f'{place}: {first["msg"]}; send an inference request in JSON') from None
    if len(request.inputs) != 1:
        raise HTTPException(400, f'the request has {len(request.inputs)} inputs: send one, {PIXELS} or {FILES}')
    for output in request.outputs or ():
        if output.name != RESULT:
            raise HTTPException(400, f'output {output.name!r} is unknown: request {RESULT}, or omit outputs')
    return request


def read_images(tensor: Tensor, max_images: int) -> list[bytes] | list[np.ndarray]:
    """Images of an input: contents of files, or pixels (H, W, 3) uint8 RGB.

    Raises:
        HTTPException: If name, shape or data do not fit together, or there are more than ``max_images``.
    """
    expected = {'UINT8': PIXELS, 'BYTES': FILES}[tensor.datatype]
    if tensor.name != expected:
        raise HTTPException(400, f'input {tensor.name!r} of type {tensor.datatype} is unknown: name it {expected!r}')
    shape = tensor.shape
    if tensor.datatype == 'UINT8' and len(shape) == 3:
        shape = [1, *shape]
    rank, sizes = (4, '[B, H, W, 3] or [H, W, 3]') if tensor.datatype == 'UINT8' else (1, '[B]')
    if len(shape) != rank or min(shape) < 1 or (rank == 4 and shape[3] != 3):
        raise HTTPException(400, f'shape {tensor.shape} of {tensor.name} is invalid: use {sizes}')
    if shape[0] > max_images:
        raise HTTPException(413, f'the request has {shape[0]} images, more than {max_images}: send fewer per request')
    if tensor.datatype == 'BYTES':
        return _files(tensor)
    if shape[1] * shape[2] > max_pixels():
        raise HTTPException(413, f'images of {shape[2]} x {shape[1]} px have more than {max_pixels():,} pixels')
    return list(_pixels(tensor, shape))


def _files(tensor: Tensor) -> list[bytes]:
    if len(tensor.data) != tensor.shape[0]:
        raise HTTPException(400, f'{tensor.name} has {len(tensor.data)} entries, its shape says {tensor.shape[0]}')
    try:
        return [base64.b64decode(text, validate=True) for text in tensor.data]
    except (TypeError, ValueError, binascii.Error):
        raise HTTPException(400, f'data of {tensor.name} is not base64: encode each image file in base64') from None


def _pixels(tensor: Tensor, shape: list[int]) -> np.ndarray:
    # An array of texts would take the memory of the longest text for each.
    is_whole = set(map(type, np.array(tensor.data, object).flat)) == {int}
    values = np.array(tensor.data) if is_whole else np.zeros(0)
    if not is_whole or values.min() < 0 or values.max() > 255:
        raise HTTPException(400, f'data of {tensor.name} is not UINT8: send integers from 0 to 255')
    if values.size != math.prod(shape):
        raise HTTPException(
            400, f'{tensor.name} has {values.size} values, its shape {tensor.shape} needs another number'
        )
    return values.astype(np.uint8).reshape(shape)


def response(request: InferRequest, model: str, records: list[dict]) -> InferResponse:
    """The answer with one record per image."""
    texts = [json.dumps(record) for record in records]
    return InferResponse(model_name=model, id=request.id, outputs=[Result(shape=[len(texts)], data=texts)])
