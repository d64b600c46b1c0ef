"""Show where in a picture networks see what they say: Grad-CAM and its variants, several models side by side.

Models are [LABEL=]NAME[@CHECKPOINT], NAME being a config file of classification, detection, segmentation or pose (with
a checkpoint), a name of create_model, timm:NAME or torchvision:NAME (with @pretrained for that library's weights).
"""

import argparse

from mogacore.cli import run


def parse_args(argv=None):
    from mogacore.analysis.cam import METHODS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('picture', help='picture file')
    parser.add_argument('models', nargs='+', metavar='MODEL', help='[LABEL=]NAME[@CHECKPOINT]')
    parser.add_argument('--out-dir', required=True, help='folder for cam.png, cam.json and cam.npz')
    parser.add_argument(
        '--methods', nargs='+', default=['gradcam'], metavar='METHOD', help=f'a row each: {", ".join(METHODS)}'
    )
    parser.add_argument(
        '--target-layers', nargs='+', metavar='LAYER',
        help='layers whose maps are taken, of several the mean, e.g. backbone.norm4; each model takes those it has; '
        'default: the last map of the backbone',
    )  # fmt: skip
    parser.add_argument('--target', help='class or keypoint, by name or number; default: what each network says itself')
    parser.add_argument('--data', metavar='CONFIG', help='config whose preparation of pictures models by name take')
    parser.add_argument('--device', help='torch device; default: a GPU if there is one')
    return parser.parse_args(argv)


def main(argv=None):
    from mogacore.analysis import cam
    from mogacore.analysis.classifiers import parse_models

    args = parse_args(argv)
    specs = parse_models(args.models)
    report = cam.run(
        specs, args.picture, args.out_dir, args.methods, args.target_layers, args.target, args.data, args.device
    )
    for label, model in report['models'].items():
        print(f'{label}: {model["target"]}, score {model["score"]:.3f}, at {", ".join(model["layers"])}')
    print(f'{args.out_dir}: cam.png, .json and .npz')


if __name__ == '__main__':
    run(main)
