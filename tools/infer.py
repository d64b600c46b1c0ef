"""Predict pictures and videos, or what follows in videos, with a trained model: drawings and a JSON file."""

import argparse

from mmengine.config import DictAction

from mogacore.cli import run
from mogacore.inference.predictor import infer


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='weight file; every key must fit the model')
    parser.add_argument(
        'source', metavar='input', nargs='?',
        help='a picture, a video, or a folder of them; a video predictor may do without, and takes its test set',
    )  # fmt: skip
    parser.add_argument('--out-dir', required=True, help='folder for predictions.json and the drawings')
    parser.add_argument(
        '--boxes', metavar='FILE',
        help='for poses: where the objects are, as predictions.json of a detector or COCO annotations; default: the '
        'whole picture',
    )  # fmt: skip
    parser.add_argument('--box-class', metavar='NAME', help='with --boxes: only those of this class, e.g. person')
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='score from which objects are told and keypoints drawn; default 0.3',
    )
    parser.add_argument(
        '--num-sequences', type=int, default=8, metavar='N', help='for video predictors: how many at most; default 8'
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='settings over the config, key=value')
    parser.add_argument('--device', help='torch device; default: a GPU if there is one')
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    records = infer(**vars(args))
    print(f'{len(records)} predictions in {args.out_dir}: predictions.json and drawings')


if __name__ == '__main__':
    run(main)
