"""Write a config for a folder of your own data: recognize, check and convert its labels.

Formats: COCO JSON, YOLO text files, Pascal VOC XML, LabelMe JSON, class folders, and folders of images and class maps.
The files in DIR are not changed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import make_parser

TASKS = ('detection', 'instance', 'segmentation', 'classification', 'pose')
FORMATS = ('coco', 'yolo', 'voc', 'labelme', 'folders', 'masks')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('folder', metavar='DIR', type=Path, help='folder of images and labels')
    parser.add_argument(
        '--task', choices=TASKS, required=True, help='boxes, boxes with masks, class maps, image classes, or keypoints'
    )
    parser.add_argument('--config', metavar='RECIPE', help='config to start from; default: a small one for the task')
    parser.add_argument('--out', metavar='CONFIG.py', type=Path, help='config to write; default: the name of DIR')
    parser.add_argument('--data-out', type=Path, help='folder for converted labels; default: DIR/mogacore')
    parser.add_argument('--format', choices=FORMATS, help='format of the labels; default: the one that is recognized')
    parser.add_argument('--classes', nargs='+', metavar='NAME', help='classes to use, in this order; default: all')
    parser.add_argument(
        '--val-fraction',
        type=float,
        default=0.2,
        help='fraction of the training images that becomes the validation split if there is none; default: 0.2',
    )
    parser.add_argument('--seed', type=int, default=0, help='random seed of the split; default: 0')
    parser.add_argument('--batch-size', type=int, help='images per batch; default: that of the task')
    parser.add_argument(
        '--weights', help="weights of the backbone, as a file or name, or 'none'; default: the published ones"
    )
    parser.add_argument('--force', action='store_true', help='replace the files of an earlier call')


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, write, and print what was found and written."""
    from mogacore.init_data import Options, init_data

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    for line in init_data(Options(**vars(parser.parse_args(argv)))):
        print(line)
