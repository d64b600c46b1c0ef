"""Compare the published tables with the results of this code, and plan the missing runs.

Parameters and multiply-adds are computed from the configs; accuracies are read from the work dirs of trainings and
tests. Tasks: classification, mixup, object-detection, instance-segmentation, semantic-segmentation, pose, face-3d,
hand-3d, video-prediction. Select rows by task, by id, by a pattern such as 'det-*', or by words of
method, model and data, such as 'UperNet MogaNet-S'.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mogacore.errors import UserError
from mogacore.locations import checkout, project

from .arguments import add_cfg_options, make_parser

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from mogacore.published import Result
    from mogacore.zoo.reproduce import Row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('rows', nargs='*', metavar='TASK', help='task or row; default: all')
    parser.add_argument('--baselines', action='store_true', help='include the rows of other networks')
    parser.add_argument('--work-dirs', type=Path, help='folder of trainings and tests; default: work_dirs')
    parser.add_argument('--markdown', type=Path, metavar='FILE', help='write the tables to this file')
    parser.add_argument('--csv', type=Path, metavar='FILE', help='write the rows to this file')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the rows to this file')
    parser.add_argument('--plot', type=Path, metavar='FILE', help='plot accuracy over size to this PNG')
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument('--plan', action='store_true', help='print command and requirements of each missing row')
    actions.add_argument('--submit', action='store_true', help='queue the missing rows as Slurm jobs')
    actions.add_argument(
        '--evaluate', type=Path, metavar='WEIGHTS_DIR', help='test every published weight file in this folder'
    )
    actions.add_argument(
        '--write', action='store_true', help='rewrite model-index.yml, the metafiles and docs/model_zoo.md'
    )
    parser.add_argument('--partition', default='PARTITION', help='Slurm partition of the jobs')
    parser.add_argument('--gpus', type=int, help='GPUs per job; default: as in the recipe')
    parser.add_argument(
        '--benchmark', type=Path, metavar='FILE', help='JSON of tools/benchmark.py --mode train, to estimate hours'
    )
    add_cfg_options(parser, 'every config')


def main(argv: list[str] | None = None, prog: str | None = None) -> int | None:
    """Parse and run the action, by default printing the tables. Returns 1 if a weight file could not be tested."""
    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    if args.submit and args.partition == 'PARTITION':
        parser.error('--submit needs --partition')
    from mmengine.logging import MMLogger
    from rich.console import Console

    from mogacore.files import check_outputs
    from mogacore.zoo import selection

    args.work_dirs = _work_dirs(args.work_dirs, is_written=args.evaluate is not None)
    check_outputs(args.markdown, args.csv, args.json, figure=args.plot)
    # Building models to count their parameters logs irrelevant lines.
    MMLogger.get_instance('mmengine', log_level='WARNING')
    logging.getLogger('mmengine').setLevel(logging.WARNING)
    console = Console(width=None if sys.stdout.isatty() else 180)
    results = selection.select(args.rows, args.baselines)
    if args.write:
        _write(args.work_dirs, console)
    elif args.evaluate is not None:
        from mogacore.zoo.evaluate import evaluate_folder

        return evaluate_folder(
            args.evaluate, results, project() / 'configs', args.work_dirs, args.cfg_options or {}, console.print
        )
    elif args.plan or args.submit:
        _plan(args, results, console)
    else:
        _tables(args, results, console)
    return None


def _work_dirs(given: Path | None, is_written: bool) -> Path:
    """The folder of trainings and tests; one that was given must exist, unless tests will be written to it."""
    if given is not None and not given.is_dir() and not is_written:
        raise UserError(f'--work-dirs {given} is not a folder: give that of the trainings and tests, or omit it')
    return given or Path('work_dirs')


def _tables(args: argparse.Namespace, results: list[Result], console: Console) -> None:
    from mogacore.files import write_text
    from mogacore.zoo import reproduce

    rows = _computed(results, args.work_dirs)
    for task in dict.fromkeys(row.result.task for row in rows):
        console.print(_task_table(task, [row for row in rows if row.result.task == task]))
    console.print(reproduce.summary(rows), highlight=False)
    for path, text in (
        (args.markdown, reproduce.to_markdown),
        (args.csv, reproduce.to_csv),
        (args.json, lambda rows: json.dumps(reproduce.records(rows), indent=2) + '\n'),
    ):
        if path:
            write_text(path, text(rows))
    if args.plot:
        reproduce.draw(rows, args.plot)


def _computed(results: list[Result], work_dirs: Path) -> list[Row]:
    """Compute the rows, with a progress bar on the terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from mogacore.zoo import reproduce

    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task('sizes', total=len(results))
        return reproduce.reproduce(
            results, project() / 'configs', work_dirs, lambda name: bar.update(task, advance=1, description=name)
        )


