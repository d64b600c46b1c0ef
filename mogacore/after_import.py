"""Calls a function of mogacore once another library has been imported, without importing it.

``import mogacore`` can thereby add names to timm, mmpretrain and mmengine, whichever comes first, and stays light.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def call_after_import(name: str, module: str, function: str) -> None:
    """Call ``module.function()`` after the import of the module ``name``, or at once if it has been imported.

    Args:
        name: Module of another library.
        module: Module of mogacore, imported only then.
        function: Name of a function without arguments.
    """
    if name in sys.modules:
        getattr(import_module(module), function)()
    else:
        sys.meta_path.insert(0, _Finder(name, module, function))


class _Finder(MetaPathFinder):
    """Finds the module as the other finders do, and adds the call to its loader."""

    def __init__(self, name: str, module: str, function: str) -> None:
        self.name, self.module, self.function = name, module, function

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                getattr(import_module(self.module), self.function)()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]  # of this spec's loader alone
        return spec
