"""Plot the training curves of several work dirs in one figure."""

from __future__ import annotations

import argparse
from pathlib import Path

from mogacore.locations import labels

from .arguments import make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('work_dirs', nargs='+', metavar='[LABEL=]DIR', help='work dir of a training')
    parser.add_argument('--out', default='curves.png', help='image file to write; default %(default)s')
    parser.add_argument(
        '--keys',
        nargs='+',
        metavar='NAME',
        help='scalars, one panel each; default: loss and validation metrics',
    )
    parser.add_argument(
        '--smooth', type=float, default=0.0, metavar='F',
        help='decay of an exponential moving average, below 1; the raw values stay visible, faint',
    )  # fmt: skip


def split_label(text: str) -> tuple[str, str]:
    """Split ``[LABEL=]DIR``; a folder that exists takes precedence over splitting at the first ``=``."""
    readings = list(labels(text))
    return next((reading for reading in readings if Path(reading[1]).is_dir()), readings[:2][-1])


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, draw, and print the last values."""
    from mogacore.analysis.curves import plot

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    pairs = [split_label(text) for text in args.work_dirs]
    work_dirs = [(label or Path(work_dir).name, work_dir) for label, work_dir in pairs]
    for label, values in plot(work_dirs, args.out, args.keys, args.smooth).items():
        print(f'{label}: ' + ', '.join(f'{name} {value:.4g}' for name, value in values.items()))
    print(args.out)
