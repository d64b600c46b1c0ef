"""The HTTP application: addresses, and how each request becomes a prediction."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import numpy as np
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from mogacore.errors import UserError, one_line
from mogacore.images import max_pixels
from mogacore.runtime.decode import check_boxes
from mogacore.runtime.predictor import BOX_TASKS, Predictor
from mogacore.version import __version__

from .batching import QueueFull, Stopped
from .metrics import Metrics
from .models import ServedModel
from .protocol import FILES, PIXELS, InferResponse, ModelMetadata, parse_request, read_images, response
from .settings import Settings
from .uploads import RETRY_AFTER, Gate, PixelBudget, check_images, load_image, read_upload

DESCRIPTION = """Predictions of exported MogaNet models. `POST /predict` takes an image file; the addresses below
`/v2` follow KServe's v2 protocol. An error is a JSON object with a text `error`."""
IMAGE = {'type': 'string', 'format': 'binary'}
UPLOAD = {
    'requestBody': {
        'required': True,
        'content': {
            'multipart/form-data': {
                'schema': {'type': 'object', 'properties': {'image': IMAGE}, 'required': ['image']}
            },
            'application/octet-stream': {'schema': IMAGE},
        },
    }
}
FILE_INPUT = {'name': FILES, 'datatype': 'BYTES', 'shape': [1], 'data': ['<image file in base64>']}
PIXEL_INPUT = {'name': PIXELS, 'datatype': 'UINT8', 'shape': [1, 2, 1, 3], 'data': [255, 0, 0, 0, 0, 255]}
INFER = {
    'requestBody': {
        'required': True,
        'content': {
            'application/json': {
                'schema': {'type': 'object'},
                'examples': {
                    'files': {'value': {'inputs': [FILE_INPUT]}},
                    'pixels': {'value': {'inputs': [PIXEL_INPUT]}},
                },
            }
        },
    }
}
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {'description': 'The request or the image is malformed or corrupt'},
    404: {'description': 'The model is unknown'},
    408: {'description': 'The body arrived too slowly'},
    413: {'description': 'Too many bytes, pixels or images'},
    503: {'description': 'Too many requests at a time; Retry-After says when to try again'},
}
T = TypeVar('T')
LARGEST_IMAGES = 4  # images of the largest size that may be in memory at a time
MAX_BOXES = 100  # per request; each is a crop of its own


