"""The user error, and how a command reports it in one line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import NoReturn

from . import machine
from .process import limit_spinning, open_standard_files

# Required packages: import name -> name for pip.
NEEDED = {
    'torch': 'torch', 'mmengine': 'onedl-mmengine', 'cv2': 'opencv-python-headless', 'numpy': 'numpy', 'PIL': 'pillow',
}  # fmt: skip


class UserError(ValueError):
    """Invalid user input or setup: the message states the value, what is allowed, and what to do.

    A command prints it as one line and exits with code 2. Any other exception is a bug and keeps its traceback. Names
    from files, which messages contain, may have any characters: see :func:`one_line`.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


def one_line(text: str) -> str:
    """A text in one line of printable characters: spaces for line breaks, escapes for others such as ``\\x1b``."""
    if text.isprintable():
        return text
    shown = (char if char.isprintable() else ' ' if char.isspace() else ascii(char)[1:-1] for char in text)
    return ''.join(shown).strip()


def refuse_unused(options: Mapping[str, object], where: str) -> None:
    """Refuse options that would have no effect.

    Args:
        options: Flag to its value; None, False and an empty list mean that the flag was not given.
        where: Why there is no effect, such as 'for video prediction'.

    Raises:
        UserError: That names the first flag that was given.
    """
    for flag, value in options.items():
        if value is None or value is False or value == []:
            continue
        values = value if isinstance(value, list | tuple) else [] if value is True else [value]
        raise UserError(f'{" ".join(map(str, [flag, *values]))} has no effect {where}: omit it')


EXIT_NO_READER = 141  # as of a program that SIGPIPE ends

# What networks raise for inputs of a shape that they do not accept; there is no common type.
MISFITS = (AssertionError, IndexError, RuntimeError, ValueError)


@contextmanager
def accepting(name: str, shape: Sequence[int]) -> Iterator[None]:
    """Report in one line that a network, called in the body, does not accept inputs of the shape that the user chose.

    Args:
        name: The network, as the user named it.
        shape: Shape of one input, without the batch.

    Raises:
        UserError: If a size is below 1, or the body raises one of ``MISFITS``.
    """
    text = ' x '.join(map(str, shape))
    if any(size < 1 for size in shape):
        raise UserError(f'shape {text} is invalid: give sizes of at least 1')
    try:
        yield
    except UserError:
        raise
    except MISFITS as error:
        reason = str(error).strip().partition('\n')[0] or type(error).__name__
        raise UserError(f'{name} does not accept inputs of {text}, choose another shape: {reason}') from error


def missing_package(error: ModuleNotFoundError) -> str | None:
    """How to install the package that an import did not find, in one line; None if mogacore does not require it."""
    module = (error.name or '').partition('.')[0]
    if module == __package__ and find_spec('mogacore.models') is None:
        return 'this part is not in mogacore-runtime: pip install mogacore'
    return f'mogacore needs {module}: pip install {NEEDED[module]}' if module in NEEDED else None


def run(main: Callable[..., int | None], *args) -> NoReturn:
    """Run a command and exit: an error that the user or the machine causes becomes one line on stderr and exit code 2.

    A command whose output is read by a program that has ended, as in ``mogacore config NAME | head -1``, ends silently
    with ``EXIT_NO_READER`` if it needs to write more.

    Args:
        main: The command; its return value is the exit code, and None means 0.
        *args: Its arguments.
    """
    open_standard_files()
    limit_spinning()  # commands import torch later, inside their functions
    logging.raiseExceptions = False  # on a full disk, every log line would print a traceback
    code, line = _call(main, *args)
    try:
        sys.stdout.flush()  # at exit, Python would report a failure in its own way
    except OSError as error:
        _discard_output()
        if not isinstance(error, BrokenPipeError):
            code, line = code or 2, line or f'error: {machine.explain(error) or error}'
    if line:
        with suppress(OSError):
            print(line, file=sys.stderr)
    sys.exit(code)


def _call(main: Callable[..., int | None], *args) -> tuple[int | str | None, str | None]:
    """Exit code of a command, and a line for stderr; any exception that is a bug passes."""
    try:
        return main(*args), None
    except SystemExit as error:
        return error.code, None
    except UserError as error:
        _ignore_unraisable()
        return 2, f'error: {error}'
    except KeyboardInterrupt:
        return 130, 'interrupted'
    except BrokenPipeError:
        return EXIT_NO_READER, None
    except ModuleNotFoundError as error:
        if line := missing_package(error):
            return 2, f'error: {line}'
        raise
    except Exception as error:
        if failure := machine.explain(error):
            _ignore_unraisable()
            return 2, f'error: {one_line(str(failure))}'
        raise


def _ignore_unraisable() -> None:
    """Print no traceback of an object that is destroyed after an error, such as a data loader without workers."""
    sys.unraisablehook = lambda unraisable: None


def _discard_output() -> None:
    """Send what stdout still holds, which cannot be written, to the null device."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
