"""Test a weight file with any config."""

from __future__ import annotations

import argparse

from .arguments import add_run_arguments, make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('config', help='config, by path or short name')
    parser.add_argument('checkpoint', help='weight file; every key must fit the model')
    parser.add_argument('--work-dir', help='folder for logs; default: work_dirs/CONFIG_NAME')
    parser.add_argument('--out', help='write the metrics to this JSON file')
    parser.add_argument('--show-dir', help='folder for drawings of the predictions')
    parser.add_argument(
        '--save-predictions',
        metavar='FILE',
        dest='predictions',
        help='write the predictions to this .jsonl or .jsonl.gz file, for mogacore analyze',
    )
    parser.add_argument(
        '--tta', action='store_true', help='test-time augmentation: average several views of each image'
    )
    add_run_arguments(parser)


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse and test."""
    from mogacore.engine.runner import test

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    test(**vars(parser.parse_args(argv)))