def create_app(
    predictors: Mapping[str, Predictor], settings: Settings | None = None, metrics: Metrics | None = None
) -> FastAPI:
    """The application; the end of its lifespan ends the worker threads.

    Args:
        predictors: Model by name.
        settings: Limits; None for the defaults.
        metrics: Counts the requests; None for new metrics.
    """
    settings = settings or Settings()
    metrics = metrics or Metrics()
    models = {name: ServedModel(name, one, settings, metrics) for name, one in predictors.items()}
    # One image per core is decoded at a time; decoded images then wait in the queues of the models.
    budget = PixelBudget(LARGEST_IMAGES * max_pixels())
    workers = anyio.CapacityLimiter(os.cpu_count() or 1)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for model in models.values():
            await in_thread(model.batcher.stop)

    app = FastAPIOffline(
        title='mogacore', version=__version__, description=DESCRIPTION, lifespan=lifespan, redoc_url=None
    )
    app.add_middleware(Gate, settings=settings, metrics=metrics)
    _report_errors(app)

    async def in_thread(function: Callable[..., T], *args) -> T:
        return await anyio.to_thread.run_sync(function, *args, limiter=workers)

    def find(name: str | None) -> ServedModel:
        if name is None and len(models) == 1:
            (name,) = models
        if name is None:
            raise HTTPException(400, f'there are several models: add ?model= with one of {", ".join(models)}')
        if name not in models:
            raise HTTPException(404, f'model {name!r} is unknown: choose from {", ".join(models)}')
        return models[name]

    async def predict(model: ServedModel, images: list, boxes: np.ndarray | None = None) -> list[dict]:
        with budget.reserve(await in_thread(check_images, images)):
            return await predict_within_budget(model, images, boxes)

    async def predict_within_budget(model: ServedModel, images: list, boxes: np.ndarray | None) -> list[dict]:
        loaded = [await in_thread(load_image, model.predictor, image) for image in images]
        try:
            results = model.batcher.submit([(image, boxes) for image in loaded])
        except QueueFull:
            error = f'{len(model.batcher)} images wait for model {model.name}, too many to add {len(images)}: try again'
            raise HTTPException(503, error, RETRY_AFTER) from None
        except Stopped:
            raise HTTPException(503, 'the server is stopping: use another one', RETRY_AFTER) from None
        try:
            return await asyncio.gather(*map(asyncio.wrap_future, results))
        except UserError as error:  # the image cannot be processed, for example since it is too elongated
            raise HTTPException(400, str(error)) from None

    @app.get('/v2', summary='Server metadata')
    async def describe_server() -> dict:
        return {'name': 'mogacore', 'version': __version__, 'extensions': []}

    @app.get('/v2/health', summary='State of the server and its models')
    async def report_health() -> dict:
        return {'live': True, 'ready': True, 'models': {name: one.predictor.task for name, one in models.items()}}

    # The server listens after its models are loaded and until it stops.
    @app.get('/v2/health/live', summary='Status 200 if the server runs')
    async def report_live() -> dict:
        return {'live': True}

    @app.get('/v2/health/ready', summary='Status 200 if the server accepts requests')
    async def report_ready() -> dict:
        return {'ready': True}

    @app.get('/v2/models/{name}', summary='Inputs and outputs of a model', responses={404: ERRORS[404]})
    async def describe_model(name: str) -> ModelMetadata:
        return ModelMetadata(name=find(name).name, platform='mogacore')

    @app.get('/v2/models/{name}/ready', summary='Status 200 if the model is loaded', responses={404: ERRORS[404]})
    async def report_model_ready(name: str) -> dict:
        return {'name': find(name).name, 'ready': True}

    @app.post(
        '/v2/models/{name}/infer', summary='Predict images', responses=ERRORS, openapi_extra=INFER,
        response_model_exclude_none=True,
    )  # fmt: skip
    async def infer(name: str, request: Request) -> InferResponse:
        model = find(name)
        parsed = await in_thread(parse_request, await request.body())
        images = await in_thread(read_images, parsed.inputs[0], settings.max_queue)
        records = await predict(model, images)
        return await in_thread(response, parsed, name, records)

    @app.post('/predict', summary='Predict an image file', responses=ERRORS, openapi_extra=UPLOAD)
    async def predict_upload(request: Request, model: str | None = None, boxes: str | None = None) -> dict:
        start = time.perf_counter()
        served = find(model)
        rows = _parse_boxes(boxes, served)
        (record,) = await predict(served, [await read_upload(request)], rows)
        time_ms = round(1000 * (time.perf_counter() - start), 2)
        return {'model': served.name, 'task': served.predictor.task, 'time_ms': time_ms, 'prediction': record}

    @app.get('/metrics', summary='Metrics for Prometheus')
    async def report_metrics() -> Response:
        return Response(metrics.render(), media_type='text/plain; version=0.0.4')

    return app


def _parse_boxes(text: str | None, model: ServedModel) -> np.ndarray | None:
    """Boxes (N, 4) from JSON, for pose estimation."""
    if text is None:
        return None
    if model.predictor.task not in BOX_TASKS:
        raise HTTPException(400, f'boxes are for pose estimation, but {model.name} is for {model.predictor.task}')
    try:
        boxes = check_boxes(json.loads(text))
    except (ValueError, RecursionError):  # of JSON, or of the boxes
        raise HTTPException(
            400, f'boxes {text[:80]!r} are invalid: use [[x1, y1, x2, y2], ...] in pixels, x1 < x2'
        ) from None
    if len(boxes) > MAX_BOXES:
        raise HTTPException(413, f'there are {len(boxes)} boxes: send at most {MAX_BOXES} per request')
    return boxes


def _report_errors(app: FastAPI) -> None:
    """Make every error a JSON object with the text ``error``, as KServe's protocol demands."""

    @app.exception_handler(AnyHTTPException)
    async def report_http_error(_: Request, error: AnyHTTPException) -> Response:
        return JSONResponse({'error': one_line(str(error.detail))}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def report_invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return JSONResponse({'error': one_line(f'{first["loc"][-1]}: {first["msg"]}')}, 400)

    @app.exception_handler(ClientDisconnect)
    async def report_disconnect(_: Request, __: ClientDisconnect) -> Response:
        return JSONResponse({'error': 'the client closed the connection'}, 400)

    @app.exception_handler(Exception)
    async def report_bug(_: Request, __: Exception) -> Response:
        return JSONResponse({'error': 'internal error: see the log of the server'}, 500)
