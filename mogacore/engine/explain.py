"""Turns exceptions of a run that a user can fix into one-line user errors."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mogacore import machine, opencv
from mogacore.datasets.checks import explain
from mogacore.errors import UserError

from .check_settings import LIBRARIES

BUILDING = ('mmengine.registry.build_functions', 'build_from_cfg')
SCHEDULING = ('mmengine.registry.build_functions', 'build_scheduler_from_cfg')
SCORING = (('mmengine.evaluator.evaluator', 'process'), ('mmengine.evaluator.evaluator', 'evaluate'))


@contextmanager
def user_errors(is_training: bool = False) -> Iterator[None]:
    """Convert exceptions about the machine, the data or the config to one-line user errors; others pass.

    Args:
        is_training: Whether the run can be resumed.
    """
    opencv.set_log_level(opencv.ERRORS)  # OpenCV would print its own warnings about a broken image
    try:
        yield
    except UserError as error:
        text = str(error.args[0]) if error.args else ''
        if 'Original Traceback' not in text:
            raise
        # From a data loader worker: the text is a traceback, and the actual message its last line.
        raise UserError(re.split(r'\n[\w.]*Error: ', text)[-1].strip()) from error
    except Exception as error:
        if failure := machine.explain(error):
            if is_training:
                remedy = f'saved checkpoints are intact; {failure.remedy}, then resume with --resume'
                failure = failure._replace(remedy=remedy)
            raise UserError(str(failure)) from error
        if line := _explain_config(error) or explain(error) or _explain_removed(error) or _explain_refused(error):
            raise UserError(line) from error
        raise


def _explain_config(error: Exception) -> str | None:
    """Explain in one line an exception about a part of the config that cannot be built; None for any other."""
    text = ' '.join(str(error).strip('\'"').split())
    if isinstance(error, KeyError) and ' registry' in text:
        return f'{text.partition(". ")[0]}: correct the type, or import the module that registers it in custom_imports'
    if isinstance(error, ImportError):
        return f'the config needs a package that is not installed: {text}'
    return None


def _explain_removed(error: Exception) -> str | None:
    """Explain an exception about a file whose folder does not exist; None for any other."""
    if not isinstance(error, FileNotFoundError) or not error.filename or Path(error.filename).parent.exists():
        return None
    return (
        f'folder {Path(error.filename).parent} does not exist, or was removed while it was in use: correct the path, '
        'or restore it and start again'
    )


def _explain_refused(error: Exception) -> str | None:
    """Explain an exception of a library's class that refuses a setting of the config; None for any other.

    The class is built, or it is a metric, which reads some settings when it computes scores.
    """
    if not isinstance(error, AssertionError | LookupError | TypeError | ValueError):
        return None
    frames = list(traceback.walk_tb(error.__traceback__))
    # Local variables of the innermost call of each function.
    calls = {(frame.f_globals.get('__name__'), frame.f_code.co_name): frame.f_locals for frame, _ in frames}
    if BUILDING in calls:
        cls, what = calls[BUILDING].get('obj_cls'), 'be built'
    elif SCHEDULING in calls:
        cls, what = calls[SCHEDULING].get('scheduler_cls'), 'be built'
    elif found := [name for name in SCORING if name in calls]:
        cls, what = type(calls[found[0]].get('metric')), 'compute its scores'
    else:
        return None
    # The class is absent if the part is no dict with a type.
    if cls is not None and getattr(cls, '__module__', '').partition('.')[0] not in LIBRARIES:
        return None
    frame, line = frames[-1]
    reason = ' '.join(str(error).split()) or f'{type(error).__name__} in {Path(frame.f_code.co_filename).name}:{line}'
    name = getattr(cls, '__name__', 'a part of the config')
    return f'{name} cannot {what} ({reason}): correct its settings in the config'
