"""Export a trained network to ONNX or OpenVINO, fused for inference, and check its outputs.

The exported file takes batches of any size of normalized images with a fixed height and width. Its outputs are those of
the model in mode 'tensor': logits of a classifier, class maps of a segmentor before resizing, heatmaps of a pose model,
raw head maps of a one-stage detector.
"""

from __future__ import annotations

import argparse

from .arguments import make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('network', help='config, by path or short name, or a name of create_model, e.g. moganet_small')
    parser.add_argument('checkpoint', help='weight file; every key must fit the model')
    parser.add_argument('out', help='file to write: .onnx, or .xml for OpenVINO, with its .bin in the same folder')
    parser.add_argument(
        '--shape',
        nargs='+',
        type=int,
        metavar='N',
        help="C H W, or T C H W for video; default: the config's input_shape",
    )
    parser.add_argument('--tolerance', type=float, default=1e-4, help='largest difference allowed; default 1e-4')


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, export, and print the difference from PyTorch."""
    import torch

    from mogacore.deploy.export import export, load_network
    from mogacore.errors import accepting

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    network, shape = load_network(args.network, args.checkpoint)
    shape = tuple(args.shape or shape)
    with accepting(args.network, shape):
        images = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    error = export(network, args.out, images, args.tolerance)
    print(f'{args.out}: images (any, {", ".join(map(str, images.shape[1:]))}), differs from PyTorch by {error:.1e}')
