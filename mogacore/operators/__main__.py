"""``python -m mogacore.operators``: print which operators mmcv uses; ``--install`` first writes ours into mmcv."""

import argparse

from . import in_use, install


def main(argv: list[str] | None = None) -> None:
    """Parse, install if asked to, and print which operators mmcv uses."""
    parser = argparse.ArgumentParser(
        prog='python -m mogacore.operators', description='Print which operators the installed mmcv uses.'
    )
    parser.add_argument(
        '--install',
        action='store_true',
        help='first write mmcv/_ext.py, unless mmcv is compiled',
    )
    if parser.parse_args(argv).install:
        path = install()
        if path is not None:
            print(f'wrote {path}')
    print(f'mmcv operators: {in_use() or "none, mmcv is not installed"}')


if __name__ == '__main__':
    main()