def _task_table(task: str, rows: list[Row]) -> Table:
    from rich.table import Table

    from mogacore.zoo import reproduce

    grid = Table('row', 'model and setting', title=task, title_justify='left', expand=True)
    for name in ('params M', 'ours', '', 'GMACs', 'ours', ''):
        grid.add_column(name, justify='right', no_wrap=True)
    for name in ('published', 'ours', 'remark'):
        grid.add_column(name)
    for row in rows:
        result, ours = row.result, []
        for name in result.metrics:
            gap = reproduce.difference(result, name, row.measured)
            if row.measured is not None and gap is not None:
                color = 'red' if reproduce.is_worse(name, gap) else 'green'
                ours.append(f'{name} {row.measured.metrics[name]:.4g} [{color}]{gap:+.2g}[/]')
        grid.add_row(
            result.id,
            f'[bold]{result.model}[/] {reproduce.setting(result)}',
            result.params_m, _amount(row.params, 1e6), _percent(row.params_deviation, reproduce.PARAMS_TOLERANCE, row),
            result.gmacs, _amount(row.macs, 1e9), _percent(row.macs_deviation, reproduce.MACS_TOLERANCE, row),
            result.measures, ', '.join(ours), reproduce.remark(row),
        )  # fmt: skip
    return grid


def _amount(value: int | None, unit: float) -> str:
    return '' if value is None else f'{value / unit:.2f}'


def _percent(value: float | None, tolerance: float, row: Row) -> str:
    """Relative difference: green within tolerance, yellow if explained by rounding or a known reason, red otherwise."""
    if value is None:
        return ''
    excused = row.agrees or row.result.exception
    color = 'green' if abs(value) <= tolerance else 'yellow' if excused else 'red'
    return f'[{color}]{value:+.1%}[/]'


def _plan(args: argparse.Namespace, results: list[Result], console: Console) -> None:
    from rich.markup import escape

    from mogacore.zoo.plan import HINT, Speed, missing_runs, submit

    runs = missing_runs(
        results, project(), args.work_dirs, args.partition, args.gpus, args.benchmark, args.cfg_options or {}
    )
    for item in runs:
        if args.submit:
            console.print(f'{item.name}: {submit(item)}', highlight=False)
            continue
        console.print(f'[bold]{escape(item.name)}[/]  for {", ".join(item.rows)}', highlight=False)
        for label, text in item.needs():
            console.print(f'  {label:9} {escape(text)}', highlight=False, soft_wrap=True)
        console.print(f'  {"run":9} {escape(item.command)}\n', highlight=False, soft_wrap=True)
    if args.plan:
        speed = Speed.load(args.benchmark)
        total = sum(item.hours for item in runs if item.hours is not None)
        where = 'on the GPUs of each' if speed.is_gpu else f'on one {speed.machine}'
        done = len(results) - sum(len(item.rows) for item in runs)
        console.print(
            f'{len(runs)} trainings are missing, {total:,.0f} hours in total {where}; '
            f'{done} rows need no training: already measured, or without a config. {HINT}',
            highlight=False,
        )


def _write(work_dirs: Path, console: Console) -> None:
    from mogacore.zoo import selection
    from mogacore.zoo.metafiles import write_all

    root = checkout()
    if root is None:
        raise UserError('--write needs a checkout, but mogacore is an installed package: pip install -e CHECKOUT')
    for name in write_all(root, _computed(selection.select(baselines=True), work_dirs)):
        console.print(f'written: {name}', highlight=False)
