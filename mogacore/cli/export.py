"""Export a trained network to ONNX, OpenVINO or torch.export's format, fused, and check the file.

The file takes RGB images, 0 to 255, as the test pipeline of the config resizes them, and gives the final result:
probabilities, boxes, a class map, keypoints or frames. Mean, standard deviation, padding and post-processing are
inside; class names and the steps of the test pipeline are in its metadata. Batch, height and width may vary where the
model allows.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mogacore.errors import UserError, refuse_unused
from mogacore.locations import is_config_name

from .arguments import add_cfg_options, make_parser

if TYPE_CHECKING:
    from collections.abc import Callable

    from mogacore.deploy.export import Exported
    from mogacore.deploy.source import Source

TEST_IMAGES = 1000  # default


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
        dest='dtype',
        help='type of the images, 0 to 255 in both; default uint8; not for videos, which are always float32',
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
    smaller = parser.add_argument_group('smaller files (.onnx and .xml)')
    smaller.add_argument(
        '--precision',
        default='fp32',
        help='fp32 (default); fp16: weights in half precision, arithmetic in fp32; int8: needs --calibration',
    )
    smaller.add_argument(
        '--calibration',
        metavar='FOLDER',
        help='images for int8, about 100 that are typical; for poses and hands, crops that one object fills, since '
        'each image is taken as one object',
    )
    smaller.add_argument(
        '--reduce-range',
        action='store_true',
        default=None,
        help='int8 weights of 7 bits in .onnx files, for CPUs without VNNI; default: if this CPU has none',
    )
    smaller.add_argument('--report', metavar='JSON', help='write size, latency and accuracy to this file')
    smaller.add_argument(
        '--test-images',
        type=int,
        metavar='N',
        help="evenly spaced images of the config's test set for the accuracy; 0 for none; default 1000",
    )


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, export, and print the inputs, the outputs and the difference from PyTorch."""
    from mogacore.process import exiting_on_sigterm

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    with exiting_on_sigterm():
        _export(args)


def _export(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.markup import escape

    from mogacore.deploy.formats import format_of
    from mogacore.deploy.quantize import check_precision
    from mogacore.deploy.report import describe
    from mogacore.deploy.source import load_source
    from mogacore.deploy.triton import check_format, write_triton_repository
    from mogacore.files import check_outputs, plain, writable_folder, write_json

    for path in args.out:
        check_precision(path, args.precision)
    _check_unused(args, {format_of(path) for path in args.out})
    check_outputs(*args.out, args.report)
    for_triton = next((path for path in args.out if format_of(path) == 'onnx'), args.out[0])
    if args.triton:
        check_format(for_triton)
        writable_folder(args.triton)
    num_images = TEST_IMAGES if args.test_images is None else args.test_images
    if num_images < 0:
        raise UserError(f'--test-images is {num_images}: use 0 or more')
    source = load_source(
        args.network, args.checkpoint, args.cfg_options, args.num_classes, raw=args.raw, features=args.features
    )
    if len(source.shape) == 4:
        refuse_unused({'--input': args.dtype}, 'on videos, which are always float32')
    settings = (tuple(args.shape) if args.shape else None, args.dtype or 'uint8', args.tolerance)
    with Console(stderr=True).status('exporting') as status:
        files, reports = _write(args, source, settings, num_images, lambda text: status.update(escape(text)))
    for done in files:
        inputs = ', '.join(f'{name} ({", ".join(map(str, sizes))})' for name, sizes in done.inputs.items())
        outputs, differs = ', '.join(done.outputs), 'differs' if args.precision == 'fp32' else 'in fp32, it differs'
        print(f'{done.path}: {inputs} -> {outputs}; {differs} from PyTorch by {done.error:.1e}')
        if done.fixed:
            print(f'height and width of {done.path} are fixed, since the model does not allow others: {done.fixed}')
    for report in reports:
        print('\n'.join(describe(report)))
    if args.report:
        write_json(args.report, reports, default=plain)
    if args.triton:
        print(f'{write_triton_repository(for_triton, args.triton)}: model for Triton')


def _write(
    args: argparse.Namespace, source: Source, settings: tuple, num_images: int, progress: Callable[[str], None]
) -> tuple[list[Exported], list[dict]]:
    """Write the files; what was written, and the reports of smaller files."""
    from mogacore.deploy.export import export
    from mogacore.deploy.report import export_smaller

    if args.precision == 'fp32':
        shape, dtype, tolerance = settings
        return export(source, args.out, shape, dtype, tolerance, progress), []
    test_set = args.network if is_config_name(args.network) and num_images else None
    return export_smaller(
        source, args.out, settings, args.precision, args.calibration, args.reduce_range, test_set, args.cfg_options,
        num_images, progress=progress,
    )  # fmt: skip


def _check_unused(args: argparse.Namespace, formats: set[str]) -> None:
    """Refuse options that the precision, the formats or the network do not use."""
    for_int8 = {'--calibration': args.calibration, '--reduce-range': args.reduce_range}
    for_smaller = {**for_int8, '--report': args.report, '--test-images': args.test_images}
    unused = {'fp32': for_smaller, 'fp16': for_int8}.get(args.precision, {})
    refuse_unused(unused, f'with --precision {args.precision}')
    if 'onnx' not in formats:
        refuse_unused({'--reduce-range': args.reduce_range}, 'on files other than .onnx')
    if args.raw or args.features:
        refuse_unused({'--test-images': args.test_images}, 'with --raw and --features, which have no accuracy')
    if not is_config_name(args.network):
        refuse_unused({'--test-images': args.test_images}, 'on networks by name, which have no test set')
        if args.features:
            refuse_unused({'--num-classes': args.num_classes}, 'with --features')
