"""Show a config: every value with the file and line that sets it, its schedule, and its parameter groups.

Values are printed one per line as KEY = VALUE, in the notation of --cfg-options. Later files of the _base_ chain
override earlier ones; --cfg-options override all files.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from .arguments import add_cfg_options, make_parser

if TYPE_CHECKING:
    from mogacore.analysis.configs.entries import Entry
    from mogacore.analysis.configs.groups import Group
    from mogacore.analysis.configs.schedule import Schedule


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('config', help='config, by path or short name')
    parser.add_argument('keys', nargs='*', metavar='KEY', help='show only this, such as model.backbone; default: all')
    parser.add_argument('--out', metavar='FILE', help='write the whole resolved config to this .py file')
    parser.add_argument(
        '--plot', metavar='FILE', help='draw learning rate and weight decay over the training, and print them'
    )
    parser.add_argument(
        '--epoch-length', type=int, metavar='N', help='iterations of an epoch; default: those of the data, on one GPU'
    )
    parser.add_argument('--groups', action='store_true', help="list the optimizer's parameter groups")
    parser.add_argument('--json', action='store_true', help='print JSON')
    add_cfg_options(parser)


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, and print what was asked for; without --plot, --groups or --out, the values."""
    from mogacore.analysis.configs.entries import list_entries, write_config
    from mogacore.analysis.configs.groups import list_groups
    from mogacore.analysis.configs.schedule import plot_schedule, run_schedule
    from mogacore.engine.config import load_config
    from mogacore.errors import UserError

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_intermixed_args(argv)
    if args.epoch_length is not None and not args.plot:
        raise UserError(f'--epoch-length {args.epoch_length} is only for --plot: add --plot FILE, or omit it')
    with redirect_stdout(sys.stderr):  # where the libraries' log belongs, too
        cfg = load_config(args.config, args.cfg_options)
        entries, schedule, groups = None, None, None
        if args.keys or not (args.plot or args.groups or args.out):
            entries = list_entries(cfg, args.cfg_options, args.keys)
        if args.groups:
            groups = list_groups(load_config(args.config, args.cfg_options))
        if args.plot:
            schedule = run_schedule(load_config(args.config, args.cfg_options), args.cfg_options, args.epoch_length)
            plot_schedule(schedule, args.plot, args.config)
        if args.out:
            write_config(cfg, args.out)
    if args.json:
        report: dict = {'config': str(cfg.filename)}
        if entries is not None:
            report['values'] = [entry.as_json() for entry in entries]
        if groups is not None:
            report['groups'] = [group.as_json() for group in groups]
        if schedule is not None:
            report['schedule'] = schedule.as_json()
        print(json.dumps(report, indent=2))
        return
    if entries is not None:
        _print_entries(entries)
    if groups is not None:
        _print_groups(groups)
    if schedule is not None:
        _print_schedule(schedule)
    for path in filter(None, (args.out, args.plot)):
        print(path)


def _print_entries(entries: list[Entry]) -> None:
    lines = [f'{entry.key} = {entry.value!r}' for entry in entries]
    width = min(max(map(len, lines), default=0), 70)
    for line, entry in zip(lines, entries, strict=True):
        print(f'{line:{width}}  # {entry.origin}')


def _print_schedule(schedule: Schedule) -> None:
    names = list(schedule.values)
    print('  '.join([f'{schedule.unit:>10}', *(f'{name:>12}' for name in names)]))
    for step in schedule.rows():
        print('  '.join([f'{step:>10}', *(f'{schedule.values[name][step]:>12.4g}' for name in names)]))
    length = f', {schedule.epoch_length} iterations per epoch' if schedule.epoch_length else ''
    print(f'{schedule.num_steps:,} {schedule.unit}s{length}; rates are those of parameters without multipliers')
    for note in schedule.notes:
        print(f'note: {note}')


def _print_groups(groups: list[Group]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for title in ('tensors', 'parameters', 'lr x', 'lr', 'decay x', 'weight decay'):
        table.add_column(title, justify='right', no_wrap=True)
    table.add_column('such as')
    for group in groups:
        numbers = (group.lr_mult, group.lr, group.decay_mult, group.weight_decay)
        texts = ['' if number is None else f'{number:.4g}' for number in numbers]
        if group.lr is None:
            texts[1] = 'frozen'
        shown = ', '.join(dict.fromkeys((group.names[0], group.names[len(group.names) // 2], group.names[-1])))
        others = ''.join(f'; {key}={value}' for key, value in group.others.items())
        label = f'{group.optimizer}: ' if group.optimizer else ''
        table.add_row(f'{len(group.names)}', f'{group.num_params:,}', *texts, f'{label}{shown}{others}')
    Console(width=140, highlight=False).print(table)
