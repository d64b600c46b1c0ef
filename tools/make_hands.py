"""Write the data set hands: see mogacore/cli/data.py."""

from mogacore.cli.data import hands as main
from mogacore.errors import run

if __name__ == '__main__':
    run(main)
