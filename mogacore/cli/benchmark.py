"""Time networks side by side, interleaved in one run: latency, training step, memory.

A network is a name of create_model, timm:NAME, torchvision:NAME, or a config, whose backbone is timed (the full model
for a video predictor); plain:NAME and plain:CONFIG run the block as the paper writes it. Ratios are relative to the
first network in the first backend. With --sizes or --batch-sizes, one network is timed at each of them, to show how its
cost grows.

With --checkpoint, configs are timed as a whole, from an image in memory to its predictions, with all steps before and
after the network. So are exported files (.onnx, .xml), with or without it.

--mode data CONFIG times the steps of the training pipeline on one core, and equal pipelines of timm and torchvision.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mogacore.errors import UserError, refuse_unused

from .arguments import make_parser

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

SHAPE, BATCH_SIZE = (3, 224, 224), 8  # defaults


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('networks', nargs='+', help='network, or network@backend to override --backends')
    parser.add_argument(
        '--backends', nargs='+', help='eager, compiled, fused, fused+compiled, onnx, openvino; default: eager'
    )
    parser.add_argument(
        '--mode', default='infer', help='infer; train, a forward and backward pass; or data, the training pipeline'
    )
    parser.add_argument('--shape', nargs='+', type=int, metavar='N', help='C H W, or T C H W; default: 3 224 224')
    parser.add_argument('--batch-size', type=int, metavar='B', help='default: 8')
    parser.add_argument('--sizes', nargs='+', type=int, metavar='H', help='heights of square images')
    parser.add_argument('--batch-sizes', nargs='+', type=int, metavar='B', help='numbers of images')
    parser.add_argument('--checkpoint', metavar='FILE', help='weights of the configs: time whole models')
    parser.add_argument('--image', metavar='FILE', help='image for whole models and exported files; default: noise')
    parser.add_argument('--rounds', type=int, default=11, help='timed rounds; default %(default)s')
    parser.add_argument('--dtype', choices=('fp32', 'bf16', 'fp16'), help='autocast to this type; default: fp32')
    parser.add_argument('--device', help='torch device; default: a GPU if there is one')
    parser.add_argument(
        '--keep-freed-memory', action='store_true', help='keep freed memory on a CPU, as mogacore train does'
    )
    parser.add_argument('--json', metavar='FILE', help='write the measurements to this file')
    parser.add_argument('--plot', metavar='FILE', help='draw the ratios into this PNG')


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, measure, print a table, and write the requested files."""
    from rich.console import Console

    from mogacore.analysis import growth, pipelines, throughput
    from mogacore.files import check_outputs, write_json
    from mogacore.locations import config_file
    from mogacore.process import keep_freed_memory

    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    check_outputs(args.json, figure=args.plot)
    if args.keep_freed_memory and not keep_freed_memory():
        raise UserError('--keep-freed-memory needs the GNU C library, which this system does not have: omit it')
    if args.mode == 'data':
        _time_data(args)
        return
    if args.checkpoint or any(map(pipelines.is_exported, args.networks)):
        _time_pipelines(args)
        return
    refuse_unused({'--image': args.image}, 'without --checkpoint or an exported file')
    networks, of_default = [], False
    for network in args.networks:
        name, separator, backend = network.rpartition('@')
        if not separator or config_file(network.removeprefix('plain:')):
            name, backend = network, ''
        of_default |= not backend
        networks += [(name, choice) for choice in ([backend] if backend else args.backends or ['eager'])]
    _check_series(args, networks, of_default)
    console = Console(width=140)
    with console.status('building') as status:
        report = growth.benchmark(
            networks, tuple(args.shape or SHAPE), BATCH_SIZE if args.batch_size is None else args.batch_size,
            args.sizes or (), args.batch_sizes or (), mode=args.mode, rounds=args.rounds, device=args.device,
            dtype=args.dtype or 'fp32', progress=status.update,
        )  # fmt: skip
    console.print(growth_table(report) if 'growth' in report else table(report))
    if args.json:
        write_json(args.json, report)
    if args.plot:
        draw = growth.draw_growth if 'growth' in report else throughput.draw_ratios
        draw(report, args.plot)


def _refuse(args: argparse.Namespace, names: Sequence[str], where: str) -> None:
    """Refuse the flags of some arguments, see :func:`refuse_unused`."""
    refuse_unused({f'--{name.replace("_", "-")}': getattr(args, name) for name in names}, where)


def _check_series(args: argparse.Namespace, networks: Sequence[tuple[str, str]], uses_backends: bool) -> None:
    """Refuse what has no effect on networks, and with --sizes and --batch-sizes."""
    if not uses_backends:
        _refuse(args, ['backends'], 'on networks that all name their backend')
    if not args.sizes and not args.batch_sizes:
        return
    if len(networks) > 1:
        raise UserError(
            f'--sizes and --batch-sizes time one network in one backend: give one instead of {len(networks)}'
        )
    if not args.sizes:
        _refuse(args, ['batch_size'], 'with --batch-sizes alone')
    if not args.batch_sizes:
        _refuse(args, ['shape'], 'with --sizes alone')
    if args.shape and (len(args.shape) != 3 or args.shape[0] != 3 or args.shape[1] != args.shape[2]):
        raise UserError(
            f'--shape {" ".join(map(str, args.shape))} is not that of a square image, as --batch-sizes needs: use 3 H H'
        )


