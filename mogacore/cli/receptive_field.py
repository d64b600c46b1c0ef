"""Measure receptive fields, and how much each order of the convolutions contributes.

A model is [LABEL=]NAME[@CHECKPOINT], as for tools/interactions.py.
"""

from __future__ import annotations

import argparse

from .arguments import make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('models', nargs='+', metavar='MODEL', help='[LABEL=]NAME[@CHECKPOINT]')
    parser.add_argument('--out-dir', required=True, help='folder for receptive_field.png and .json, and orders.png')
    parser.add_argument('--data', metavar='CONFIG', help='config whose images models without a config use')
    parser.add_argument('--num-images', type=int, default=16, metavar='N', help='default %(default)s')
    parser.add_argument('--size', type=int, metavar='PX', help='scale the images to this height; default: as they are')
    parser.add_argument('--layer', help='layer whose central cell is measured; default: the last map of the backbone')
    parser.add_argument('--device', help='torch device; default: a GPU if there is one')


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, measure, and print the side lengths of the receptive field."""
    from mogacore.analysis import receptive_field
    from mogacore.analysis.classifiers import parse_models

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    report = receptive_field.run(
        parse_models(args.models), args.out_dir, args.data, args.num_images, args.size, args.layer, args.device
    )
    for label, model in report['models'].items():
        sides = ', '.join(f'{float(share):.0%} within {side:g} px' for share, side in model['side'].items())
        print(f'{label}, {model["layer"]}, images of {" x ".join(map(str, model["size"]))}: {sides}')
    print(f'{args.out_dir}: receptive_field.json and drawings')
