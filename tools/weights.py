"""Published weight files by name: list them, or fetch some into torch's cache, where mogacore://NAME finds them."""

import argparse
from fnmatch import fnmatchcase

from mogacore.cli import run


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('names', nargs='*', metavar='NAME', help='name or pattern such as "retinanet_*" to list')
    parser.add_argument('--fetch', action='store_true', help='fetch them; only then is the network used')
    parser.add_argument('--folder', help="folder to fetch into; default: torch's cache")
    args = parser.parse_args(argv)
    if args.fetch and not args.names:
        parser.error('--fetch needs a name')
    return args


def main(argv=None):
    from mogacore.checkpoint import cached_path, fetch, official_address, recorded
    from mogacore.published import official_weights

    args = parse_args(argv)
    addresses = official_weights()
    found = {name: url for name, url in addresses.items() if not args.names}
    for pattern in args.names:
        matching = {name: url for name, url in addresses.items() if fnmatchcase(name, pattern)}
        found |= matching or {pattern: official_address(pattern)}  # which says what is near
    for name, url in found.items():
        if args.fetch:
            path = fetch(url, args.folder)
            print(f'{name}: {path}, sha256 {recorded(path)}')
        else:
            path = cached_path(url, args.folder)
            print(f'{name}: {url}' + (f' (here: {path})' if path.exists() else ''))


if __name__ == '__main__':
    run(main)
