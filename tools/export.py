"""Export a network to ONNX or OpenVINO: see mogacore/cli/export.py."""

from mogacore.cli.export import main
from mogacore.errors import run

if __name__ == '__main__':
    run(main)
