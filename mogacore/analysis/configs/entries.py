"""The values of a resolved config by dotted key, each with its origin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mogacore.errors import UserError
from mogacore.files import writable_folder, write_text

from .origins import Origin, find_origins


@dataclass(frozen=True)
class Entry:
    """A value of a config.

    Args:
        key: Dotted key, as in ``--cfg-options``; items of a list have their index.
        value: Anything but a dict with entries, or a list that contains such a dict.
        origin: Where it comes from.
    """

    key: str
    value: Any
    origin: Origin

    def as_json(self) -> dict:
        """JSON-serializable fields, with the text of a value that JSON lacks."""
        file = None if self.origin.file is None else str(self.origin.file)
        return {'key': self.key, 'value': _plain(self.value), 'file': file, 'line': self.origin.line}


def list_entries(cfg: Config, cfg_options: Mapping[str, Any] | None = None, keys: Sequence[str] = ()) -> list[Entry]:
    """Values of a config in the order of the config.

    Args:
        cfg: Config read by :func:`mogacore.engine.config.load_config`.
        cfg_options: The options that it was read with.
        keys: Dotted keys; only these and what is below them are listed. Empty lists everything.

    Raises:
        UserError: If the config lacks a key; the line suggests similar ones.
    """
    assert cfg.filename is not None
    root = find_origins(Path(cfg.filename), cfg_options)
    values = cfg.to_dict()
    found: list[Entry] = []
    for key in keys or ('',):
        value: Any = values
        path = key.split('.') if key else []
        for depth, part in enumerate(path):
            value = _child(value, part, path, depth, values)
        found += _entries(value, path, root)
    return found


def _entries(value: Any, path: list[str], root: Origin) -> Iterator[Entry]:
    children = _children(value)
    origin = root.find(path)
    is_list = isinstance(value, (list, tuple))
    of_one_place = len({(item.file, None if is_list else item.line) for item in origin.nested()}) == 1
    if not children or (is_list and of_one_place and not any(_children(item) for item in value)):
        yield Entry('.'.join(path), value, origin)
        return
    for key, child in children.items():
        yield from _entries(child, [*path, str(key)], root)


def _children(value: Any) -> dict:
    """Entries of a dict, or items of a list by index."""
    if isinstance(value, Mapping):
        return dict(value.items())
    return dict(enumerate(value)) if isinstance(value, (list, tuple)) else {}


def _child(value: Any, part: str, path: list[str], depth: int, values: Mapping) -> Any:
    named = {str(key): child for key, child in _children(value).items()}
    if part in named:
        return named[part]
    key, parent = '.'.join(path), '.'.join(path[:depth])
    where = f'{parent} of the config' if parent else 'the config'
    same_end = [entry for entry in _all_keys(values) if entry.rpartition('.')[2] == path[-1]]
    near = [f'{parent}.{name}' if parent else name for name in get_close_matches(part, named, 2)]
    if near or same_end:
        advice = f'did you mean {" or ".join(dict.fromkeys([*near, *same_end[: 3 - len(near)]]))}?'
    elif named:
        advice = f'choose from {", ".join(named)}'
    else:
        advice = f'{parent} is {value!r}, which has no entries'
    raise UserError(f'{where} has no {part!r} for the key {key!r}: {advice}')


def _all_keys(value: Any, path: str = '') -> Iterator[str]:
    for key, child in _children(value).items():
        full = f'{path}.{key}' if path else str(key)
        yield full
        yield from _all_keys(child, full)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def write_config(cfg: Config, path: str | Path) -> None:
    """Write a resolved config as a Python file, which every tool accepts.

    Raises:
        UserError: If the path does not end in ``.py``, or names the config itself.
    """
    path = Path(path)
    if path.suffix != '.py':
        raise UserError(f'--out {path} is not a Python file: give a name that ends in .py')
    if path.resolve() == Path(str(cfg.filename)).resolve():
        raise UserError(f'--out {path} would overwrite the config: choose another name')
    writable_folder(path.parent)
    write_text(path, cfg.pretty_text)
