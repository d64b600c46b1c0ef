"""Convert any weight file safely to .safetensors or .pth, and optionally rename its keys."""

from __future__ import annotations

import argparse

from .arguments import make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    from mogacore.checkpoint import LAYOUTS

    parser.add_argument('source', help='weight file of any kind: path, URL, or name, e.g. mogacore://moganet_small')
    parser.add_argument('target', help='file to write: .safetensors, or .pth, which keeps both raw and EMA weights')
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        '--ema', action='store_true', default=None, help="take the EMA weights; default: the file's state_dict"
    )
    choice.add_argument('--raw', dest='ema', action='store_false', help='take the raw weights, not the EMA ones')
    parser.add_argument('--to', choices=LAYOUTS, help='key names of classification weights; default: unchanged')
    parser.add_argument('--force', action='store_true', help='replace the target if it exists')


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, convert, and print what was read and written."""
    from mogacore.checkpoint import convert

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    facts = convert(args.source, args.target, args.ema, args.to, args.force)
    print(f'read {args.source}: {facts["container"]}, {facts["tensors"]} tensors, took the {facts["set"]} set')
    print(f'wrote {args.target}: names {args.to or "unchanged"}, other set kept: {facts["kept"]}')
    if facts['left_out'] != 'none':
        print(f'left out, since they are no tensors: {facts["left_out"]}')
