"""Export a trained network to ONNX, OpenVINO or torch.export's format, fused, and check the file.

The file takes RGB images, 0 to 255, as the test pipeline of the config resizes them, and gives the final result:
probabilities, boxes, a class map, keypoints or frames. Mean, standard deviation, padding and post-processing are
inside; class names and the steps of the test pipeline are in its metadata. Batch, height and width may vary where the
model allows.
"""

from __future__ import annotations

import argparse

from .arguments import add_cfg_options, make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('network', help='config, by path or short name, or a name of create_model, e.g. moganet_small')
    parser.add_argument('checkpoint', help='weight file; every key must fit the model')
    parser.add_argument(
        'out', nargs='+', help='files to write: .onnx; .xml for OpenVINO, with its .bin in the same folder; .pt2'
    )
    parser.add_argument(
        '--shape',
        nargs='+',
        type=int,
        metavar='N',
        help='fix the size of images: C H W, or T C H W for video; with the batch size first, fix it as well; default: '
        'they may vary',
    )
    parser.add_argument(
        '--input',
        choices=('uint8', 'float32'),
        default='uint8',
        dest='dtype',
        help='type of the images, 0 to 255 in both; default uint8; videos are always float32',
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument('--raw', action='store_true', help='outputs of the network, without post-processing')
    output.add_argument('--features', action='store_true', help='maps of the backbone')
    parser.add_argument('--triton', metavar='DIR', help='also add the .onnx file to this model repository for Triton')
    parser.add_argument('--num-classes', type=int, metavar='N', help='of a network by name; default 1000')
    add_cfg_options(parser)
    parser.add_argument(
        '--tolerance',
        type=float,
        default=1e-4,
        help='largest difference from PyTorch, relative to the largest value of an output; default 1e-4',
    )


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, export, and print the inputs, the outputs and the difference from PyTorch."""
    from mogacore.deploy.export import export
    from mogacore.deploy.formats import format_of
    from mogacore.deploy.source import load_source
    from mogacore.deploy.triton import check_format, write_triton_repository

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    for_triton = next((path for path in args.out if format_of(path) == 'onnx'), args.out[0])
    if args.triton:
        check_format(for_triton)
    source = load_source(
        args.network, args.checkpoint, args.cfg_options, args.num_classes, raw=args.raw, features=args.features
    )
    shape = tuple(args.shape) if args.shape else None
    for done in export(source, args.out, shape, args.dtype, args.tolerance):
        inputs = ', '.join(f'{name} ({", ".join(map(str, sizes))})' for name, sizes in done.inputs.items())
        print(f'{done.path}: {inputs} -> {", ".join(done.outputs)}; differs from PyTorch by {done.error:.1e}')
    if done.fixed:
        print(f'height and width are fixed, since the model does not allow others: {done.fixed}')
    if args.triton:
        print(f'{write_triton_repository(for_triton, args.triton)}: model for Triton')
