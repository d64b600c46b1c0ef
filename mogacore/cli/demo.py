"""Show a page in the browser where images and videos are dropped, and exported models predict and draw them."""

from __future__ import annotations

import argparse

from .arguments import make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand, those of mogacore-runtime."""
    from mogacore.runtime import demo

    demo.add_arguments(parser)


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, and show the page until a signal."""
    from mogacore.runtime.demo import demo

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    demo(parser.parse_args(argv))
