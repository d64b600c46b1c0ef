"""Show which parts of an image a prediction depends on: Grad-CAM and its variants.

Several models are drawn side by side. A model is [LABEL=]NAME[@CHECKPOINT], where NAME is a config for classification,
detection, segmentation or pose (with a checkpoint), a name of create_model, timm:NAME or torchvision:NAME (with
@pretrained for that library's weights).
"""

from __future__ import annotations

import argparse

from .arguments import make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    from mogacore.analysis.cam import METHODS

    parser.add_argument('image', help='image file')
    parser.add_argument('models', nargs='+', metavar='MODEL', help='[LABEL=]NAME[@CHECKPOINT]')
    parser.add_argument('--out-dir', required=True, help='folder for cam.png, cam.json and cam.npz')
    parser.add_argument(
        '--methods', nargs='+', default=['gradcam'], metavar='METHOD', help=f'one row per method: {", ".join(METHODS)}'
    )
    parser.add_argument(
        '--target-layers', nargs='+', metavar='LAYER',
        help='layers to explain, e.g. backbone.norm4; several maps are averaged, each model uses the layers it has; '
        'default: the last map of the backbone',
    )  # fmt: skip
    parser.add_argument('--target', help='class or keypoint, by name or number; default: what each network predicts')
    parser.add_argument('--data', metavar='CONFIG', help='config whose image pipeline models without a config use')
    parser.add_argument('--device', help='torch device; default: a GPU if there is one')


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, explain, and print the targets."""
    from mogacore.analysis import cam
    from mogacore.analysis.classifiers import parse_models

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    specs = parse_models(args.models)
    report = cam.run(
        specs, args.image, args.out_dir, args.methods, args.target_layers, args.target, args.data, args.device
    )
    for label, model in report['models'].items():
        print(f'{label}: {model["target"]}, score {model["score"]:.3f}, at {", ".join(model["layers"])}')
    print(f'{args.out_dir}: cam.png, .json and .npz')
