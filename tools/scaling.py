"""Model the throughput of many GPUs: see mogacore/cli/scaling.py."""

from mogacore.cli.scaling import main
from mogacore.errors import run

if __name__ == '__main__':
    run(main)
