"""mogacore-runtime SUBCOMMAND: use exported models on images and videos, without torch."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from mogacore.errors import UserError, refuse_unused, run
from mogacore.version import __version__

from .arguments import add_backend_arguments, add_source_arguments, backend_settings


def add_infer_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand infer."""
    parser.add_argument('model', help='exported file, .onnx or .xml')
    add_source_arguments(parser, nargs='+')
    parser.add_argument('--detector', metavar='FILE', help='for poses: an exported detector that finds the objects')
    add_backend_arguments(parser)


def infer(args: argparse.Namespace) -> None:
    """Predict, and print the output folder."""
    from .predictor import Predictor
    from .topdown import TopDown

    settings = backend_settings(args)
    source = args.source if len(args.source) > 1 else args.source[0]
    tiles = {'tile': args.tile}
    if args.tile is None:
        refuse_unused({'--tile-overlap': args.tile_overlap}, 'without --tile')
    elif args.tile_overlap is not None:
        tiles['tile_overlap'] = args.tile_overlap
    if args.detector is None:
        model = Predictor(args.model, **tiles, **settings)
        if not model.has_threshold:
            refuse_unused({'--score-thr': args.score_thr}, f'on a model for {model.task}')
        records = model.infer(source, args.out_dir, args.boxes, args.box_class, args.num_sequences, resume=args.resume)
    elif args.boxes is not None:
        raise UserError('--detector and --boxes exclude each other: omit one')
    else:
        refuse_unused({'--num-sequences': args.num_sequences}, 'with --detector')
        detector = Predictor(args.detector, **tiles, **settings)
        top_down = TopDown(detector, args.model, args.box_class, **settings)
        records = top_down.infer(source, args.out_dir, resume=args.resume)
    print(f'{len(records)} predictions in {args.out_dir}: predictions.json and drawings')


def _add_infer(subparsers) -> None:
    parser = subparsers.add_parser('infer', help='predict images and videos: drawings and a JSON file')
    add_infer_arguments(parser)
    parser.set_defaults(function=infer)


def _add_serve(subparsers) -> None:
    from .serve import add_arguments, serve

    parser = subparsers.add_parser('serve', help='answer requests over HTTP')
    add_arguments(parser)
    parser.set_defaults(function=serve)


def _add_demo(subparsers) -> None:
    from .demo import add_arguments, demo

    parser = subparsers.add_parser('demo', help='show a page where images and videos are dropped')
    add_arguments(parser)
    parser.set_defaults(function=demo)


def make_parser() -> argparse.ArgumentParser:
    """Create the parser of all subcommands."""
    parser = argparse.ArgumentParser(prog='mogacore-runtime', description=__doc__)
    parser.add_argument('--version', action='version', version=f'mogacore-runtime {__version__}')
    subparsers = parser.add_subparsers(metavar='SUBCOMMAND', required=True)
    _add_infer(subparsers)
    _add_serve(subparsers)
    _add_demo(subparsers)
    return parser


def _run(argv: list[str]) -> int | None:
    args = make_parser().parse_args(argv)
    return args.function(args)


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command and exit; a user error is one line and exit code 2."""
    run(_run, sys.argv[1:] if argv is None else argv)
