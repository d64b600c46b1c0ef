"""Run inference on images or videos, or predict the next video frames: writes drawings and a JSON file.

An exported file takes the place of CONFIG and CHECKPOINT, with flags of its own: mogacore infer net.onnx --help.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mogacore.runtime.arguments import add_score_threshold, add_source_arguments

from .arguments import add_cfg_options, add_launcher, make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('config', help='config, by path or short name')
    parser.add_argument('checkpoint', help='weight file; every key must fit the model')
    add_source_arguments(parser, nargs='*', default=', and the default is its test set')
    parser.add_argument(
        '--detector', nargs=2, metavar=('CONFIG', 'CHECKPOINT'), help='for poses: a detector that finds the objects'
    )
    parser.add_argument(
        '--save-features', action='store_true',
        help='write the pooled backbone features of each image to features.npy, their images to features.json',
    )  # fmt: skip
    add_score_threshold(parser)
    add_cfg_options(parser)
    add_launcher(parser)
    parser.add_argument('--device', help='torch device; default: a GPU if there is one')


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, predict, and print the output folder."""
    from mogacore.runtime.backends import SUFFIXES

    argv = sys.argv[1:] if argv is None else argv
    if any(Path(word).suffix in SUFFIXES and '=' not in word for word in argv):  # values of --cfg-options have a =
        _infer_exported(argv, prog)
        return
    from mogacore.inference.predictor import infer

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_intermixed_args(argv)  # options may stand before the inputs
    if len(args.source) < 2:
        args.source = next(iter(args.source), None)
    records = infer(**vars(args))
    if records:  # in the first process of a launcher
        print(f'{len(records)} predictions in {args.out_dir}: predictions.json and drawings')


def _infer_exported(argv: list[str], prog: str | None) -> None:
    from mogacore.runtime.command import add_infer_arguments, infer

    parser = make_parser('Predict with an exported file, without torch: writes drawings and a JSON file.', prog)
    add_infer_arguments(parser)
    infer(parser.parse_args(argv))
