"""The user error, and the one line that a command prints of it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import NoReturn

# What mogacore cannot work without, by import name, and what pip calls it.
NEEDED = {'torch': 'torch', 'mmengine': 'onedl-mmengine', 'cv2': 'opencv-python-headless', 'numpy': 'numpy'}


class UserError(ValueError):
    """Something that the user gave does not fit: the message names it, what is allowed, and what to do.

    A command prints it as one line and exits with code 2; every other exception is our bug and keeps its traceback.
    """


def missing_package(error: ModuleNotFoundError) -> str | None:
    """One line on how to install the package that an import did not find; None if it is none that mogacore needs."""
    module = (error.name or '').partition('.')[0]
    return f'mogacore needs {module}: pip install {NEEDED[module]}' if module in NEEDED else None


def run(main: Callable[..., int | None], *args) -> NoReturn:
    """Run a command and exit: a user error becomes one line on stderr and exit code 2.

    Args:
        main: The command; what it returns is the exit code, None being 0.
        *args: Its arguments.
    """
    logging.raiseExceptions = False  # with the log on a full disk, each of its lines would be a traceback
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
