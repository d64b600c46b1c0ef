"""Show how far networks see, and which order of the multi-order convolutions carries how much.

Models are [LABEL=]NAME[@CHECKPOINT] as of tools/interactions.py.
"""

import argparse

from mogacore.cli import run


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('models', nargs='+', metavar='MODEL', help='[LABEL=]NAME[@CHECKPOINT]')
    parser.add_argument('--out-dir', required=True, help='folder for receptive_field.png and .json, and orders.png')
    parser.add_argument('--data', metavar='CONFIG', help='config whose images models without a config take')
    parser.add_argument('--num-images', type=int, default=16, metavar='N', help='default %(default)s')
    parser.add_argument('--size', type=int, metavar='PX', help='scale the images to this height; default: as they are')
    parser.add_argument('--layer', help='layer whose central cell is looked at; default: the last map of the backbone')
    parser.add_argument('--device', help='torch device; default: a GPU if there is one')
    return parser.parse_args(argv)


def main(argv=None):
    from mogacore.analysis import receptive_field
    from mogacore.analysis.classifiers import parse_models

    args = parse_args(argv)
    report = receptive_field.run(
        parse_models(args.models), args.out_dir, args.data, args.num_images, args.size, args.layer, args.device
    )
    for label, model in report['models'].items():
        sides = ', '.join(f'{float(share):.0%} within {side:g} px' for share, side in model['side'].items())
        print(f'{label}, {model["layer"]}, images of {" x ".join(map(str, model["size"]))}: {sides}')
    print(f'{args.out_dir}: receptive_field.json and drawings')


if __name__ == '__main__':
    run(main)
