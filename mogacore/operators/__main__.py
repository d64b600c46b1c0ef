"""``python -m mogacore.operators``: say whose operators mmcv runs with; ``--install`` writes ours into mmcv first."""

import argparse

from . import in_use, install


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog='python -m mogacore.operators', description='Operators of the installed mmcv.'
    )
    parser.add_argument(
        '--install', action='store_true', help='write mmcv/_ext.py for the tools of mmdet and others, if not compiled'
    )
    if parser.parse_args(argv).install:
        path = install()
        if path is not None:
            print(f'wrote {path}')
    print(f'mmcv operators: {in_use() or "none, mmcv is not installed"}')


if __name__ == '__main__':
    main()
