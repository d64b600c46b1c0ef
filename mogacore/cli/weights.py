"""List published weight files by name, or download them for mogacore://NAME."""

from __future__ import annotations

import argparse
from fnmatch import fnmatchcase

from .arguments import make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('names', nargs='*', metavar='NAME', help='name or pattern, e.g. "retinanet_*"; default: all')
    parser.add_argument('--fetch', action='store_true', help='download them; without this flag no network is used')
    parser.add_argument('--folder', help="download folder; default: torch's cache")


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, download if requested, and print one line per file."""
    from mogacore.checkpoint import cached_path, fetch, official_address, recorded
    from mogacore.published import official_weights

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    if args.fetch and not args.names:
        parser.error('--fetch needs a name')
    addresses = official_weights()
    found = {name: url for name, url in addresses.items() if not args.names}
    for pattern in args.names:
        matching = {name: url for name, url in addresses.items() if fnmatchcase(name, pattern)}
        found |= matching or {pattern: official_address(pattern)}  # its error suggests the nearest names
    for name, url in found.items():
        if args.fetch:
            path = fetch(url, args.folder)
            print(f'{name}: {path}, sha256 {recorded(path)}')
        else:
            path = cached_path(url, args.folder)
            print(f'{name}: {url}' + (f' (cached: {path})' if path.exists() else ''))
