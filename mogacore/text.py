"""Short texts for messages."""

from __future__ import annotations

from collections.abc import Iterable
from reprlib import Repr


def shorten(names: Iterable[object], num_shown: int = 10) -> str:
    """Join the first names with commas, and append the number of the others."""
    shown = [str(name) for name in names]
    more = len(shown) - num_shown
    return ', '.join(shown[:num_shown]) + (f' and {more} more' if more > 0 else '')


def show(value: object) -> str:
    """A value from a file in Python's notation, in one short line: long texts and deep lists are cut."""
    return _REPR.repr(value)


_REPR = Repr()
_REPR.maxstring = _REPR.maxother = 100
_REPR.maxlong = 40


def type_name(kind: object) -> str:
    """Name of the class in the ``type`` of a config, without its library; '' if it is neither text nor class."""
    if isinstance(kind, type):
        return kind.__name__
    return kind.rpartition('.')[2] if isinstance(kind, str) else ''
