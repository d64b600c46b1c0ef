"""Count parameters and multiply-adds: see mogacore/cli/complexity.py."""

from mogacore.cli.complexity import main
from mogacore.errors import run

if __name__ == '__main__':
    run(main)
