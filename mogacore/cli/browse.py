"""Draw random samples of a config's data as the network gets them: after every augmentation, with the annotations.

Writes one row per sample to sheet.png, the image as it is loaded beside its augmented versions, each image to a file of
its own, and browse.json.
"""

from __future__ import annotations

import argparse

from .arguments import add_cfg_options, make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('config', help='config: path or short name')
    parser.add_argument('--out', required=True, metavar='DIR', help='output folder')
    parser.add_argument('--num', type=int, default=6, help='number of samples; default %(default)s')
    parser.add_argument(
        '--versions', type=int, help='versions of each; default: 4 if they are augmented at random, else 1'
    )
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train', help='default %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='seed of samples and augmentations; default %(default)s')
    parser.add_argument('--steps', action='store_true', help='also draw each sample after each transform')
    add_cfg_options(parser)


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, draw, and print what was written."""
    from mmengine.logging import MMLogger

    from mogacore.analysis.browse import browse

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    MMLogger.get_current_instance().setLevel('WARNING')  # the model is not the subject
    records = browse(
        args.config, args.out, args.split, args.num, args.versions, args.seed, args.steps, args.cfg_options
    )
    print(f'{args.out}: sheet.png, browse.json and the images of {len(records)} samples')
