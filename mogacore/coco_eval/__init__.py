"""COCO evaluation over faster-coco-eval, under the module names of xtcocotools and pycocotools.

mmpose imports xtcocotools, which does not import on numpy 2: its extension is compiled against numpy 1. mmdet imports
pycocotools, which works and is slow. The modules of this package have what these libraries use of the two, with the
same numbers, on numpy 1.26 and 2.

An installed pycocotools takes precedence, since others build on its internals. An installed xtcocotools does not.

There are two ways to use the stand-ins:

- ``register()`` serves the running process; `mogacore.registry` calls it.
- ``python -m mogacore.coco_eval --install`` writes packages of a few lines into the environment, so that the libraries'
  own tools find them too.
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

# Module of this package behind each module of the two.
STAND_INS = {
    'xtcocotools': {'coco': 'coco', 'cocoeval': 'cocoeval', 'mask': 'mask'},
    'pycocotools': {'coco': 'detection', 'cocoeval': 'detection', 'mask': 'mask'},
}
MARKER = 'Stand-in written by mogacore'


class _Finder(MetaPathFinder, Loader):
    """Finds the stand-ins, which are imported at the first use."""

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
        """Leave it to Python."""

    def exec_module(self, module: ModuleType) -> None:
        package, _, name = module.__name__.partition('.')
        if name:
            ours = import_module(f'{__name__}.{STAND_INS[package][name]}')
            module.__doc__ = ours.__doc__
            module.__dict__.update({key: getattr(ours, key) for key in ours.__all__})


def register() -> None:
    """Let ``import xtcocotools`` and ``import pycocotools`` find the stand-ins in the running process.

    Without faster-coco-eval it does nothing. Modules that are already imported stay as they are. Further calls do
    nothing, and no call imports a library.
    """
    if find_spec('faster_coco_eval') is None or any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    packages = {'xtcocotools'} | ({'pycocotools'} if find_spec('pycocotools') is None else set())
    sys.meta_path.insert(0, _Finder(packages))


def install(site_packages: str | Path | None = None) -> dict[str, str]:
    """Write stand-ins whose modules import those of this package, or write them again.

    Args:
        site_packages: Folder on Python's path; by default that of the running environment.

    Returns:
        For each package what came of it: that it is written, or that an installed pycocotools stays.

    Raises:
        UserError: If faster-coco-eval is missing, or an xtcocotools that this function did not write is installed.
    """
    if find_spec('faster_coco_eval') is None:
        raise UserError('faster-coco-eval is not installed, which does the evaluation: `pip install faster-coco-eval`')
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
            outcome[package] = 'is installed and stays'
        else:
            raise UserError(
                f'{package} is installed in {site_packages}: run `pip uninstall {package}`, then this again'
            )
    return outcome
