"""Publish a training: weights without optimizer state, config, metrics and a model card in one folder.

The weights are those that the run validated: the average of a run with EMA. Their file name ends in the first eight
digits of its SHA-256. --average publishes the mean of several checkpoints, whose batch norm statistics are recomputed
on the training data.
"""

from __future__ import annotations

import argparse

from .arguments import make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('run', help='work dir of the training')
    parser.add_argument('out', help='folder to create')
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        '--checkpoint', default='best', help='best, last or a file; default: best, or last in a run without a best one'
    )
    choice.add_argument(
        '--average', nargs='+', metavar='N|FILE', help='the N newest checkpoints of the run, or these files'
    )
    parser.add_argument(
        '--format',
        dest='file_format',
        choices=('pth', 'safetensors'),
        default='pth',
        help='format of the weights; default: %(default)s',
    )
    parser.add_argument('--license', dest='license_id', default='apache-2.0', help='for the card; default: %(default)s')
    parser.add_argument('--device', help='torch device for --average; default: a GPU if there is one')


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, publish, and print the files."""
    from mogacore.engine.devices import choose_device
    from mogacore.zoo.publish import publish

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = vars(parser.parse_args(argv))
    averaged = args.pop('average')
    choose_device(args['device'])
    if averaged is not None and len(averaged) == 1 and averaged[0].isdecimal():
        averaged = int(averaged[0])
    item = publish(averaged=averaged, **args)
    scores = ', '.join(f'{name} {value:.4g}' for name, value in item.scores.items()) or 'not measured'
    print(f'{args["out"]}: {item.file}, {item.name}.py, metrics.json, README.md; scores: {scores}')
