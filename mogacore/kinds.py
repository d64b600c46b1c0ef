"""Whether values are of the kinds that annotations state, for arguments of public functions and settings of configs."""

from __future__ import annotations

import inspect
import os
import sys
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial, wraps
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from .errors import UserError
from .text import show

P = ParamSpec('P')
R = TypeVar('R')
REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
UNIONS = (Union, types.UnionType)
SEQUENCES = (list, tuple, Sequence)
NAMES = {
    bool: 'True or False', int: 'an integer', float: 'a number', str: 'a text', Path: 'a path', None: 'None',
    type(None): 'None', dict: 'a dict', Mapping: 'a dict',
}  # fmt: skip


def checks_arguments(*, besides: Collection[str] = ()) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function refuse arguments of other kinds than its annotations state.

    Kinds that :func:`fits` does not know, and arguments without an annotation, are accepted.

    Args:
        besides: Arguments that the function checks itself.

    Returns:
        A decorator. What it returns raises UserError for an argument of another kind.
    """
    return partial(_checked, besides=besides)


def _checked(function: Callable[P, R], besides: Collection[str]) -> Callable[P, R]:
    signature = inspect.signature(function)
    name = function.__qualname__.removesuffix('.__init__')

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)  # Python says what is missing or unknown
        hints = hints_of(function)
        for key, value in given.items():
            if key in hints and key not in besides and signature.parameters[key].kind not in REST:
                _refuse(key, name, value, hints[key])
        return function(*args, **kwargs)

    return checked


def check_fields(instance: Any, name: str) -> None:
    """Check the fields of a dataclass against their annotations.

    Args:
        instance: The object.
        name: What it describes, for the message.

    Raises:
        UserError: If one is of another kind.
    """
    for key, hint in hints_of(instance.__class__).items():
        _refuse(key, name, getattr(instance, key), hint)


def _refuse(key: str, name: str, value: Any, hint: Any) -> None:
    if not fits(value, hint):
        raise UserError(f'{key} {show(value)} of {name} is invalid: it must be {describe(hint)}')


@cache
def hints_of(function: Callable) -> dict[str, Any]:
    """Annotation of each parameter, without those that cannot be evaluated; a default of None allows None."""
    found = {}
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {}
    scope = vars(sys.modules.get(function.__module__, types))
    for parameter in parameters:
        hint = parameter.annotation
        if hint is parameter.empty:
            continue
        if isinstance(hint, str):
            try:
                hint = eval(hint, dict(scope))  # of code that is imported already
            except Exception:  # a name that is imported for type checkers only
                continue
        found[parameter.name] = Union[hint, None] if parameter.default is None else hint  # noqa: UP007
    return found


def fits(value: Any, hint: Any, in_config: bool = False) -> bool:
    """Whether a value is of the kind of an annotation; numbers of numpy count as Python's, and True is no number.

    A path also fits a text, except in a config.

    Args:
        value: Any object.
        hint: Type or annotation; one of another form than types, unions, sequences, mappings and literals fits all.
        in_config: Whether the value is from a config, in which dicts and names stand for objects.
    """
    origin = get_origin(hint)
    if hint in (Any, object):
        return True
    if origin in UNIONS:
        return any(fits(value, choice, in_config) for choice in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if hint in (None, type(None)):
        return value is None
    if hint in (int, float, bool):
        is_truth = isinstance(value, bool) or type(value).__name__ in ('bool_', 'bool')
        return is_truth if hint is bool else isinstance(value, Integral if hint is int else Real) and not is_truth
    if hint is str:
        return isinstance(value, str) or (isinstance(value, os.PathLike) and not in_config)
    if hint is Path:
        return isinstance(value, os.PathLike)
    if (origin or hint) in (*SEQUENCES, Iterable):
        return _is_sequence(value, origin or hint, [kind for kind in get_args(hint) if kind is not ...], in_config)
    if (origin or hint) in (dict, Mapping):
        return isinstance(value, Mapping)
    if isinstance(hint, type) and origin is None and not getattr(hint, '_is_protocol', False):
        return isinstance(value, hint) or in_config
    return True


def _is_sequence(value: Any, kind: Any, of: list, in_config: bool) -> bool:
    if isinstance(value, str | bytes | Mapping) or not hasattr(value, '__iter__' if kind is Iterable else '__len__'):
        return False
    if not isinstance(value, list | tuple) or not of:
        return True
    if kind is tuple and len(of) > 1:
        return len(of) == len(value) and all(fits(*pair, in_config) for pair in zip(value, of, strict=True))
    return all(fits(item, of[0], in_config) for item in value)


def describe(hint: Any) -> str:
    """An annotation in words, such as 'an integer or None'."""
    if get_origin(hint) in UNIONS:
        return ' or '.join(dict.fromkeys(describe(choice) for choice in get_args(hint)))
    if get_origin(hint) is Literal:
        return ' or '.join(map(repr, get_args(hint)))
    if (get_origin(hint) or hint) in (*SEQUENCES, Iterable):
        kinds = dict.fromkeys(describe(kind) for kind in get_args(hint) if kind is not ...)
        return f'a list of {" or ".join(_plural(kind) for kind in kinds)}' if kinds else 'a list'
    kind = get_origin(hint) or hint
    return NAMES.get(kind, getattr(kind, '__name__', str(kind)))


def _plural(kind: str) -> str:
    return f'{kind.removeprefix("an ").removeprefix("a ")}s' if kind.startswith(('a ', 'an ')) else kind


def leaf_kinds(hint: Any) -> Iterator[Any]:
    """The kinds of which an annotation consists: of its choices, and of the items of its lists."""
    if get_origin(hint) in (*UNIONS, *SEQUENCES, Iterable):
        for kind in get_args(hint):
            if kind is not ...:
                yield from leaf_kinds(kind)
    else:
        yield hint
