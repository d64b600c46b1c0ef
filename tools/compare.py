"""Train backbones side by side: see mogacore/cli/compare.py."""

from mogacore.cli.compare import main
from mogacore.errors import run

if __name__ == '__main__':
    run(main)
