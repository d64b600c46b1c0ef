"""Draw activation maps: see mogacore/cli/cam.py."""

from mogacore.cli.cam import main
from mogacore.errors import run

if __name__ == '__main__':
    run(main)
