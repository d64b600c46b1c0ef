"""Predict images and videos: see mogacore/cli/infer.py."""

from mogacore.cli.infer import main
from mogacore.errors import run

if __name__ == '__main__':
    run(main)
