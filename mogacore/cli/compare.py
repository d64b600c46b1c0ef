"""Train backbones side by side from scratch on a small data set.

Every backbone gets the same learning-rate search. Writes WORK_DIR/comparison.json, .md and .png. Repeating the command
resumes: completed runs are skipped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import make_parser

EPOCHS = {'digits': 4, 'fashion-mnist': 10}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('dataset', choices=EPOCHS, help='data set; uses configs/classification/*_DATASET.py')
    parser.add_argument('--only', nargs='+', metavar='BACKBONE', help='config names without the data set; default: all')
    defaults = ', '.join(f'{epochs} for {dataset}' for dataset, epochs in EPOCHS.items())
    parser.add_argument('--epochs', type=int, help=f'epochs of training; default: {defaults}')
    parser.add_argument('--images', type=int, metavar='N', help='train on the first N images only; default: on all')
    parser.add_argument('--rates', nargs='+', type=float, metavar='LR', help='learning rates to try; default: three')
    parser.add_argument('--seeds', nargs='+', type=int, metavar='S', help='seeds of the final runs; default: 0 1 2')
    parser.add_argument('--jobs', type=int, default=1, help='trainings that run in parallel; default %(default)s')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads per training; default %(default)s')
    parser.add_argument('--work-dir', type=Path, help='output folder; default: work_dirs/comparison_DATASET')


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, train with a progress bar, print the table, and write the report."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from mogacore.zoo import compare as comparison

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    configs = comparison.select(args.dataset, args.only)
    work_dir = args.work_dir or Path('work_dirs') / f'comparison_{args.dataset}'
    epochs = args.epochs if args.epochs is not None else EPOCHS[args.dataset]
    seeds, rates = tuple(args.seeds or comparison.SEEDS), tuple(args.rates or comparison.RATES)
    console = Console(width=140)
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task('trainings')
        rows = comparison.compare(
            configs, work_dir, epochs, rates, seeds, args.jobs, args.threads, args.images,
            lambda done, total, name: bar.update(task, completed=done, total=total, description=name),
        )  # fmt: skip
    comparison.write_report(
        rows, work_dir, dataset=args.dataset, images=args.images, epochs=epochs, seeds=seeds, searched=rates,
        jobs=args.jobs, threads=args.threads,
    )  # fmt: skip
    console.print(comparison.markdown(rows), soft_wrap=True)
    console.print(f'written to {work_dir}: comparison.json, comparison.md, comparison.png')
