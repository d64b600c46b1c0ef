"""Measure multi-order interactions: how much context two image patches need to interact.

A model is [LABEL=]NAME[@CHECKPOINT], where NAME is a classification config (with a checkpoint), a name of create_model,
timm:NAME or torchvision:NAME (with @pretrained for that library's weights; untrained without a checkpoint). All models
see the same images and random draws. Repeating the command resumes an interrupted run.
"""

from __future__ import annotations

import argparse
import dataclasses

from .arguments import add_launcher, make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand; the help ends with the presets."""
    from mogacore.analysis.interactions import PRESETS, SCORES, SELECTIONS

    presets = '\n'.join(
        f'  {name:10} {s.images} images, {s.pairs} pairs, {s.contexts} contexts, grid {s.grid}; {s.split} data, '
        f'{s.selection}; {s.images * s.passes():,} passes per model'
        for name, s in PRESETS.items()
    )
    parser.epilog = f'presets:\n{presets}'
    parser.add_argument('models', nargs='+', metavar='MODEL', help='[LABEL=]NAME[@CHECKPOINT]')
    parser.add_argument('--out-dir', default='work_dirs/interactions', help='folder of the run; default %(default)s')
    parser.add_argument('--preset', choices=PRESETS, default='smoke', help='default %(default)s')
    parser.add_argument('--data', metavar='CONFIG', help='config whose images models without a config use')
    for name, meaning in (
        ('images', 'images'),
        ('pairs', 'pairs of cells per image'),
        ('contexts', 'contexts per pair and order'),
        ('grid', 'cells along each side'),
        ('radius', 'largest offset between the cells of a pair'),
        ('seed', 'random seed'),
        ('batch-size', 'masked images per forward pass'),
    ):
        parser.add_argument(f'--{name}', type=int, metavar='N', help=f'{meaning}; default: from the preset')
    parser.add_argument('--ratios', nargs='+', type=float, metavar='R', help='orders, as fractions of the largest')
    parser.add_argument('--score', choices=SCORES, help='score of the class; default log-odds')
    parser.add_argument(
        '--selection', choices=SELECTIONS,
        help='images: those that all models classify correctly, any, or with replacement; default: from the preset',
    )  # fmt: skip
    parser.add_argument('--split', choices=('train', 'test'), help='split of the data set; default: from the preset')
    parser.add_argument('--indices', nargs='+', type=int, metavar='N', help='use the images with these indices instead')
    parser.add_argument('--device', help='torch device; default: a GPU if there is one')
    add_launcher(parser)
    parser.add_argument(
        '--measure', action='store_true', help='only time masked against plain forward passes, interleaved'
    )


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, measure, and print the strength of each order."""
    from mogacore.analysis import interactions
    from mogacore.analysis.classifiers import open_classifiers, parse_models

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(interactions.Settings)}
    given = {name: tuple(value) if name == 'ratios' else value for name, value in given.items() if value is not None}
    settings = dataclasses.replace(interactions.PRESETS[args.preset], **given)
    specs = parse_models(args.models)
    if args.measure:
        for classifier in open_classifiers(specs, args.data, settings.split, args.device):
            speed = interactions.measure_masking(classifier, settings)
            print(
                f'{classifier.spec.label}: {speed["plain"]:.1f} images/s plain, {speed["masked"]:.1f} masked, '
                f'ratio {speed["ratio"]:.3f}, quartiles {speed["quartiles"][0]:.3f} .. {speed["quartiles"][1]:.3f}, '
                f'by processor time {speed["cpu_ratio"]:.3f}'
            )
        return
    found = interactions.run(specs, settings, args.out_dir, args.data, args.indices, args.device, args.launcher)
    if found is None:  # not rank 0
        return
    width = max(map(len, found['models']))
    print(f'{"order":{width}} ' + ' '.join(f'{order:6}' for order in found['orders']))
    for label, model in found['models'].items():
        print(f'{label:{width}} ' + ' '.join(f'{value:6.3f}' for value in model['strength']))
        print(f'{"  +-":{width}} ' + ' '.join(f'{value:6.3f}' for value in model['strength_error']))
    print(f'{args.out_dir}: interactions.png, .json and .npz')
