"""The targets by name, each made on first use since they import different parts of mogacore."""

from __future__ import annotations

import gc
from functools import cache
from importlib import import_module
from types import ModuleType

from fuzzing.harness import Target

MODULES = {
    'checkpoint': 'files', 'idx': 'files', 'npy': 'files', 'coco': 'coco', 'config': 'configs', 'server': 'server',
}  # fmt: skip


def module_of(name: str) -> ModuleType:
    """The module of a target, with all that it imports."""
    return import_module(f'fuzzing.{MODULES[name]}')


@cache
def target(name: str) -> Target:
    """The target of a name; its valid inputs have run once, so that imports do not count as time of an input."""
    made = getattr(module_of(name), f'{name}_target')()
    for value in made.valid:
        assert made.run(value) == 'accepted', f'{name} refuses {value!r:.200}'
    gc.freeze()  # Hypothesis collects garbage, which would take long with all libraries in memory
    return made
