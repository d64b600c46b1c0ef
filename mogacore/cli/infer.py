"""Predict images, videos, or the next frames of videos: drawings and a JSON file."""

from __future__ import annotations

import argparse

from .arguments import add_cfg_options, make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('config', help='config, by path or short name')
    parser.add_argument('checkpoint', help='weight file; every key must fit the model')
    parser.add_argument(
        'source', metavar='input', nargs='?',
        help='an image, a video, or a folder of them; default, for a video predictor only: its test set',
    )  # fmt: skip
    parser.add_argument('--out-dir', required=True, help='folder for predictions.json and the drawings')
    parser.add_argument(
        '--boxes', metavar='FILE',
        help='for poses: boxes of the objects, as predictions.json of a detector or COCO annotations; default: the '
        'whole image',
    )  # fmt: skip
    parser.add_argument('--box-class', metavar='NAME', help='with --boxes: only those of this class, e.g. person')
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='lowest score of objects that are reported and keypoints that are drawn; default 0.3',
    )
    parser.add_argument(
        '--num-sequences', type=int, default=8, metavar='N', help='for video predictors: how many at most; default 8'
    )
    add_cfg_options(parser)
    parser.add_argument('--device', help='torch device; default: a GPU if there is one')


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, predict, and print where the predictions are."""
    from mogacore.inference.predictor import infer

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    records = infer(**vars(args))
    print(f'{len(records)} predictions in {args.out_dir}: predictions.json and drawings')
