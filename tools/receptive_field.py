"""Measure receptive fields: see mogacore/cli/receptive_field.py."""

from mogacore.cli.receptive_field import main
from mogacore.errors import run

if __name__ == '__main__':
    run(main)
