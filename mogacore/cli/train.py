"""Train any config on one CPU core, one GPU, or many."""

from __future__ import annotations

import argparse

from .arguments import add_run_arguments, make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('config', help='config, by path or short name, e.g. classification/moganet-xtiny_digits')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints; default: work_dirs/CONFIG_NAME')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from the newest checkpoint of the work dir (auto), or from this file',
    )
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument(
        '--precision', choices=('fp32', 'bf16', 'fp16'), help="numerical precision; default: the config's"
    )
    precision.add_argument(
        '--amp',
        dest='precision',
        action='store_const',
        const='amp',
        help='train in mixed precision: bfloat16 unless the config says float16',
    )
    precision.add_argument('--no-amp', dest='precision', action='store_const', const='fp32', help='train in fp32')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate from the recipe's batch size to the real one",
    )
    parser.add_argument('--seed', type=int, help="random seed; default: the config's randomness.seed")
    parser.add_argument(
        '--track',
        action='append',
        default=[],
        choices=('tensorboard', 'wandb', 'mlflow'),
        help='also log to this tracker, in WORK_DIR/trackers; may be repeated',
    )
    parser.add_argument('--dry-run', action='store_true', help='check config, flags, model, and data if any, then exit')
    add_run_arguments(parser)


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse and train."""
    from mogacore.engine.runner import dry_run, train

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = vars(parser.parse_args(argv))
    if args.pop('dry_run'):
        print(dry_run(**args))
    else:
        train(**args)
