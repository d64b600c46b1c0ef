"""Parameters and multiply-adds of a config's model, by part."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from .arguments import make_parser

if TYPE_CHECKING:
    from mogacore.analysis.complexity import Part


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('config', nargs='+', help='config, by path or short name; several need --markdown')
    parser.add_argument(
        '--shape',
        nargs='+',
        type=int,
        metavar='N',
        help="C H W, or T C H W for video; default: the config's input_shape",
    )
    parser.add_argument('--json', action='store_true', help='print JSON instead of a table')
    parser.add_argument('--markdown', action='store_true', help='one row per config, next to the published figures')


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, count, and print."""
    from mogacore.analysis.complexity import compare, complexity
    from mogacore.engine.config import load_config

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    if len(args.config) > 1 and not args.markdown:
        parser.error('several configs need --markdown, which prints them as one table')
    if args.markdown:
        print(compare(args.config))
        return
    (config,) = args.config
    cfg = load_config(config)
    parts = complexity(cfg, args.shape)
    shape = list(args.shape or cfg.input_shape)
    total = {'params': sum(part.params for part in parts), 'macs': sum(part.macs for part in parts)}
    if args.json:
        report = {'config': config, 'input_shape': shape, **total}
        report['parts'] = {part.name: {'params': part.params, 'macs': part.macs} for part in parts}
        print(json.dumps(report, indent=2))
    else:
        _print_table(f'{config} at {" x ".join(map(str, shape))}', parts, total)


def _print_table(title: str, parts: list[Part], total: dict[str, int]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table('part', title=title, min_width=60)
    table.add_column('parameters', justify='right')
    table.add_column('GMACs', justify='right')
    for part in parts:
        table.add_row(part.name, f'{part.params:,}', f'{part.macs / 1e9:,.2f}')
    table.add_section()
    table.add_row('total', f'{total["params"]:,}', f'{total["macs"] / 1e9:,.2f}')
    Console(width=120).print(table)
