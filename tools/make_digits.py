"""Write the embedded digits as data sets for every task: see mogacore/datasets/digits.py for what comes out."""

import argparse
from pathlib import Path

from mogacore.cli import run
from mogacore.datasets.digits import PARTS, write_digits


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    default_root = Path(__file__).resolve().parents[1] / 'data' / 'digits'
    parser.add_argument('--root', type=Path, default=default_root, help='folder that gets one folder for each part')
    parser.add_argument('--parts', nargs='+', default=list(PARTS), metavar='PART', help='any of ' + ', '.join(PARTS))
    parser.add_argument('--num-train-scenes', type=int, default=2000, help='number of training scenes')
    parser.add_argument('--num-val-scenes', type=int, default=100, help='number of validation scenes')
    parser.add_argument('--num-sequences', type=int, default=200, help='number of moving sequences')
    parser.add_argument('--seed', type=int, default=0, help='seed of scenes and sequences')
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    for part, counts in write_digits(**vars(args)).items():
        print(f'{args.root / part}: ' + ', '.join(f'{count} {name}' for name, count in counts.items()))


if __name__ == '__main__':
    run(main)
