"""Show where a model errs: an HTML report from the predictions of a test.

First test with --save-predictions FILE. The report has the confusion matrix, average precision and IoU of each class,
curves of precision and recall, calibration, errors by joint, and the best and worst images with truth and prediction.
"""

from __future__ import annotations

import argparse

from mogacore.runtime.arguments import add_score_threshold

from .arguments import add_cfg_options, make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('config', help='config of the test, by path or short name')
    parser.add_argument('predictions', help='file that mogacore test --save-predictions wrote')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for report.html and report.json')
    parser.add_argument(
        '--num-images',
        type=int,
        default=12,
        metavar='N',
        help='best and worst images to draw; default %(default)s each',
    )
    add_score_threshold(parser)
    add_cfg_options(parser)


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, analyze, and print the scores."""
    from mogacore.analysis.errors.run import analyze

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    report = analyze(args.config, args.predictions, args.out, args.cfg_options, args.num_images, args.score_thr)
    print(', '.join(f'{name} {value:.4g}' for name, value in report['scores'].items() if value == value))
    for note in report['notes']:
        print(f'note: {note}')
    print(f'written to {args.out}: report.html, report.json')
