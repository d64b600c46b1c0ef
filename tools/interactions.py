"""Measure multi-order interactions: see mogacore/cli/interactions.py."""

from mogacore.cli.interactions import main
from mogacore.errors import run

if __name__ == '__main__':
    run(main)
