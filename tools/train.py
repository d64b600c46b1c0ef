"""Train any model of configs/ on one core, one GPU, or many."""

import argparse

from mogacore.cli import add_run_arguments, run
from mogacore.engine.runner import dry_run, train


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, e.g. configs/classification/moganet-xtiny_digits.py')
    parser.add_argument('--work-dir', help='folder of logs and checkpoints; default: work_dirs/CONFIG_NAME')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from the newest checkpoint of the work dir (auto), or from this file',
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision (bfloat16 where possible)')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate from the recipe batch to the real one'
    )
    parser.add_argument('--seed', type=int, help="seed of the run; default: the config's randomness.seed")
    parser.add_argument('--dry-run', action='store_true', help='check config, flags and model, and stop: needs no data')
    add_run_arguments(parser)
    return parser.parse_args(argv)


def main(argv=None):
    args = vars(parse_args(argv))
    if args.pop('dry_run'):
        print(dry_run(**args))
    else:
        train(**args)


if __name__ == '__main__':
    run(main)
