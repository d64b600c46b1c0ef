"""Argument parsing shared by several subcommands."""

from __future__ import annotations

import argparse
from typing import Any

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
        _parse_iterable = staticmethod(parse_value)  # mmengine's drops all spaces, also those in a path

        def __call__(self, parser, namespace, values, option_string=None):
            for value in values:
                if not value.partition('=')[1] or value.startswith('='):
                    raise UserError(
                        f'--cfg-options {value!r} is not key=value, such as optim_wrapper.optimizer.lr=1e-4'
                    )
            try:
                super().__call__(parser, namespace, values, option_string)
            except ValueError as error:
                raise UserError(f'--cfg-options {" ".join(values)} cannot be parsed: {error}') from error

    parser.add_argument('--cfg-options', nargs='+', action=Options, help=f'override settings of {of}, key=value')


def parse_value(text: str) -> Any:
    """Value of an option in the notation of mmengine's DictAction: a number, True, False, None, a text, or a sequence.

    Spaces inside a text are kept; spaces and quotation marks around a value are not part of it.

    Args:
        text: For example ``0.1``, ``/my data/a.pth``, ``a,b`` or ``[(1, 2), [a, b]]``.

    Raises:
        ValueError: If brackets do not match, or the text contains dicts.
    """
    from mmengine.config import DictAction

    text = text.strip().strip('\'"')
    opening, closing = text[:1], text[-1:]
    is_sequence = (opening, closing) in {('(', ')'), ('[', ']')}
    if text.startswith(('dict(', '{')):
        raise ValueError(
            'it contains a dict; write it in a config file, or set single entries such as custom_hooks.0.interval=2'
        )
    items = _split(text[1:-1] if is_sequence else text)
    if not is_sequence and len(items) < 2 and not text.endswith(','):
        return DictAction._parse_int_float_bool(text)
    values = [parse_value(item) for item in items]
    return tuple(values) if opening == '(' and is_sequence else values


def _split(text: str) -> list[str]:
    """Items between the commas that are outside all brackets; a comma at the end adds none."""
    items, depth = [''], 0
    for char in text:
        depth += (char in '([') - (char in ')]')
        if depth < 0:
            break
        if char == ',' and depth == 0:
            items.append('')
        else:
            items[-1] += char
    if depth:
        raise ValueError(f'brackets of {text!r} do not match')
    return items if items[-1].strip() else items[:-1]


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
