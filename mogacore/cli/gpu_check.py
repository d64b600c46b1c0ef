"""Check MogaNet on a GPU: exactness, precisions, torch.compile, DDP, memory and speed, in under eight minutes.

Needs torch, torchvision, mogacore and mmengine only, no task library and no data. Each check prints a line: the figure,
the largest value accepted, and ok, FAILED or skipped. The report is written to gpu-check.json and gpu-check.md.

Exit code: 0 if no check failed, 1 if one did, 2 if the command could not start, for example without a GPU.
"""

from __future__ import annotations

import argparse

from mogacore.analysis.gpu import PARTS, allow_missing_opencv

from .arguments import make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('--device', default='cuda', help='cuda (default), cuda:N, or cpu')
    parser.add_argument('--quick', action='store_true', help='tiny networks, to try the command on a CPU')
    parser.add_argument('--minutes', type=float, default=8.0, help='largest duration; the rest is skipped; default 8')
    parser.add_argument('--out', metavar='DIR', default='gpu-check', help='folder of the report; default gpu-check')
    parser.add_argument('--batch-size', type=int, default=128, help='images per batch to measure speed; default 128')
    parser.add_argument('--only', nargs='+', choices=PARTS, default=PARTS, metavar='PART', help=', '.join(PARTS))


def main(argv: list[str] | None = None, prog: str | None = None) -> int:
    """Parse, check, and print the counts and the files; return 1 if a check failed."""
    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    args = parser.parse_args(argv)
    allow_missing_opencv()
    from mogacore.analysis.gpu.report import JSON_NAME, MARKDOWN_NAME
    from mogacore.analysis.gpu.run import gpu_check

    report = gpu_check(**vars(args), show=lambda line: print(line, flush=True))
    counts = report['counts']
    print(', '.join(f'{number} {status}' for status, number in counts.items()) + f' in {report["seconds"]:.0f} s')
    print(f'{args.out}/{JSON_NAME} and {args.out}/{MARKDOWN_NAME} written')
    return int(counts['FAILED'] > 0)
