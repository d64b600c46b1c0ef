"""Compares the score that chooses the best checkpoint with those of the evaluator, before training."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from mmengine.config import Config

from mogacore.errors import UserError
from mogacore.libraries import find_class
from mogacore.text import type_name

from .config import as_list


def check_save_best(cfg: Config) -> None:
    """Check that the scores of ``save_best`` may exist: those of a metric with a prefix are named ``prefix/score``.

    Raises:
        UserError: If the evaluator has no such score.
    """
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    keys = hook.get('save_best')
    prefixes = [
        _prefix(evaluator, cfg.get('default_scope', 'mmengine')) for evaluator in as_list(cfg.get('val_evaluator'))
    ]
    if not keys or not prefixes or not all(prefixes):
        return
    for key in [keys] if isinstance(keys, str) else keys:
        if key != 'auto' and not any(key.startswith(f'{prefix}/') for prefix in prefixes):
            raise UserError(
                f'save_best={key} is no score of the validation: choose one of '
                f'{", ".join(f"{prefix}/..." for prefix in dict.fromkeys(prefixes))}, or auto for the first'
            )


def _prefix(evaluator: Mapping, scope: str) -> str | None:
    """What the names of a metric's scores start with; None if they have no prefix or it is unknown."""
    classes = [cls for cls, kind in find_class(type_name(evaluator['type']), scope) if kind == 'metric']
    if 'prefix' in evaluator or not classes:
        return evaluator.get('prefix')
    parameter = inspect.signature(classes[0]).parameters.get('prefix')
    default = parameter.default if parameter else None
    return default if isinstance(default, str) else getattr(classes[0], 'default_prefix', None)
