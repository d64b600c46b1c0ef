"""Convert a weight file: see mogacore/cli/convert.py."""

from mogacore.cli.convert import main
from mogacore.errors import run

if __name__ == '__main__':
    run(main)
