"""Pack folders of images into tar shards or LMDB, which training reads like the folders.

A folder with "annotations", or with folders for training and validation, is packed folder by folder; annotation files
are copied. See docs/data.md.
"""

from __future__ import annotations

import argparse
import os
import re

from .arguments import make_parser

UNITS = {'': 1, 'K': 10**3, 'M': 10**6, 'G': 10**9}


def bytes_of(text: str) -> int:
    """Number of bytes of a size such as 500M or 1G; units are powers of 1,000.

    Raises:
        argparse.ArgumentTypeError: If it is not a size of at least one byte.
    """
    match = re.fullmatch(r'(\d+(?:\.\d+)?)([KMG]?)B?', text.upper())
    if not match or float(match[1]) * UNITS[match[2]] < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a size: give a number such as 500M or 1G')
    return int(float(match[1]) * UNITS[match[2]])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('source', help='folder of images, class folders or a data set; with --index, a packed folder')
    parser.add_argument('out', nargs='?', help='folder to write')
    parser.add_argument('--format', choices=('shards', 'lmdb'), default='shards', help='default %(default)s')
    parser.add_argument(
        '--shard-size', type=bytes_of, default='1G', metavar='SIZE', help='largest size of a shard; default %(default)s'
    )
    parser.add_argument(
        '--workers', type=int, default=min(8, os.cpu_count() or 1), metavar='N', help='processes; default %(default)s'
    )
    parser.add_argument('--skip-unreadable', action='store_true', help='leave out images that cannot be decoded')
    parser.add_argument(
        '--index', action='store_true', help='only index existing shards, such as those of webdataset, or LMDB'
    )


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, pack and print what was written."""
    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    if args.workers < 1:
        parser.error('--workers must be at least 1')
    if bool(args.out) == args.index:
        parser.error('give OUT, or --index without OUT')
    from mogacore.packing import pack, write_index

    if args.index:
        lines = write_index(args.source, args.workers)
    else:
        lines = pack(args.source, args.out, args.format, args.shard_size, args.workers, args.skip_unreadable)
    print('\n'.join(lines))
