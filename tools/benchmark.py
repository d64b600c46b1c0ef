"""Time networks side by side, interleaved in one run: latency, training step, memory.

Networks are names of create_model, timm:NAME, torchvision:NAME, config files, whose backbones are taken (of a video
predictor the whole), or plain:NAME and plain:CONFIG, the network of the paper written out. The first, in the first
backend, is what the ratios are against.
"""

import argparse
import json

from mogacore.cli import run


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('networks', nargs='+', help='network, or network@backend for one of its own')
    parser.add_argument(
        '--backends', nargs='+', default=['eager'], help='eager, compiled, fused, fused+compiled, onnx, openvino'
    )
    parser.add_argument('--mode', default='infer', help='infer, or train for a step forward and backward')
    parser.add_argument('--shape', nargs='+', type=int, default=(3, 224, 224), metavar='N', help='C H W, or T C H W')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=11, help='timed rounds')
    parser.add_argument('--dtype', choices=('fp32', 'bf16', 'fp16'), default='fp32', help='autocast to this type')
    parser.add_argument('--device', help='torch device; default: a GPU if there is one')
    parser.add_argument('--json', metavar='FILE', help='write the measurements to this file')
    parser.add_argument('--plot', metavar='FILE', help='draw the ratios into this PNG')
    return parser.parse_args(argv)


def main(argv=None):
    import torch
    from rich.console import Console

    from mogacore.analysis.throughput import describe_machine, draw_ratios, measure

    args = parse_args(argv)
    networks = []
    for network in args.networks:
        name, _, backend = network.partition('@')
        networks += [(name, choice) for choice in ([backend] if backend else args.backends)]
    device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    dtype = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}[args.dtype]
    console = Console(width=140)
    with console.status('building') as status:
        found = measure(
            networks, tuple(args.shape), args.batch_size, args.mode, args.rounds, device, dtype, status.update
        )
    rows = [measurement.summary(args.batch_size) for measurement in found]
    report = {'machine': describe_machine(device), 'mode': args.mode, 'dtype': args.dtype, 'shape': list(args.shape)}
    report |= {'batch_size': args.batch_size, 'rounds': args.rounds, 'measurements': rows}
    console.print(table(report))
    if args.json:
        with open(args.json, 'w') as file:
            json.dump(report, file, indent=2)
    if args.plot:
        draw_ratios(report, args.plot)


def table(report):
    from rich.table import Table

    title = f'{report["mode"]}, {report["dtype"]}, batch {report["batch_size"]} of {report["shape"]}'
    grid = Table('network', 'backend', title=title, caption=report['machine'])
    for name in ('parameters', 'ms', 'images/s', 'times faster', 'quartiles', 'saved MiB/image', 'error'):
        grid.add_column(name, justify='right')
    for row in report['measurements']:
        low, high = row['ratio_quartiles']
        saved, error = row['saved_bytes_per_image'], row['error']
        grid.add_row(
            row['name'], row['backend'], f'{row["params"]:,}', f'{row["ms"]:.1f}', f'{row["images_per_s"]:.1f}',
            f'{row["ratio"]:.2f}', f'{low:.2f} .. {high:.2f}',
            '' if saved is None else f'{saved / 2**20:.1f}', '' if error is None else f'{error:.1e}',
        )  # fmt: skip
    return grid


if __name__ == '__main__':
    run(main)
