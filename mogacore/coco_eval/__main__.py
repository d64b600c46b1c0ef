"""Write the replacements for xtcocotools and pycocotools into this environment."""

from __future__ import annotations

import argparse

from ..errors import run
from . import install


def main(argv: list[str] | None = None) -> None:
    """Parse, install, and print the outcome for each package."""
    parser = argparse.ArgumentParser(prog='python -m mogacore.coco_eval', description=__doc__)
    parser.add_argument('--install', action='store_true', required=True, help='write the packages')
    parser.parse_args(argv)
    for package, outcome in install().items():
        print(f'{package}: {outcome}')


if __name__ == '__main__':
    run(main)
