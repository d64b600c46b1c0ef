"""Write the data set digits: see mogacore/cli/data.py."""

from mogacore.cli.data import digits as main
from mogacore.errors import run

if __name__ == '__main__':
    run(main)
