"""The published tables beside what this code gives, and what it takes to fill them.

Parameters and multiply-adds are computed now from the configs; accuracies are read from the work dirs, where trainings
and tests left them. Tasks: classification, mixup, object-detection, instance-segmentation, semantic-segmentation, pose,
face-3d, hand-3d, video-prediction; a row goes by its id, several by a pattern such as 'det-*'.
"""

import argparse
import logging
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from mogacore.cli import run

ROOT = Path(__file__).resolve().parents[1]


def parse_args(argv=None):
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('rows', nargs='*', metavar='TASK', help='task or row; default: all')
    parser.add_argument('--baselines', action='store_true', help='also the rows of other networks')
    parser.add_argument('--work-dirs', type=Path, default=Path('work_dirs'), help='folder of trainings and tests')
    parser.add_argument('--markdown', type=Path, metavar='FILE', help='write the tables to this file')
    parser.add_argument('--csv', type=Path, metavar='FILE', help='write the rows to this file')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the rows to this file')
    parser.add_argument('--plot', type=Path, metavar='FILE', help='draw accuracy over size into this PNG')
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument('--plan', action='store_true', help='print what each missing row needs, and its command')
    actions.add_argument('--submit', action='store_true', help='queue the missing rows as Slurm jobs')
    actions.add_argument(
        '--evaluate', type=Path, metavar='WEIGHTS_DIR', help='test every published weight file in this folder'
    )
    actions.add_argument(
        '--write', action='store_true', help='write model-index.yml, the metafiles and docs/model_zoo.md anew'
    )
    parser.add_argument('--partition', default='PARTITION', help='of the Slurm jobs')
    parser.add_argument('--gpus', type=int, help='GPUs of each job; default: those of the recipe')
    parser.add_argument(
        '--benchmark', type=Path, metavar='FILE', help='JSON of tools/benchmark.py --mode train, for hours'
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='settings over every config, key=value')
    args = parser.parse_args(argv)
    if args.submit and args.partition == 'PARTITION':
        parser.error('--submit needs --partition')
    return args


def main(argv=None):
    args = parse_args(argv)
    from mmengine.logging import MMLogger

    MMLogger.get_instance(
        'mmengine', log_level='WARNING'
    )  # of building a model, the libraries tell what is of no use here
    logging.getLogger('mmengine').setLevel(logging.WARNING)
    from rich.console import Console

    from mogacore.zoo import reproduce

    console = Console(width=None if sys.stdout.isatty() else 180)
    results = reproduce.select(args.rows, args.baselines)
    if args.write:
        write(console)
    elif args.evaluate is not None:
        return evaluate(args, results, console)
    elif args.plan or args.submit:
        plan(args, results, console)
    else:
        table(args, results, console)
    return None


def table(args, results, console):
    from mogacore.files import write_whole
    from mogacore.zoo import reproduce

    rows = computed(results, args.work_dirs)
    for task in dict.fromkeys(row.result.task for row in rows):
        console.print(task_table(task, [row for row in rows if row.result.task == task]))
    console.print(reproduce.summary(rows), highlight=False)
    for path, text in (
        (args.markdown, reproduce.to_markdown),
        (args.csv, reproduce.to_csv),
        (args.json, lambda rows: json_text(reproduce.records(rows))),
    ):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, text(rows).encode())
    if args.plot:
        reproduce.draw(rows, args.plot)


def computed(results, work_dirs):
    """The rows, with a bar on the terminal while they are computed."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from mogacore.zoo import reproduce

    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task('sizes', total=len(results))
        return reproduce.reproduce(
            results, ROOT / 'configs', work_dirs, lambda name: bar.update(task, advance=1, description=name)
        )


def task_table(task, rows):
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
            if gap is not None:
                colour = 'red' if reproduce.is_worse(name, gap) else 'green'
                ours.append(f'{name} {row.measured.metrics[name]:.4g} [{colour}]{gap:+.2g}[/]')
        grid.add_row(
            result.id,
            f'[bold]{result.model}[/] {reproduce.setting(result)}',
            result.params_m, amount(row.params, 1e6), percent(row.params_deviation, reproduce.PARAMS_TOLERANCE, row),
            result.gmacs, amount(row.macs, 1e9), percent(row.macs_deviation, reproduce.MACS_TOLERANCE, row),
            result.measures, ', '.join(ours), reproduce.remark(row),
        )  # fmt: skip
    return grid


def amount(value, unit):
    return '' if value is None else f'{value / unit:.2f}'


def percent(value, tolerance, row):
    """A relative difference: green within the tolerance, yellow by rounding or a known reason, red else."""
    if value is None:
        return ''
    excused = row.agrees or row.result.exception
    colour = 'green' if abs(value) <= tolerance else 'yellow' if excused else 'red'
    return f'[{colour}]{value:+.1%}[/]'


def json_text(content):
    import json

    return json.dumps(content, indent=2) + '\n'


def plan(args, results, console):
    from rich.markup import escape

    from mogacore.zoo.plan import HINT, missing_runs

    runs = missing_runs(
        results, ROOT, args.work_dirs, args.partition, args.gpus, args.benchmark, args.cfg_options or {}
    )
    for item in runs:
        if args.submit:
            submit(item, console)
            continue
        console.print(f'[bold]{escape(item.name)}[/]  for {", ".join(item.rows)}', highlight=False)
        for label, text in item.needs():
            console.print(f'  {label:9} {escape(text)}', highlight=False, soft_wrap=True)
        console.print(f'  {"run":9} {escape(item.command)}\n', highlight=False, soft_wrap=True)
    total = sum(item.hours for item in runs if item.hours is not None)
    if args.plan:
        done = len(results) - sum(len(item.rows) for item in runs)
        console.print(
            f'{len(runs)} trainings are missing, {total:,.0f} hours of their machines in all by measured step times; '
            f'{done} rows need none: measured, or without a config. {HINT}',
            highlight=False,
        )


def submit(item, console):
    """Queue a run, unless a job of its name is there."""
    queued = (
        subprocess.run(['squeue', '-h', '-o', '%j'], capture_output=True, text=True) if shutil.which('squeue') else None
    )
    if queued is not None and item.name in queued.stdout.split():
        console.print(f'{item.name}: is queued already', highlight=False)
        return
    environment, command = item.words
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, cwd=Path.cwd())
    if done.returncode:
        from mogacore.errors import UserError

        raise UserError(f'{shlex.join(command)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}')
    console.print(f'{item.name}: {done.stdout.strip()}', highlight=False)


def evaluate(args, results, console):
    from mogacore.zoo.evaluate import evaluate_folder

    return evaluate_folder(
        args.evaluate, results, ROOT / 'configs', args.work_dirs, args.cfg_options or {}, console.print
    )


def write(console):
    from mogacore.files import write_whole
    from mogacore.zoo import reproduce
    from mogacore.zoo.metafiles import metafiles, model_zoo_page

    rows = computed(reproduce.select(baselines=True), Path('work_dirs'))
    for name, text in {**metafiles(), 'docs/model_zoo.md': model_zoo_page(rows)}.items():
        write_whole(ROOT / name, text.encode())
        console.print(f'written: {name}', highlight=False)


if __name__ == '__main__':
    run(main)
