"""Write any weight file anew, safely: its tensors alone, as .safetensors or .pth, under the names wanted."""

import argparse

from mogacore.checkpoint import LAYOUTS, convert
from mogacore.cli import run


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='weight file of any kind, e.g. moganet_small_sz224_8xbs128_ep300.pth.tar')
    parser.add_argument('target', help='file to write: .safetensors, or .pth, which keeps both raw and EMA weights')
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        '--ema', action='store_true', default=None, help="take the EMA weights; default: the file's state_dict"
    )
    choice.add_argument('--raw', dest='ema', action='store_false', help='take the weights without averaging')
    parser.add_argument('--to', choices=LAYOUTS, help='names of classification weights; default: those of the file')
    parser.add_argument('--force', action='store_true', help='replace the target if it is there')
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    facts = convert(args.source, args.target, args.ema, args.to, args.force)
    print(f'read {args.source}: {facts["container"]}, {facts["tensors"]} tensors, took the {facts["set"]} set')
    print(f'wrote {args.target}: names {args.to or "unchanged"}, other set kept: {facts["kept"]}')


if __name__ == '__main__':
    run(main)
