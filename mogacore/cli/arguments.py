"""Argument parsing shared by several subcommands."""

from __future__ import annotations

import argparse

from mogacore.errors import UserError


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

    class Options(DictAction):
        def __call__(self, parser, namespace, values, option_string=None):
            for value in values:
                if not value.partition('=')[1] or value.startswith('='):
                    raise UserError(
                        f'--cfg-options {value!r} is not key=value, such as optim_wrapper.optimizer.lr=1e-4'
                    )
            try:
                super().__call__(parser, namespace, values, option_string)
            except (AssertionError, ValueError, SyntaxError) as error:
                raise UserError(f'--cfg-options {" ".join(values)} cannot be parsed: {error}') from error

    parser.add_argument('--cfg-options', nargs='+', action=Options, help=f'override settings of {of}, key=value')


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that training and testing share."""
    parser.add_argument(
        '--check',
        choices=('sample', 'full'),
        default='sample',
        help='data to check before the start: a sample in about 20 seconds, or every file',
    )
    add_cfg_options(parser)
    add_launcher(parser)


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add --launcher."""
    from mogacore.engine.launch import LAUNCHERS

    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='what started the processes')
