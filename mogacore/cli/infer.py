"""Run inference on images or videos, or predict the next video frames: writes drawings and a JSON file."""

from __future__ import annotations

import argparse

from .arguments import add_cfg_options, make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('config', help='config, by path or short name')
    parser.add_argument('checkpoint', help='weight file; every key must fit the model')
    parser.add_argument(
        'source', metavar='input', nargs='?',
        help='an image, a video, or a folder of them; for a video predictor, a folder of numbered frames is one '
        'video, and the default is its test set',
    )  # fmt: skip
    parser.add_argument('--out-dir', required=True, help='folder for predictions.json and the drawings')
    parser.add_argument(
        '--boxes', metavar='FILE',
        help='for poses: object boxes, from a detector\'s predictions.json or COCO annotations; default: the '
        'whole image',
    )  # fmt: skip
    parser.add_argument('--box-class', metavar='NAME', help='with --boxes: use boxes of this class only, e.g. person')
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='minimum score of reported objects and drawn keypoints; default 0.3',
    )
    parser.add_argument(
        '--num-sequences',
        type=int,
        default=8,
        metavar='N',
        help='for video predictors: maximum number of sequences; default 8',
    )
    add_cfg_options(parser)
    parser.add_argument('--device', help='torch device; default: a GPU if there is one')


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, predict, and print the output folder."""
    from mogacore.inference.predictor import infer

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    records = infer(**vars(args))
    print(f'{len(records)} predictions in {args.out_dir}: predictions.json and drawings')
