"""Draw the training curves of several work dirs into one figure."""

import argparse
from pathlib import Path

from mogacore.cli import run


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dirs', nargs='+', metavar='[LABEL=]DIR', help='work dir of a training')
    parser.add_argument('--out', default='curves.png', help='picture file to write; default %(default)s')
    parser.add_argument(
        '--keys', nargs='+', metavar='NAME', help='scalars, a panel each; default: the loss and those of the validation'
    )
    parser.add_argument(
        '--smooth', type=float, default=0.0, metavar='F',
        help='weight of the past in a moving average, below 1; the values as logged stay, faint',
    )  # fmt: skip
    return parser.parse_args(argv)


def main(argv=None):
    from mogacore.analysis.curves import plot

    args = parse_args(argv)
    pairs = [text.partition('=') for text in args.work_dirs]
    work_dirs = [(label, work_dir) if is_pair else (Path(label).name, label) for label, is_pair, work_dir in pairs]
    for label, values in plot(work_dirs, args.out, args.keys, args.smooth).items():
        print(f'{label}: ' + ', '.join(f'{name} {value:.4g}' for name, value in values.items()))
    print(args.out)


if __name__ == '__main__':
    run(main)
