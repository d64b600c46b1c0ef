"""Reproduce the published tables: see mogacore/cli/reproduce.py."""

from mogacore.cli.reproduce import main
from mogacore.errors import run

if __name__ == '__main__':
    run(main)
