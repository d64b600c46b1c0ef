"""Test a weight file: see mogacore/cli/test.py."""

from mogacore.cli.test import main
from mogacore.errors import run

if __name__ == '__main__':
    run(main)
