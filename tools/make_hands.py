"""Write synthetic hands as FreiHAND and as InterHand2.6M: see mogacore/datasets/hands.py for what comes out."""

import argparse
from pathlib import Path

from mogacore.cli import run
from mogacore.datasets.hands import PARTS, write_hands


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    default_root = Path(__file__).resolve().parents[1] / 'data' / 'hands'
    parser.add_argument('--root', type=Path, default=default_root, help='folder that gets one folder for each part')
    parser.add_argument('--parts', nargs='+', default=list(PARTS), metavar='PART', help='any of ' + ', '.join(PARTS))
    parser.add_argument('--num-train', type=int, default=2500, help='number of training pictures of each part')
    parser.add_argument('--num-test', type=int, default=200, help='number of pictures of each held-out split')
    parser.add_argument('--seed', type=int, default=0, help='seed of everything')
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    for part, counts in write_hands(**vars(args)).items():
        print(f'{args.root / part}: ' + ', '.join(f'{count} {name}' for name, count in counts.items()))


if __name__ == '__main__':
    run(main)
