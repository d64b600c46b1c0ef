"""Compares the scores that choose the best checkpoint and stop early with those of the evaluator, before training."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping

from mmengine.config import Config

from mogacore.errors import UserError
from mogacore.libraries import find_class
from mogacore.text import type_name

from .config import as_list


def check_scores(cfg: Config) -> None:
    """Check that the scores of ``save_best`` and of early stopping may exist: with a prefix, they are ``prefix/score``.

    Raises:
        UserError: If the evaluator has no such score.
    """
    prefixes = [
        _prefix(evaluator, cfg.get('default_scope', 'mmengine')) for evaluator in as_list(cfg.get('val_evaluator'))
    ]
    if not prefixes or not all(prefixes):
        return
    for setting, key, more in _watched(cfg):
        if not any(key.startswith(f'{prefix}/') for prefix in prefixes):
            raise UserError(
                f'{setting}={key} is no score of the validation: choose one of '
                f'{", ".join(f"{prefix}/..." for prefix in dict.fromkeys(prefixes))}{more}'
            )


def _watched(cfg: Config) -> Iterator[tuple[str, str, str]]:
    """Setting, name of the score, and another choice for each score that a hook watches."""
    defaults = cfg.get('default_hooks') or {}
    keys = (defaults.get('checkpoint') or {}).get('save_best') or ()
    for key in [keys] if isinstance(keys, str) else keys:
        if key != 'auto':
            yield 'save_best', key, ', or auto for the first'
    for hook in [*filter(None, defaults.values()), *(cfg.get('custom_hooks') or ())]:
        if type_name(hook['type']) == 'EarlyStoppingHook' and 'monitor' in hook:
            yield 'EarlyStoppingHook.monitor', hook['monitor'], ''


def _prefix(evaluator: Mapping, scope: str) -> str | None:
    """What the names of a metric's scores start with; None if they have no prefix or it is unknown."""
    classes = [cls for cls, kind in find_class(type_name(evaluator['type']), scope) if kind == 'metric']
    if 'prefix' in evaluator or not classes:
        return evaluator.get('prefix')
    parameter = inspect.signature(classes[0]).parameters.get('prefix')
    default = parameter.default if parameter else None
    return default if isinstance(default, str) else getattr(classes[0], 'default_prefix', None)
