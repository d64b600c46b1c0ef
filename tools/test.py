"""Test a weight file with any config of configs/."""

import argparse

from mogacore.cli import add_run_arguments, run
from mogacore.engine.runner import test


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='weight file; every key must fit the model')
    parser.add_argument('--work-dir', help='folder of the logs; default: work_dirs/CONFIG_NAME')
    parser.add_argument('--out', help='write the metrics to this JSON file')
    parser.add_argument('--show-dir', help='draw the predictions into this folder')
    parser.add_argument('--tta', action='store_true', help='average over several views of each image')
    add_run_arguments(parser)
    return parser.parse_args(argv)


def main(argv=None):
    test(**vars(parse_args(argv)))


if __name__ == '__main__':
    run(main)
