"""mogacore SUBCOMMAND: train, test and use MogaNet on every vision task of the OpenMMLab 2.x stack."""

from __future__ import annotations

import argparse
import sys
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from mogacore.errors import UserError, run
from mogacore.version import __version__

# One module each. They import torch inside functions, so that the help appears at once.
SUBCOMMANDS = (
    'train', 'test', 'analyze', 'config', 'infer', 'features', 'export', 'serve', 'demo', 'convert', 'publish',
    'weights', 'data', 'pack', 'init-data', 'browse', 'stats', 'complexity', 'benchmark', 'gpu-check', 'scaling',
    'plots', 'compare', 'reproduce', 'interactions', 'cam', 'receptive-field', 'doctor', 'completion',
)  # fmt: skip


def load(subcommand: str) -> ModuleType:
    """Module of a subcommand.

    Raises:
        UserError: If the subcommand is unknown.
    """
    if subcommand not in SUBCOMMANDS:
        near = get_close_matches(subcommand, SUBCOMMANDS, 1)
        advice = f'did you mean {near[0]}?' if near else f'choose from {", ".join(SUBCOMMANDS)}'
        raise UserError(f'subcommand {subcommand!r} is unknown: {advice}')
    return import_module(f'mogacore.cli.{subcommand.replace("-", "_")}')


def summary(subcommand: str) -> str:
    """First line of a subcommand's description."""
    return (load(subcommand).__doc__ or '').strip().partition('\n')[0]


def make_parser() -> argparse.ArgumentParser:
    """Create the parser of the subcommand's name; the subcommand parses the other arguments."""
    width = max(map(len, SUBCOMMANDS))
    lines = [f'  {name:{width}}  {summary(name)}' for name in SUBCOMMANDS]
    parser = argparse.ArgumentParser(
        prog='mogacore', description='MogaNet on every vision task of the OpenMMLab 2.x stack.',
        epilog='\n'.join(['subcommands, each with its own --help:', *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument('--version', action='version', version=f'mogacore {__version__}')
    parser.add_argument('subcommand', metavar='SUBCOMMAND', help='see the list below')
    parser.add_argument('arguments', nargs=argparse.REMAINDER, metavar='...', help='its arguments')
    return parser


def _run_subcommand(argv: list[str]) -> int | None:
    if not argv or argv[0].startswith('-'):
        make_parser().parse_args(argv or ['--help'])  # prints and exits
    return load(argv[0]).main(argv[1:], prog=f'mogacore {argv[0]}')


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command and exit; an unknown subcommand is a user error."""
    run(_run_subcommand, sys.argv[1:] if argv is None else argv)
