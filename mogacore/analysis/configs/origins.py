"""Finds the file and line that each value of a config comes from.

The files of a ``_base_`` chain are parsed, not executed: each expression becomes a tree of :class:`Origin` with the
shape of its value, and trees are merged by the rules by which mmengine merges the values. A value that only running the
file would give, such as the result of a function, has the line of its expression.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

DELETE = '_delete_'
BASE = '_base_'
BASE_VARIABLE = re.compile(r'\{\{\s*_base_\.([\w.]+)\s*\}\}')
# Other variables that mmengine replaces in the text before it is Python, such as {{$HOME:/tmp}} and {{ fileDirname }}.
TEXT_VARIABLE = re.compile(r'\{\{[^{}\n]*\}\}')


@dataclass
class Origin:
    """Where a value comes from.

    Args:
        file: The file; None for ``--cfg-options``.
        line: Line in the file, from 1; None for a whole file and for ``--cfg-options``.
        children: Origins of the entries of a dict, or of the items of a list by index as text. None for any other
            value, and where only running the file would give the entries.
        is_dict: Whether ``children`` are those of a dict.
        is_whole: Whether ``children`` are all entries; if not, the others have the origin of their parent.
    """

    file: Path | None
    line: int | None
    children: dict[str, Origin] | None = None
    is_dict: bool = False
    is_whole: bool = True

    def __str__(self) -> str:
        if self.file is None:
            return '--cfg-options'
        name = str(self.file)
        if self.file.is_relative_to(Path.cwd()):
            name = str(self.file.relative_to(Path.cwd()))
        return name if self.line is None else f'{name}:{self.line}'

    def find(self, path: Iterable[str]) -> Origin:
        """The origin of an entry: the deepest one that is known on the way to it."""
        found = self
        for key in path:
            if key not in (found.children or {}):
                break
            found = found.children[key]  # type: ignore[index]
        return found

    def nested(self) -> Iterator[Origin]:
        """This origin and all below it."""
        yield self
        for child in (self.children or {}).values():
            yield from child.nested()


def find_origins(path: str | Path, cfg_options: Mapping[str, Any] | None = None) -> Origin:
    """Origins of all values of a config.

    Args:
        path: A config that :func:`mogacore.engine.config.load_config` can read.
        cfg_options: Options that override it.
    """
    merged = _of_file(Path(path).absolute())
    options = Origin(None, None, {}, is_dict=True)
    for option, value in (cfg_options or {}).items():
        *parents, last = option.split('.')
        node = options
        for key in parents:
            node = node.children.setdefault(key, Origin(None, None, {}, is_dict=True))  # type: ignore[union-attr]
        node.children[last] = _of_value(value)  # type: ignore[index]
    return merge(options, merged, by_index=True)


def _of_value(value: object) -> Origin:
    if not isinstance(value, (list, tuple)):
        return Origin(None, None)
    return Origin(None, None, {str(index): _of_value(item) for index, item in enumerate(value)})


def merge(own: Origin, base: Origin, by_index: bool = False) -> Origin:
    """The origins of a dict that mmengine merges into another.

    Args:
        own: Origins of the dict that takes precedence; an entry ``_delete_`` is removed where mmengine removes it.
        base: Origins of the other.
        by_index: Whether the keys of a dict may be indices of a list, as in options.
    """
    if own.children is None or not own.is_whole:
        return own
    merged = dict(base.children or {})
    is_whole = base.is_whole and base.children is not None
    unknown = None if is_whole else Origin(base.file, base.line)  # the base may have any key
    for key, child in own.children.items():
        old = merged.get(key, unknown)
        if old is not None and child.is_dict and child.children is not None:
            is_new = child.children.pop(DELETE, None) is not None
            merged[key] = child if is_new else merge(child, old, by_index)
        else:
            merged[key] = child
    return Origin(base.file, base.line, merged, base.is_dict or base.children is None, is_whole)


def _of_file(path: Path) -> Origin:
    """Origins of the variables of a file, merged into those of its bases."""
    base = Origin(path, None, {}, is_dict=True)
    if path.suffix != '.py':  # JSON and YAML, of which only the file is known
        keys = Config.fromfile(path)._cfg_dict
        return Origin(path, None, {str(key): Origin(path, None) for key in keys}, is_dict=True)
    if Config._is_lazy_import(str(path)):
        return Origin(path, None, {}, is_dict=True, is_whole=False)
    for name in Config._get_base_files(str(path)):
        of_base = _of_file(Path(Config._get_cfg_path(name, str(path))[0]).resolve())
        base.children.update(of_base.children or {})  # type: ignore[union-attr]
    reader = _Reader(path, base)
    reader.run(ast.parse(TEXT_VARIABLE.sub(_keep_base_variable, path.read_text(encoding='utf-8'))).body)
    own = {name: deepcopy(origin) for name, origin in reader.variables.items() if not name.startswith('__')}
    own.pop(BASE)
    return merge(Origin(path, None, own, is_dict=True), base)


def _keep_base_variable(match: re.Match) -> str:
    return match[0] if BASE_VARIABLE.fullmatch(match[0]) else 'None'


class _Reader:
    """Follows the statements of a file with origins in place of values, which names share as Python's do."""

    def __init__(self, path: Path, base: Origin):
        self.path = path
        self.variables: dict[str, Origin] = {BASE: base}

    def run(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            match statement:
                case ast.Assign(targets=targets, value=value):
                    is_base = any(isinstance(target, ast.Name) and target.id == BASE for target in targets)
                    for target in () if is_base else targets:
                        self.assign(target, self.read(value))
                case ast.AnnAssign(target=target, value=ast.expr() as value):
                    self.assign(target, self.read(value))
                case ast.Expr(value=ast.Constant()):
                    pass
                case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.ClassDef() | ast.Pass():
                    pass
                case ast.Delete(targets=targets):
                    for target in targets:
                        self.delete(target)
                case ast.Expr(value=ast.Call(func=ast.Attribute(value=owner, attr='update'), args=[], keywords=new)):
                    self.update(owner, new, statement)
                case _:
                    self.blur(statement)

    def assign(self, target: ast.expr, value: Origin) -> None:
        match target:
            case ast.Name(id=name):
                self.variables[name] = value
            case ast.Subscript() | ast.Attribute():
                owner, key = self.read(target.value), _key(target)
                if key is None:
                    self.blur(target)
                elif owner.children is None:
                    owner.children, owner.is_whole = {str(key): value}, False
                else:
                    owner.children[_position(owner, key)] = value
            case _:
                self.blur(target)

    def delete(self, target: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.variables.pop(target.id, None)
        elif isinstance(target, ast.Subscript) and (owner := self.read(target.value)).is_dict and owner.children:
            owner.children.pop(str(_key(target)), None)
        else:
            self.blur(target)

    def update(self, owner: ast.expr, new: list[ast.keyword], statement: ast.stmt) -> None:
        children = self.read(owner).children
        if children is None or any(item.arg is None for item in new):
            self.blur(statement)
        else:
            children.update({str(item.arg): self.read(item.value) for item in new})

    def blur(self, node: ast.AST) -> None:
        """Give everything that a statement may change, such as the variables in a loop, the line of the statement."""
        for part in ast.walk(node):
            if not isinstance(part, ast.Name) or part.id == BASE:
                continue
            if isinstance(part.ctx, ast.Store) and part.id not in self.variables:
                self.variables[part.id] = self.unknown(node)
            elif part.id in self.variables:
                origin = self.variables[part.id]
                origin.file, origin.line, origin.children = self.path, getattr(node, 'lineno', None), None

    def unknown(self, node: ast.AST) -> Origin:
        return Origin(self.path, getattr(node, 'lineno', None))

    def read(self, node: ast.expr) -> Origin:
        """Origins of the value of an expression."""
        match node:
            case ast.Name(id=name) if name in self.variables:
                return self.variables[name]
            case ast.Constant(value=str(text)) if found := BASE_VARIABLE.fullmatch(text):
                return self.variables[BASE].find(found[1].split('.'))
            case ast.Set(elts=[ast.Set(elts=[inner])]):  # {{_base_.name}}
                return self.read(inner)
            case ast.Subscript(value=value, slice=ast.Slice() as part):
                return self.slice(node, self.read(value), part)
            case ast.Attribute() | ast.Subscript():
                owner, key = self.read(node.value), _key(node)
                known = owner.children or {}
                if key is not None and (position := _position(owner, key)) in known:
                    return known[position]
            case ast.Dict(keys=keys, values=values):
                return self.entries(node, zip(keys, values, strict=True))
            case ast.Call(func=ast.Name(id='dict'), args=args, keywords=keywords) if len(args) < 2:
                pairs = [(None, arg) for arg in args]
                return self.entries(node, [*pairs, *((item.arg, item.value) for item in keywords)])
            case ast.Call(func=ast.Attribute(value=inner, attr='copy'), args=[]):
                return _copied(self.read(inner))
            case ast.Call(func=ast.Attribute(attr='deepcopy') | ast.Name(id='deepcopy'), args=[inner]):
                return deepcopy(self.read(inner))
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return self.items(node, items)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self.items(node, [ast.Starred(left), ast.Starred(right)])
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return self.entries(node, [(None, left), (None, right)])
        return self.unknown(node)

    def entries(self, node: ast.expr, pairs: Iterable[tuple[ast.expr | str | None, ast.expr]]) -> Origin:
        """Origins of a dict of keys and values; without a key, the value is a dict whose entries it gets."""
        found: dict[str, Origin] = {}
        for key, value in pairs:
            if key == DELETE and isinstance(value, ast.Constant) and not value.value:
                continue
            origin = self.read(value)
            if key is None:
                if origin.children is None or not origin.is_dict or not origin.is_whole:
                    return self.unknown(node)
                found |= origin.children
            elif isinstance(key, str):
                found[key] = origin
            elif isinstance(key, ast.Constant):
                found[str(key.value)] = origin
            else:
                return self.unknown(node)
        return Origin(self.path, node.lineno, found, is_dict=True)

    def items(self, node: ast.expr, items: Iterable[ast.expr]) -> Origin:
        """Origins of a list."""
        found: list[Origin] = []
        for item in items:
            if not isinstance(item, ast.Starred):
                found.append(self.read(item))
                continue
            origin = self.read(item.value)
            if origin.children is None or origin.is_dict or not origin.is_whole:
                return self.unknown(node)
            found += origin.children.values()
        return Origin(self.path, node.lineno, {str(index): origin for index, origin in enumerate(found)})

    def slice(self, node: ast.expr, owner: Origin, part: ast.Slice) -> Origin:
        """Origins of a slice of a list."""
        try:
            limits = [None if end is None else ast.literal_eval(end) for end in (part.lower, part.upper, part.step)]
        except ValueError:
            return self.unknown(node)
        if owner.children is None or owner.is_dict or not owner.is_whole:
            return self.unknown(node)
        chosen = list(owner.children.values())[slice(*limits)]
        return Origin(self.path, node.lineno, {str(index): origin for index, origin in enumerate(chosen)})


def _copied(origin: Origin) -> Origin:
    children = None if origin.children is None else dict(origin.children)
    return Origin(origin.file, origin.line, children, origin.is_dict, origin.is_whole)


def _key(node: ast.Attribute | ast.Subscript) -> str | int | None:
    """The constant key or index of an access; None if it is computed."""
    if isinstance(node, ast.Attribute):
        return node.attr
    try:
        key = ast.literal_eval(node.slice)
    except ValueError:
        return None
    return key if isinstance(key, (str, int)) else None


def _position(owner: Origin, key: str | int) -> str:
    if isinstance(key, int) and key < 0 and not owner.is_dict:
        key += len(owner.children or {})
    return str(key)
