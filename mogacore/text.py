"""Short texts for messages."""

from __future__ import annotations

from collections.abc import Iterable


def shorten(names: Iterable[object], num_shown: int = 10) -> str:
    """Join the first names with commas, and append the number of the others."""
    shown = [str(name) for name in names]
    more = len(shown) - num_shown
    return ', '.join(shown[:num_shown]) + (f' and {more} more' if more > 0 else '')


def type_name(kind: object) -> str:
    """Name of the class in the ``type`` of a config, without its library; '' if it is neither text nor class."""
    if isinstance(kind, type):
        return kind.__name__
    return kind.rpartition('.')[2] if isinstance(kind, str) else ''
