"""Time networks side by side: see mogacore/cli/benchmark.py."""

from mogacore.cli.benchmark import main
from mogacore.errors import run

if __name__ == '__main__':
    run(main)
