"""Draw training curves: see mogacore/cli/plots.py."""

from mogacore.cli.plots import main
from mogacore.errors import run

if __name__ == '__main__':
    run(main)
