"""Uploads: limits that hold before a body is read, and decoding that refuses what is not a complete image."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import numpy as np
from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mogacore import images
from mogacore.errors import UserError
from mogacore.runtime.predictor import LoadedImage, Predictor

from .metrics import Metrics
from .settings import Settings

FORMATS = ('BMP', 'GIF', 'JPEG', 'JPEG2000', 'PNG', 'PPM', 'TIFF', 'WEBP')  # PIL's names
RETRY_AFTER = {'Retry-After': '1'}  # seconds
MAX_DIGITS = 18  # of the size of a body


class PixelBudget:
    """Limits the pixels of all images that are decoded at a time.

    Args:
        limit: Largest number of pixels.
    """

    def __init__(self, limit: int):
        self.limit, self.used = limit, 0

    @contextmanager
    def reserve(self, count: int) -> Iterator[None]:
        """Hold a part of the budget.

        Raises:
            HTTPException: If it is more than all of it, or than what others leave.
        """
        if count > self.limit:
            raise HTTPException(
                413, f'the images of the request have {count:,} pixels, more than {self.limit:,}: send fewer at a time'
            )
        if self.used + count > self.limit:
            raise HTTPException(503, 'too many pixels are being processed: try again', RETRY_AFTER)
        self.used += count
        try:
            yield
        finally:
            self.used -= count


class Gate:
    """Middleware that limits number, size and duration of uploads, and counts all requests.

    A request above a limit is refused before its body is read; a body of unknown size, as soon as it is too long. HEAD
    is answered as GET, of whose answer uvicorn sends no body.

    Args:
        app: The application.
        settings: The limits.
        metrics: Receives the outcome of each request.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics):
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self.num_uploads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process a request; see ASGI's specification."""
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        if scope['method'] == 'HEAD':
            scope = {**scope, 'method': 'GET'}
        start, status = time.perf_counter(), 500

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message['type'] == 'http.response.start':
                status = message['status']
            await send(message)

        try:
            if scope['method'] in ('POST', 'PUT', 'PATCH'):
                await self._receive_upload(scope, receive, observed_send)
            else:
                await self.app(scope, receive, observed_send)
        finally:
            route = getattr(scope.get('route'), 'path', 'other')
            self.metrics.observe_request(route, status, time.perf_counter() - start)

    async def _receive_upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope)
        if refusal:
            await refusal(scope, receive, send)
            return
        self.num_uploads += 1
        try:
            await self.app(scope, self._limited(receive), send)
        finally:
            self.num_uploads -= 1

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        if self.num_uploads >= self.settings.max_queue:
            error = f'{self.num_uploads} requests are being processed, which is the limit: try again'
            return JSONResponse({'error': error}, 503, RETRY_AFTER)
        length = dict(scope['headers']).get(b'content-length', b'0').lstrip(b'0')
        if length.isdigit():
            # Python converts no texts of thousands of digits.
            size = int(length) if len(length) <= MAX_DIGITS else math.inf
            if size > self.settings.max_bytes:
                return JSONResponse({'error': self._too_long(size)}, 413)
        return None

    def _too_long(self, size: float) -> str:
        return (
            f'the body of {size:,} bytes or more is larger than {self.settings.max_bytes:,}: send a smaller image, or '
            'start the server with a larger --max-bytes'
        )

    def _limited(self, receive: Receive) -> Receive:
        """Wrap ``receive`` such that it raises an HTTP error for a body that is too long or too slow."""
        size, is_complete, end = 0, False, time.monotonic() + self.settings.body_timeout_s

        async def limited() -> Message:
            nonlocal size, is_complete
            if is_complete:  # only the end of the connection can follow
                return await receive()
            try:
                with anyio.fail_after(max(0, end - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                error = f'the body did not arrive within {self.settings.body_timeout_s:g} seconds: send it faster'
                raise HTTPException(408, error, {'Connection': 'close'}) from None
            size += len(message.get('body', b''))
            is_complete = not message.get('more_body', False)
            if size > self.settings.max_bytes:
                raise HTTPException(413, self._too_long(size))
            return message

        return limited


async def read_upload(request: Request) -> bytes:
    """The first file of a form, or else the whole body.

    Raises:
        HTTPException: If the form has no file, or the body is empty.
    """
    if request.headers.get('content-type', '').lower().startswith('multipart/form-data'):
        async with request.form(max_files=1) as form:
            files = [value for value in form.values() if isinstance(value, UploadFile)]
            if not files:
                raise HTTPException(
                    400, 'the form contains no file: send the image as a file, curl -F image=@photo.jpg'
                )
            content = await files[0].read()
    else:
        content = await request.body()
    if not content:
        raise HTTPException(400, 'the upload is empty: send an image, curl --data-binary @photo.jpg')
    return content


def check_images(uploads: list[bytes] | list[np.ndarray]) -> int:
    """Check kinds and sizes of images by their headers.

    Args:
        uploads: Contents of image files, or pixels (H, W, 3).

    Returns:
        Number of pixels of all images.

    Raises:
        HTTPException: If one is not an image or has too many pixels.
    """
    return sum(math.prod(_size(image)) for image in uploads)


def _size(image: bytes | np.ndarray) -> tuple[int, int]:
    if isinstance(image, np.ndarray):
        return image.shape[1], image.shape[0]
    try:
        with images.open_header(io.BytesIO(image), FORMATS) as header:
            size = header.size
    except OSError:
        known = f'{", ".join(FORMATS[:-1])} or {FORMATS[-1]}'
        raise HTTPException(415, f'the upload of {len(image):,} bytes is not an image: send {known}') from None
    try:
        images.check_size(*size)
    except UserError as error:
        raise HTTPException(413, str(error)) from None
    return size


def load_image(predictor: Predictor, image: bytes | np.ndarray) -> LoadedImage:
    """Decode an image that passed :func:`check_images`.

    Args:
        predictor: The model that will predict it.
        image: Content of an image file, or pixels (H, W, 3) uint8 RGB.

    Raises:
        HTTPException: If it is corrupt.
    """
    try:
        return predictor.load(image)
    except UserError:
        if isinstance(image, np.ndarray):
            raise
        with images.open_header(io.BytesIO(image), FORMATS) as header:
            kind = header.format
        text = f'the {kind} image of {len(image):,} bytes is corrupt or incomplete: send it again'
        raise HTTPException(400, text) from None
