"""The command that shows the demo page."""

from __future__ import annotations

import argparse
import os
import tempfile

from mogacore.errors import UserError
from mogacore.runtime.serve.command import add_model_arguments, limit_pixels, load_models, require

PACKAGES = {'gradio': 'gradio', 'uvicorn': 'uvicorn'}
FONTS = ('system-ui', 'sans-serif'), ('ui-monospace', 'monospace')
GRACE_S = 2  # open pages keep their connections
NO_NETWORK = {'GRADIO_ANALYTICS_ENABLED': 'False', 'HF_HUB_OFFLINE': '1', 'HF_HUB_DISABLE_TELEMETRY': '1'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of :func:`demo`."""
    add_model_arguments(parser, port=7860, max_bytes=200_000_000)
    parser.add_argument(
        '--max-frames', type=int, default=300, metavar='N', help='predict the first N frames of a video; default 300'
    )


def demo(args: argparse.Namespace) -> None:
    """Load models and show the page until SIGTERM or Ctrl-C; nothing is requested from other hosts.

    Args:
        args: Flags of :func:`add_arguments`.

    Raises:
        UserError: If a package is missing, or a setting, a model or the address cannot be used.
    """
    require(PACKAGES)
    for name in ('max_frames', 'max_bytes'):
        if getattr(args, name) < 1:
            raise UserError(f'--{name.replace("_", "-")} {getattr(args, name)} is out of range: use 1 or more')
    limit_pixels(args.max_pixels)
    os.environ.update(NO_NETWORK)  # gradio reads them when imported
    from mogacore.runtime.serve.server import address, bind, run_app

    with bind(args.host, args.port) as sock, tempfile.TemporaryDirectory() as folder:
        os.environ['GRADIO_TEMP_DIR'] = folder
        import gradio
        from fastapi import FastAPI

        from .page import create_page

        predictors = load_models(args)
        theme = gradio.themes.Default(font=FONTS[0], font_mono=FONTS[1])
        page = create_page(predictors, args.max_frames)
        app = gradio.mount_gradio_app(
            FastAPI(), page, path='/', theme=theme, max_file_size=args.max_bytes, footer_links=[], ssr_mode=False,
            enable_monitoring=False,
        )  # fmt: skip
        run_app(app, sock, f'demo of {", ".join(predictors)} on {address(sock)}', GRACE_S)
    print('stopped', flush=True)
