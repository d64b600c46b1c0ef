"""Write the bundled data sets: handwritten digits for every task, or synthetic hands."""

from __future__ import annotations

import argparse
from pathlib import Path

from mogacore.locations import data_folder

from .arguments import make_parser

DIGITS = 'Write the bundled digits as data sets for every task: mogacore/datasets/digits.py describes the files.'
HANDS = 'Write synthetic hands as FreiHAND and as InterHand2.6M: mogacore/datasets/hands.py describes the files.'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the name of the data set; :func:`digits` and :func:`hands` parse the other arguments."""
    parser.add_argument('data', choices=WRITERS, help='data set to write; each has its own --help')
    parser.add_argument('arguments', nargs=argparse.REMAINDER, metavar='...', help='its arguments')


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Write the data set that the first argument names."""
    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    WRITERS[args.data](args.arguments, f'{parser.prog} {args.data}')


def digits(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Write the digits, and print what was written."""
    from mogacore.datasets.digits import PARTS, write_digits

    parser = _make_parser(DIGITS, prog, 'digits', PARTS)
    parser.add_argument('--num-train-scenes', type=int, default=2000, help='training scenes; default %(default)s')
    parser.add_argument('--num-val-scenes', type=int, default=100, help='validation scenes; default %(default)s')
    parser.add_argument('--num-sequences', type=int, default=200, help='moving sequences; default %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='random seed of scenes and sequences; default %(default)s')
    args = parser.parse_args(argv)
    _print(args.root, write_digits(**vars(args)))


def hands(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Write the hands, and print what was written."""
    from mogacore.datasets.hands import PARTS, write_hands

    parser = _make_parser(HANDS, prog, 'hands', PARTS)
    parser.add_argument('--num-train', type=int, default=2500, help='training images of each part; default %(default)s')
    parser.add_argument('--num-test', type=int, default=200, help='images of each held-out split; default %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='random seed; default %(default)s')
    args = parser.parse_args(argv)
    _print(args.root, write_hands(**vars(args)))


WRITERS = {'digits': digits, 'hands': hands}


def _make_parser(description: str, prog: str | None, name: str, parts: tuple[str, ...]) -> argparse.ArgumentParser:
    parser = make_parser(description, prog, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        '--root', type=Path, default=data_folder(name), help='output folder, with one subfolder per part'
    )
    parser.add_argument('--parts', nargs='+', default=list(parts), metavar='PART', help='any of ' + ', '.join(parts))
    return parser


def _print(root: Path, written: dict[str, dict[str, int]]) -> None:
    for part, counts in written.items():
        print(f'{root / part}: ' + ', '.join(f'{count} {name}' for name, count in counts.items()))
