"""Write a trained network, folded for inference, as an ONNX file or an OpenVINO model, and check what the file gives.

The file takes normalised images, any number at a time, of one height and width, and gives what the model gives in mode
'tensor': logits of a classifier, class maps of a segmentor before they are resized, heatmaps of a pose model, raw maps
of a one-stage detector's head.
"""

import argparse

from mogacore.cli import run


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('network', help='config file, or a name of create_model such as moganet_small')
    parser.add_argument('checkpoint', help='weight file; every key must fit the model')
    parser.add_argument('out', help='file to write: .onnx, or .xml for OpenVINO, with a .bin beside it')
    parser.add_argument(
        '--shape', nargs=3, type=int, metavar=('C', 'H', 'W'), help="of an image; default: the config's input_shape"
    )
    parser.add_argument('--tolerance', type=float, default=1e-4, help='largest difference allowed; default 1e-4')
    return parser.parse_args(argv)


def main(argv=None):
    import torch

    from mogacore.deploy.export import export, load_network

    args = parse_args(argv)
    network, shape = load_network(args.network, args.checkpoint)
    images = torch.randn(1, *(args.shape or shape), generator=torch.Generator().manual_seed(0))
    error = export(network, args.out, images, args.tolerance)
    print(f'{args.out}: images (any, {", ".join(map(str, images.shape[1:]))}), differs from PyTorch by {error:.1e}')


if __name__ == '__main__':
    run(main)
