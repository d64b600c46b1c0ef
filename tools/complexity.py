"""Parameters and multiply-adds of a config's model, by part."""

import argparse
import json

from mogacore.cli import run


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', nargs='+', help='config file; several with --markdown')
    parser.add_argument(
        '--shape',
        nargs='+',
        type=int,
        metavar='N',
        help="C H W, or T C H W of a video; default: the config's input_shape",
    )
    parser.add_argument('--json', action='store_true', help='print JSON instead of a table')
    parser.add_argument('--markdown', action='store_true', help='one row a config, beside the published figures')
    args = parser.parse_args(argv)
    if len(args.config) > 1 and not args.markdown:
        parser.error('several configs go into one table: add --markdown')
    return args


def main(argv=None):
    from mogacore.analysis.complexity import compare, complexity
    from mogacore.engine.config import load_config

    args = parse_args(argv)
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
        print_table(f'{config} at {" x ".join(map(str, shape))}', parts, total)


def print_table(title, parts, total):
    from rich.console import Console
    from rich.table import Table

    table = Table('part', title=title, min_width=60)
    table.add_column('parameters', justify='right')
    table.add_column('GMACs', justify='right')
    for part in parts:
        table.add_row(part.name, f'{part.params:,}', f'{part.macs / 1e9:,.2f}')
    table.add_section()
    table.add_row('whole', f'{total["params"]:,}', f'{total["macs"] / 1e9:,.2f}')
    Console(width=120).print(table)


if __name__ == '__main__':
    run(main)
