"""Print a script with which a shell completes subcommands, flags, names of configs, and files.

bash: add  eval "$(mogacore completion bash)"  to ~/.bashrc
zsh:  mogacore completion zsh > FOLDER/_mogacore, for a FOLDER of $fpath
"""

from __future__ import annotations

import argparse
from typing import Any

from mogacore.errors import UserError

from .arguments import make_parser

# Functions of the shells that complete a config: its short name or a file. {names} are all short names.
CONFIGS = {
    'bash': '_mogacore_configs() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}',
    'zsh': "_mogacore_configs() {{ _alternative 'names:short name:({names})' 'files:file:_files' }}",
}
FLAGS = ('_StoreTrueAction', '_StoreFalseAction', '_StoreConstAction', '_HelpAction', '_VersionAction')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the subcommand."""
    parser.add_argument('shell', choices=tuple(CONFIGS), help='shell that reads the script')


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Print the script."""
    parser = make_parser(__doc__, prog)
    add_arguments(parser)
    print(script(parser.parse_args(argv).shell))


def script(shell: str) -> str:
    """Completion script.

    Args:
        shell: ``bash`` or ``zsh``.

    Raises:
        UserError: If shtab, which writes it, is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise UserError('completion needs the package shtab: pip install shtab') from error
    from mogacore.locations import config_names

    names = ' '.join(config_names())
    preamble: Any = {key: text.format(names=names) for key, text in CONFIGS.items()}
    return shtab.complete(_whole_parser(shtab.FILE), shell, root_prefix='mogacore', preamble=preamble)


def _whole_parser(file: Any) -> argparse.ArgumentParser:
    """The parser of the command with those of its subcommands inside; values that may be files complete as such."""
    from .main import SUBCOMMANDS, load, summary

    parser = argparse.ArgumentParser(prog='mogacore')
    parser.add_argument('--version', action='version', version='', help='print the version')
    subparsers = parser.add_subparsers()
    for name in SUBCOMMANDS:
        subparser = subparsers.add_parser(name, help=summary(name))
        load(name).add_arguments(subparser)
        action: Any  # shtab reads the attribute `complete`
        for action in subparser._actions:
            if action.choices:
                action.choices = tuple(action.choices)  # shtab takes a dict for subcommands
            elif action.dest == 'config':
                action.complete = dict.fromkeys(CONFIGS, '_mogacore_configs')
            elif action.type in (None, str) and type(action).__name__ not in FLAGS:
                action.complete = file
    return parser
