"""Train backbones side by side from scratch on a small data set, with an equal search of the learning rate.

Writes WORK_DIR/comparison.json, .md and .png. Runs that have ended are not run again: the same command goes on.
"""

import argparse
import json
from pathlib import Path

from mogacore.cli import run

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'classification'
EPOCHS = {'digits': 4, 'fashion-mnist': 10}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('dataset', choices=EPOCHS, help='data set; its configs are configs/classification/*_DATASET.py')
    parser.add_argument('--only', nargs='+', metavar='BACKBONE', help='config names up to the data set; default: all')
    parser.add_argument('--epochs', type=int, help='passes over the training set; default: ' + str(EPOCHS))
    parser.add_argument('--images', type=int, metavar='N', help='train on the first N images alone; default: on all')
    parser.add_argument('--rates', nargs='+', type=float, metavar='LR', help='learning rates to try; default: three')
    parser.add_argument('--seeds', nargs='+', type=int, metavar='S', help='seeds of the final runs; default: 0 1 2')
    parser.add_argument('--jobs', type=int, default=1, help='trainings at a time')
    parser.add_argument('--threads', type=int, default=1, help='threads of each on a CPU')
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/comparison_DATASET')
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from mogacore.errors import UserError
    from mogacore.files import write_whole
    from mogacore.zoo import compare as comparison

    configs = sorted(CONFIGS.glob(f'*_{args.dataset}.py'))
    if args.only:
        configs = [path for path in configs if path.stem.rpartition('_')[0] in args.only]
        if len(configs) < len(args.only):
            raise UserError(f'--only {" ".join(args.only)}: choose from {", ".join(backbones(args.dataset))}')
    work_dir = args.work_dir or Path('work_dirs') / f'comparison_{args.dataset}'
    epochs = args.epochs or EPOCHS[args.dataset]
    seeds, rates = tuple(args.seeds or comparison.SEEDS), tuple(args.rates or comparison.RATES)
    console = Console(width=140)
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task('trainings')
        rows = comparison.compare(
            configs, work_dir, epochs, rates, seeds, args.jobs, args.threads, args.images,
            lambda done, total, name: bar.update(task, completed=done, total=total, description=name),
        )  # fmt: skip
    facts = comparison.report(
        rows, dataset=args.dataset, images=args.images, epochs=epochs, seeds=seeds, searched=rates, jobs=args.jobs,
        threads=args.threads,
    )  # fmt: skip
    write_whole(work_dir / 'comparison.json', (json.dumps(facts, indent=2) + '\n').encode())
    write_whole(work_dir / 'comparison.md', (comparison.markdown(rows) + '\n').encode())
    size = f'{args.images} images of ' if args.images else ''
    title = f'{size}{args.dataset}, {epochs} epochs from scratch, {len(seeds)} seeds'
    comparison.draw(rows, title, work_dir / 'comparison.png')
    console.print(comparison.markdown(rows), soft_wrap=True)
    console.print(f'written to {work_dir}: comparison.json, comparison.md, comparison.png')


def backbones(dataset):
    """Names for --only."""
    return [path.stem.rpartition('_')[0] for path in sorted(CONFIGS.glob(f'*_{dataset}.py'))]


if __name__ == '__main__':
    run(main)
