"""Train any model of configs/: see mogacore/cli/train.py."""

from mogacore.cli.train import main
from mogacore.errors import run

if __name__ == '__main__':
    run(main)
