"""The user error, and how a command reports it in one line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import NoReturn

from .process import limit_spinning

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
    """Run a command and exit: a user error becomes one line on stderr and exit code 2.

    Args:
        main: The command; its return value is the exit code, and None means 0.
        *args: Its arguments.
    """
    limit_spinning()  # commands import torch later, inside their functions
    logging.raiseExceptions = False  # on a full disk, every log line would print a traceback
    try:
        sys.exit(main(*args))
    except UserError as error:
        message = str(error)
    except ModuleNotFoundError as error:
        line = missing_package(error)
        if line is None:
            raise
        message = line
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)
    print(f'error: {message}', file=sys.stderr)
    sys.exit(2)
