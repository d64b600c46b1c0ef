"""Rows of the published tables by task, id, or words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from mogacore.errors import UserError
from mogacore.published import TASKS, Result, load_results


def select(names: Sequence[str] = (), baselines: bool = False) -> list[Result]:
    """Select results by task, by id, or by words of the row.

    Args:
        names: Tasks; patterns of ids such as ``det-*``; or words that all occur in the method, model, data set,
            resolution or schedule of a row, such as ``UperNet MogaNet-S`` or ``moganet-s imagenet``; empty is all.
        baselines: Include the results of other networks.

    Raises:
        UserError: If a name matches no result.
    """
    results = [result for result in load_results() if result.is_moganet or baselines]
    for name in names:
        if not any(_is_named(result, name) for result in results):
            raise UserError(
                f'task or row {name!r} is unknown: choose from {", ".join(TASKS)}, ids such as cls-001 or det-*, or '
                "words of a row in quotation marks, such as 'UperNet MogaNet-S'"
            )
    return [result for result in results if not names or any(_is_named(result, name) for name in names)]


def _is_named(result: Result, name: str) -> bool:
    if name == result.task or fnmatchcase(result.id, name):
        return True
    words = _words(f'{result.method} {result.model} {result.dataset} {result.resolution} {result.schedule}')
    asked = _words(name)
    return bool(asked) and all(any(word == own or own.startswith(f'{word}-') for own in words) for word in asked)


def _words(text: str) -> list[str]:
    return re.findall(r'[\w.+-]+', text.lower())
