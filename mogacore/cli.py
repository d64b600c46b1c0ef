"""What every command-line tool does around its ``main``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable

from .errors import UserError


def run(main: Callable[[], int | None]) -> None:
    """Run a tool and leave the process: a user's mistake becomes one line on stderr and exit code 2.

    Args:
        main: The tool; what it returns is the exit code, None being 0.
    """
    logging.raiseExceptions = False  # where the log is on a full disk, each of its lines would be a traceback
    try:
        sys.exit(main())
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags that training and testing share."""
    from mmengine.config import DictAction

    from .engine.launch import LAUNCHERS

    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='settings over the config, key=value')
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='who started the processes')
