"""The command that serves exported models."""

from __future__ import annotations

import argparse
import os
from dataclasses import fields
from importlib.util import find_spec

from mogacore import opencv
from mogacore.errors import UserError, refuse_unused
from mogacore.images import LIMIT_VARIABLE
from mogacore.runtime.arguments import add_backend_arguments, backend_settings
from mogacore.runtime.predictor import Predictor

from .loading import load_predictors
from .settings import Settings

MAX_PIXELS = 50_000_000  # 150 MB when decoded
# Import name -> name for pip.
PACKAGES = {
    'fastapi': 'fastapi', 'fastapi_offline': 'fastapi-offline', 'multipart': 'python-multipart',
    'prometheus_client': 'prometheus-client', 'uvicorn': 'uvicorn',
}  # fmt: skip


# Flags of :class:`Settings`.
LIMITS = {
    'max_batch': 'largest number of images predicted together',
    'max_delay_ms': 'longest time that an image waits for others',
    'max_queue': 'largest number of requests at a time, others get status 503',
    'body_timeout_s': 'longest time that a client may take to send a body',
    'grace_s': 'longest time to finish running requests after SIGTERM',
}


def require(packages: dict[str, str]) -> None:
    """Check that packages are installed.

    Args:
        packages: Name for pip by import name.

    Raises:
        UserError: If one is missing.
    """
    missing = [name for module, name in packages.items() if find_spec(module) is None]
    if missing:
        raise UserError(f'this command also needs {", ".join(missing)}: run pip install {" ".join(packages.values())}')


def add_model_arguments(parser: argparse.ArgumentParser, port: int, max_bytes: int) -> None:
    """Add the flags that the server and the demo page share.

    Args:
        parser: Parser to extend.
        port: Default port.
        max_bytes: Default size of the largest upload.
    """
    parser.add_argument(
        'models', metavar='MODEL', nargs='+',
        help='exported files, .onnx or .xml; NAME=FILE sets the name of a model, by default that of its file',
    )  # fmt: skip
    parser.add_argument(
        '--host', default='127.0.0.1', help='address to listen on; default 127.0.0.1, this machine only; 0.0.0.0: all'
    )
    parser.add_argument('--port', type=int, default=port, help=f'port; 0 takes a free one; default {port}')
    add_backend_arguments(parser)
    parser.add_argument('--max-bytes', type=int, default=max_bytes, help=f'largest upload; default {max_bytes:,}')
    parser.add_argument(
        '--max-pixels', type=int, help=f'largest image; default: ${LIMIT_VARIABLE}, or else {MAX_PIXELS:,}'
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of :func:`serve`."""
    add_model_arguments(parser, port=8000, max_bytes=Settings.max_bytes)
    for name, meaning in LIMITS.items():
        default = getattr(Settings, name)
        parser.add_argument(f'--{name.replace("_", "-")}', type=type(default), help=f'{meaning}; default {default:g}')
    parser.add_argument('--access-log', action='store_true', help='log each request')


def load_models(args: argparse.Namespace) -> dict[str, Predictor]:
    """Load the models that the flags of :func:`add_model_arguments` name.

    Raises:
        UserError: If a setting or a file cannot be used, or no model has a threshold.
    """
    predictors = load_predictors(args.models, **backend_settings(args))
    if not any(one.has_threshold for one in predictors.values()):
        refuse_unused({'--score-thr': args.score_thr}, f'on models for {_tasks(predictors)}')
    return predictors


def _tasks(predictors: dict[str, Predictor]) -> str:
    return ', '.join(sorted({one.task for one in predictors.values()}))


def limit_pixels(max_pixels: int | None) -> None:
    """Set the limit that all of mogacore obeys; None keeps that of the environment, or sets ``MAX_PIXELS``.

    Raises:
        UserError: If the limit is below 1.
    """
    if max_pixels is not None and max_pixels < 1:
        raise UserError(f'--max-pixels {max_pixels} is out of range: use 1 or more')
    if max_pixels or not os.environ.get(LIMIT_VARIABLE, '').strip():
        os.environ[LIMIT_VARIABLE] = str(max_pixels or MAX_PIXELS)
    opencv.set_log_level(opencv.SILENT)  # corrupt images are reported to their sender


def serve(args: argparse.Namespace) -> None:
    """Load models and serve them until SIGTERM or Ctrl-C.

    Args:
        args: Flags of :func:`add_arguments`.

    Raises:
        UserError: If a package is missing, or a setting, a model or the address cannot be used.
    """
    require(PACKAGES)
    from .app import create_app
    from .metrics import Metrics
    from .server import address, bind, run_app

    given = {one.name: getattr(args, one.name) for one in fields(Settings)}
    settings = Settings(**{name: value for name, value in given.items() if value is not None})
    limit_pixels(args.max_pixels)
    with bind(args.host, args.port) as sock:
        predictors = load_models(args)
        if all(one.batch_limit == 1 for one in predictors.values()):
            for_batches = {'--max-batch': args.max_batch, '--max-delay-ms': args.max_delay_ms}
            refuse_unused(for_batches, 'on files that take one image at a time')
        shown = ', '.join(f'{name} ({one.task})' for name, one in predictors.items())
        greeting = f'serving {shown} on {address(sock)}, documentation at {address(sock)}/docs'
        metrics = Metrics()
        run_app(create_app(predictors, settings, metrics), sock, greeting, settings.grace_s, args.access_log)
    print(f'stopped after {metrics.num_answered()} requests', flush=True)
