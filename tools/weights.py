"""List and fetch published weight files: see mogacore/cli/weights.py."""

from mogacore.cli.weights import main
from mogacore.errors import run

if __name__ == '__main__':
    run(main)
