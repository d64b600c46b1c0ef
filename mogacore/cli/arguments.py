"""What several subcommands need to parse their arguments."""

from __future__ import annotations

import argparse


def make_parser(description: str, prog: str | None = None, **settings) -> argparse.ArgumentParser:
    """A parser that shows a description of several paragraphs as it is written.

    Args:
        description: Docstring of the subcommand's module.
        prog: Name that the usage shows; None is the name of the script.
        **settings: Further arguments of :class:`argparse.ArgumentParser`.
    """
    if '\n' in description.strip():
        settings.setdefault('formatter_class', argparse.RawDescriptionHelpFormatter)
    return argparse.ArgumentParser(prog=prog, description=description, **settings)


def add_cfg_options(parser: argparse.ArgumentParser, of: str = 'the config') -> None:
    """The flag --cfg-options, settings over those of ``of``."""
    from mmengine.config import DictAction

    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help=f'settings over {of}, key=value')


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags that training and testing share."""
    add_cfg_options(parser)
    add_launcher(parser)


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """The flag --launcher."""
    from mogacore.engine.launch import LAUNCHERS

    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='who started the processes')
