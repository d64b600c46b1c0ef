"""Features of images from a backbone: write them, and evaluate them with nearest neighbors and a linear probe."""

from __future__ import annotations

import argparse

from .arguments import add_cfg_options, make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('config', help='config, by path or short name')
    parser.add_argument('checkpoint', help='weight file; every key must fit the model')
    parser.add_argument('source', metavar='input', nargs='*', help='images, folders of them, or patterns; for --out')
    parser.add_argument('--split', choices=('train', 'val', 'test'), help='data set of the config; for --out')
    parser.add_argument('--out', metavar='FILE', help='.npy, with names and labels in a .json file, or .parquet')
    evaluation = parser.add_argument_group("evaluation on the config's training and validation images")
    evaluation.add_argument('--knn', action='store_true', help='accuracy of the votes of the nearest training images')
    evaluation.add_argument('--k', type=int, default=20, help='number of neighbors; default 20')
    evaluation.add_argument(
        '--temperature', type=float, default=0.07,
        help='votes are weighted with exp(cosine similarity / temperature); default 0.07',
    )  # fmt: skip
    evaluation.add_argument(
        '--linear-probe', action='store_true', help='accuracy of a logistic regression on the features'
    )
    evaluation.add_argument('--show', metavar='PNG', help='draw validation images with their nearest training images')
    add_cfg_options(parser)
    parser.add_argument('--device', help='torch device; default: a GPU if there is one')


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, compute, and print the accuracies and the files."""
    from mogacore.inference.embeddings import compute_features

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_intermixed_args(argv)  # options may stand before the inputs
    report = compute_features(**vars(args))
    print(', '.join(f'{name}: {number} images' for name, number in report['images'].items()))
    if 'knn' in report:
        print(f'k-NN accuracy (k={args.k}, temperature {args.temperature:g}): {100 * report["knn"]:.2f} %')
    if 'linear_probe' in report:
        print(f'linear probe accuracy: {100 * report["linear_probe"]:.2f} %')
    for path in report['written']:
        print(f'{path} written')
