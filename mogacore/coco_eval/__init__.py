"""COCO evaluation with faster-coco-eval, under the module names of xtcocotools and pycocotools.

mmpose imports xtcocotools, which cannot be imported with NumPy 2 because its extension is compiled against NumPy 1.
mmdet imports pycocotools, which works but is slow. This package replaces the parts of both that these libraries use,
with the same results, on NumPy 1.26 and 2.

An installed pycocotools takes precedence, because other packages use its internals. An installed xtcocotools does not.

There are two ways to use the replacements:

- ``register()`` makes them importable in the running process; `mogacore.registry` calls it.
- ``python -m mogacore.coco_eval --install`` writes small packages into the environment, so that the tools of mmpose and
  mmdet find them too.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Collection, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from ..errors import UserError
from ..files import write_atomic

# Replaced package to its modules, and the module of this package behind each.
STAND_INS = {
    'xtcocotools': {'coco': 'coco', 'cocoeval': 'cocoeval', 'mask': 'mask'},
    'pycocotools': {'coco': 'detection', 'cocoeval': 'detection', 'mask': 'mask'},
}
MARKER = 'Stand-in written by mogacore'


class _Finder(MetaPathFinder, Loader):
    """Finds the replacements, which are imported on first use."""

    def __init__(self, packages: Collection[str]) -> None:
        self.packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, module = fullname.partition('.')
        if package not in self.packages or (module and module not in STAND_INS[package]):
            return None
        return ModuleSpec(fullname, self, origin=__file__, is_package=not module)

    def create_module(self, spec: ModuleSpec) -> None:
        """Use Python's default module creation."""

    def exec_module(self, module: ModuleType) -> None:
        package, _, name = module.__name__.partition('.')
        if name:
            ours = import_module(f'{__name__}.{STAND_INS[package][name]}')
            module.__doc__ = ours.__doc__
            module.__dict__.update({key: getattr(ours, key) for key in ours.__all__})


def register() -> None:
    """Make the replacements importable as ``xtcocotools`` and ``pycocotools`` in the running process.

    Does nothing without faster-coco-eval or when called again. Modules that are already imported stay as they are. No
    library is imported.
    """
    if find_spec('faster_coco_eval') is None or any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    packages = {'xtcocotools'} | ({'pycocotools'} if find_spec('pycocotools') is None else set())
    sys.meta_path.insert(0, _Finder(packages))


def install(site_packages: str | Path | None = None) -> dict[str, str]:
    """Write, or rewrite, packages whose modules import those of this package.

    Args:
        site_packages: Folder on Python's path; None is the site-packages folder of the running environment.

    Returns:
        The outcome for each package: written, or kept if it is an installed pycocotools.

    Raises:
        UserError: If faster-coco-eval is missing, or an xtcocotools that this function did not write is installed.
    """
    if find_spec('faster_coco_eval') is None:
        raise UserError('faster-coco-eval, which computes the scores, is missing: run `pip install faster-coco-eval`')
    site_packages = Path(site_packages or sysconfig.get_path('purelib'))
    outcome = {}
    for package, modules in STAND_INS.items():
        found = PathFinder.find_spec(package, [str(site_packages)])
        if found is None or (found.origin and MARKER in Path(found.origin).read_text()):
            folder = site_packages / package
            folder.mkdir(exist_ok=True)
            for name, ours in modules.items():
                write_atomic(folder / f'{name}.py', f'from {__name__}.{ours} import *  # noqa: F403\n'.encode())
            write_atomic(folder / '__init__.py', f'"""{MARKER}: python -m {__name__} --install."""\n'.encode())
            outcome[package] = f'stand-in written to {folder}'
        elif package == 'pycocotools':
            outcome[package] = 'already installed, kept'
        else:
            raise UserError(
                f'{package} is installed in {site_packages}: run `pip uninstall {package}`, then repeat this command'
            )
    return outcome