def _time_data(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from mogacore.analysis.data_speed import measure_data
    from mogacore.files import write_json

    if len(args.networks) != 1:
        raise UserError(f'--mode data times one config: give one instead of {len(args.networks)}')
    unused = ('backends', 'shape', 'batch_size', 'sizes', 'batch_sizes', 'checkpoint', 'image')
    _refuse(args, (*unused, 'dtype', 'device', 'plot'), 'with --mode data')
    console = Console(width=140)
    with console.status('building') as status:
        report = measure_data(args.networks[0], rounds=args.rounds, progress=status.update)
    grid = Table('pipeline', 'step', title=f'one core, {report["images"]}', caption=report['machine'])
    for name in ('ms', 'images/s', 'times as fast'):
        grid.add_column(name, justify='right')
    for row in report['pipelines']:
        grid.add_section()
        grid.add_row(row['name'], '', f'{row["ms"]:.2f}', f'{row["images_per_s"]:.0f}', f'{row["ratio"]:.2f}')
        for step in row['steps']:
            grid.add_row('', step['name'], f'{step["ms"]:.2f}', '', '')
    console.print(grid)
    if args.json:
        write_json(args.json, report)


def _time_pipelines(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from mogacore.analysis import pipelines
    from mogacore.files import write_json

    if args.mode != 'infer':
        raise UserError(f'whole models and exported files only predict: omit --mode {args.mode}')
    unused = ('backends', 'batch_size', 'sizes', 'batch_sizes', 'dtype', 'plot')
    _refuse(args, unused, 'on whole models and exported files, which predict one image at a time')
    if args.image:
        _refuse(args, ['shape'], 'with --image')
    if all(map(pipelines.is_exported, args.networks)):
        _refuse(args, ('checkpoint', 'device'), 'on exported files, which run on the CPU')
    console = Console(width=140)
    image = pipelines.read_image(args.image, args.shape or SHAPE)
    with console.status('building') as status:
        report = pipelines.measure_pipelines(
            args.networks, image, args.checkpoint, args.rounds, args.device, status.update
        )
    height, width = report['image']
    grid = Table('network', title=f'one image of {width} x {height} px to predictions', caption=report['machine'])
    for name in ('ms', 'quartiles', 'images/s', 'times faster', 'instances'):
        grid.add_column(name, justify='right')
    for row in report['measurements']:
        low, high = row['quartiles']
        grid.add_row(
            row['name'], f'{row["ms"]:.1f}', f'{low:.1f} .. {high:.1f}', f'{row["images_per_s"]:.1f}',
            f'{row["ratio"]:.2f}', '' if row['found'] is None else str(row['found']),
        )  # fmt: skip
    console.print(grid)
    if args.json:
        write_json(args.json, report)


def growth_table(report: dict) -> Table:
    """Table of time over size and batch, from a report of :func:`mogacore.analysis.growth.benchmark` with sizes."""
    from rich.table import Table

    grid = Table('batch', 'size', title=f'{report["network"]} ({report["backend"]})', caption=report['machine'])
    for name in ('ms', 'quartiles', 'ns/pixel'):
        grid.add_column(name, justify='right')
    for rows in report['growth'].values():
        for row in rows:
            low, high = row['quartiles']
            cost = 1e6 * row['ms'] / row['pixels']
            grid.add_row(
                str(row['batch_size']), str(row['size']), f'{row["ms"]:.1f}', f'{low:.1f} .. {high:.1f}', f'{cost:.0f}'
            )
        grid.add_section()
    return grid


def table(report: dict) -> Table:
    """Table with one row per network and backend, from a report of :func:`mogacore.analysis.growth.benchmark`."""
    from rich.table import Table

    title = f'{report["mode"]}, {report["dtype"]}, batch {report["batch_size"]} of {report["shape"]}'
    grid = Table('network', 'backend', title=title, caption=report['machine'])
    for name in ('parameters', 'GMACs', 'ms', 'images/s', 'times faster', 'quartiles', 'saved MiB/image', 'error'):
        grid.add_column(name, justify='right')
    for row in report['measurements']:
        low, high = row['ratio_quartiles']
        saved, error = row['saved_bytes_per_image'], row['error']
        grid.add_row(
            row['name'], row['backend'], f'{row["params"]:,}', f'{row["macs"] / 1e9:.2f}',
            f'{row["ms"]:.1f}', f'{row["images_per_s"]:.1f}',
            f'{row["ratio"]:.2f}', f'{low:.2f} .. {high:.2f}',
            '' if saved is None else f'{saved / 2**20:.1f}', '' if error is None else f'{error:.1e}',
        )  # fmt: skip
    return grid
