"""Serve exported models over HTTP: KServe's v2 protocol, POST /predict for an image, documentation at /docs.

Runs until SIGTERM or Ctrl-C, which finish the running requests. There is no encryption and no password: for other
machines than this one, put a proxy with both in front.
"""

from __future__ import annotations

import argparse

from .arguments import make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand, those of mogacore-runtime."""
    from mogacore.runtime import serve

    serve.add_arguments(parser)


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, and serve until a signal."""
    from mogacore.runtime.serve import serve

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    serve(parser.parse_args(argv))
