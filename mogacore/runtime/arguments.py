"""Flags that the commands share."""

from __future__ import annotations

import argparse
from typing import Any


def add_source_arguments(parser: argparse.ArgumentParser, nargs: str, default: str = '') -> None:
    """Add the inputs and the flags of predictions that are written to a folder.

    Args:
        parser: Parser to extend.
        nargs: Number of inputs, '+' or '*'.
        default: What is predicted without inputs, as the end of the help of the inputs.
    """
    parser.add_argument(
        'source', metavar='input', nargs=nargs,
        help='images, videos, folders of them, patterns such as "photos/*.jpg", or .txt files with one of these on '
        f'each line; for a video predictor, a folder of numbered frames is one video{default}',
    )  # fmt: skip
    parser.add_argument('--out-dir', required=True, help='folder for predictions.json and the drawings')
    parser.add_argument(
        '--boxes', metavar='FILE',
        help='for poses: object boxes, from a detector\'s predictions.json or COCO annotations; default: the whole '
        'image',
    )  # fmt: skip
    parser.add_argument('--box-class', metavar='NAME', help='for poses: use boxes of this class only, e.g. person')
    parser.add_argument(
        '--tile',
        type=int,
        metavar='PIXELS',
        help='for large images: predict overlapping square tiles of this side, for detectors also --detector, and '
        'segmentation; default: whole images',
    )
    parser.add_argument(
        '--tile-overlap',
        type=float,
        metavar='FRACTION',
        help='smallest overlap of neighboring tiles as a fraction of a tile; default 0.25',
    )
    parser.add_argument(
        '--resume', action='store_true', help='continue the run in --out-dir that was stopped; without one, start'
    )
    parser.add_argument(
        '--num-sequences', type=int, metavar='N',
        help='for video predictors: maximum number of sequences; default 8',
    )  # fmt: skip


def add_score_threshold(parser: argparse.ArgumentParser) -> None:
    """Add the flag for the minimum score."""
    parser.add_argument(
        '--score-thr',
        type=float,
        help='minimum score of reported objects and drawn keypoints; default 0.3',
    )


def add_backend_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of what runs an exported file."""
    from .backends import PROVIDERS  # imports numpy, which help of other commands does not need

    parser.add_argument('--backend', default='auto', help='onnxruntime or openvino; default: the first that reads it')
    parser.add_argument(
        '--device', default='cpu', choices=tuple(PROVIDERS), help='default cpu; others need onnxruntime'
    )
    parser.add_argument('--threads', type=int, help='CPU threads per model; default: as the backend decides')
    add_score_threshold(parser)


def backend_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of :class:`mogacore.runtime.predictor.Predictor` from the flags of :func:`add_backend_arguments`."""
    settings = {'backend': args.backend, 'device': args.device, 'threads': args.threads}
    return settings if args.score_thr is None else {**settings, 'score_thr': args.score_thr}
