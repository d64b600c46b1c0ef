"""Model the throughput of training on 1 to 1,024 GPUs from measurements on one.

Measure a step with tools/benchmark.py --mode train --json FILE on the GPU and pass FILE as --benchmark, or give
--step-ms, --batch-size and --gradient-mb. Use bandwidths measured by nccl-tests or the vendor's tools, not those of the
data sheet. The model ignores slow data loading and stragglers, so a real cluster is slower.
"""

from __future__ import annotations

import argparse

from .arguments import make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('--benchmark', metavar='FILE', help='JSON of tools/benchmark.py --mode train')
    parser.add_argument('--step-ms', type=float, help='time per step on one GPU')
    parser.add_argument('--batch-size', type=int, help='images per step')
    parser.add_argument('--gradient-mb', type=float, help='gradient size in MB (10^6 bytes), at 4 bytes per parameter')
    parser.add_argument(
        '--backward-share',
        type=float,
        default=0.5,
        help='fraction of the step that overlaps with all-reduce; default %(default)s',
    )
    parser.add_argument('--gpus-per-node', type=int, default=8, help='GPUs of a node; default %(default)s')
    parser.add_argument('--node-gbytes', type=float, required=True, help='bandwidth between GPUs of a node, GB/s')
    parser.add_argument('--network-gbits', type=float, required=True, help='network bandwidth of a node, Gbit/s')
    parser.add_argument('--latency-us', type=float, required=True, help='latency of an empty message, microseconds')
    parser.add_argument('--max-gpus', type=int, default=1024, help='largest number of GPUs; default %(default)s')
    parser.add_argument('--json', metavar='FILE', help='write the model to this file')
    parser.add_argument('--plot', metavar='FILE', help='plot it to this PNG')


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, compute, print the curves, and write the requested files."""
    from mogacore.analysis.scaling import SATURATED, Cluster, Training, draw_scaling, saturation, scale
    from mogacore.files import write_json

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    step_s, batch_size, gradient_bytes, machine = measurements(args)
    cluster = Cluster(args.gpus_per_node, 1e9 * args.node_gbytes, 1e9 / 8 * args.network_gbits, 1e-6 * args.latency_us)
    counts = [2**power for power in range(max(args.max_gpus, 1).bit_length())]
    shares = {'all-reduce after the backward pass': 0.0, 'overlapped with it': args.backward_share}
    curves = {
        name: scale(Training(step_s, batch_size, gradient_bytes, share * step_s), cluster, counts)
        for name, share in shares.items()
    }
    for name, rows in curves.items():
        print(f'{name}\n{"GPUs":>6} {"images/s":>12} {"efficiency":>10} {"step ms":>9} {"all-reduce ms":>13}')
        for row in rows:
            print(
                f'{row["gpus"]:6} {row["images_per_s"]:12,.0f} {row["efficiency"]:10.1%} {1e3 * row["step_s"]:9.1f} '
                f'{1e3 * row["all_reduce_s"]:13.2f}'
            )
        limit = saturation(rows)
        print(f'below {SATURATED:.0%} from {limit} GPUs\n' if limit else f'above {SATURATED:.0%} throughout\n')
    if args.json:
        write_json(args.json, dict(inputs=vars(args), curves=curves))
    if args.plot:
        title = f'{1e3 * step_s:.1f} ms for {batch_size} images, {gradient_bytes / 1e6:.1f} MB of gradients{machine}'
        draw_scaling(curves, title, args.plot)


def measurements(args: argparse.Namespace) -> tuple[float, int, float, str]:
    """Seconds per step, images per step, gradient bytes and the machine's name, from a file or from flags.

    Raises:
        UserError: If flags are missing, or the file is not a benchmark of training steps.
    """
    from mogacore.analysis.scaling import read_benchmark
    from mogacore.errors import UserError

    if args.benchmark is not None:
        step_s, batch_size, gradient_bytes, machine = read_benchmark(args.benchmark)
        return step_s, batch_size, gradient_bytes, f', {machine}'
    if None in (args.step_ms, args.batch_size, args.gradient_mb):
        raise UserError('step time missing: give --benchmark FILE, or all of --step-ms, --batch-size and --gradient-mb')
    return args.step_ms / 1e3, args.batch_size, args.gradient_mb * 1e6, ''
