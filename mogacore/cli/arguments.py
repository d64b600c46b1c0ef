"""Argument parsing shared by several subcommands."""

from __future__ import annotations

import argparse


def make_parser(description: str, prog: str | None = None, **settings) -> argparse.ArgumentParser:
    """Create a parser that prints a description of several paragraphs unwrapped.

    Args:
        description: Docstring of the subcommand's module.
        prog: Program name in the usage line; None for the name of the script.
        **settings: Further arguments of :class:`argparse.ArgumentParser`.
    """
    if '\n' in description.strip():
        settings.setdefault('formatter_class', argparse.RawDescriptionHelpFormatter)
    return argparse.ArgumentParser(prog=prog, description=description, **settings)


def add_cfg_options(parser: argparse.ArgumentParser, of: str = 'the config') -> None:
    """Add --cfg-options, which overrides settings of ``of``."""
    from mmengine.config import DictAction

    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help=f'override settings of {of}, key=value')


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that training and testing share."""
    add_cfg_options(parser)
    add_launcher(parser)


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add --launcher."""
    from mogacore.engine.launch import LAUNCHERS

    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='who started the processes')
