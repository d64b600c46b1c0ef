"""Report statistics of a config's data: counts by class, sizes of boxes and images, problems, copies.

The exit code is 1 if training would refuse the data.
"""

from __future__ import annotations

import argparse
import json

from .arguments import add_cfg_options, make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('config', help='config: path or short name')
    parser.add_argument('--split', nargs='+', choices=('train', 'val', 'test'), help='default: all of the config')
    parser.add_argument('--out', metavar='DIR', help='folder for stats.json and pictures')
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.add_argument(
        '--check', choices=('sample', 'full'), default='sample',
        help='files to read: as many as about 20 seconds per split allow, or all; default %(default)s',
    )  # fmt: skip
    add_cfg_options(parser)


def main(argv: list[str] | None = None, prog: str | None = None) -> int:
    """Parse, collect and print; return 1 if there are problems, else 0."""
    from mogacore.analysis.stats import statistics
    from mogacore.analysis.stats.table import format_report

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    result = statistics(args.config, args.split, args.out, args.check, args.cfg_options)
    print(json.dumps(result, indent=2) if args.json else format_report(result))
    return int(any(report['problems'] for report in result['splits'].values()))
