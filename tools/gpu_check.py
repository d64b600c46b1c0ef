"""Check MogaNet on a GPU: see mogacore/cli/gpu_check.py."""

from mogacore.cli.gpu_check import main
from mogacore.errors import run

if __name__ == '__main__':
    run(main)
