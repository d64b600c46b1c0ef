"""The operators in the place of mmcv's compiled extension: in one process, or in an environment for good."""

import sys
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder
from importlib.metadata import files as installed_files
from importlib.metadata import packages_distributions
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

from ..errors import UserError
from ..files import write_atomic
from ._table import OPERATORS

EXTENSION = 'mmcv._ext'
EXTENSION_FILE = '''\
"""mmcv's operators from torchvision and torch; written by ``python -m mogacore.operators --install``."""
from mogacore.operators import OPERATORS, missing_operator as __getattr__
globals().update(OPERATORS)
'''


def missing_operator(name: str) -> Callable:
    """What ``mmcv._ext`` has under a name that is not in ``OPERATORS``: a function that raises ``UserError``.

    The error comes with the call, since mmcv looks every name up when it is imported.
    """
    if name.startswith('__'):
        raise AttributeError(f'module {EXTENSION!r} has no attribute {name!r}')

    def missing(*_args, **_kwargs):
        raise UserError(
            f'mmcv operator {name!r} is not among those that torchvision and torch provide: compile mmcv for it with '
            'MOGACORE_COMPILE_MMCV=1 bash tools/setup_env.sh'
        )

    return missing


def register() -> None:
    """Register ``OPERATORS`` as ``mmcv._ext`` in this process, unless mmcv is absent or has an extension of its own.

    It does not import mmcv, and a second call does nothing.
    """
    if EXTENSION in sys.modules:
        return
    package, extension = _find_mmcv()
    if package is None or extension is not None:
        return
    # mmengine looks for a spec with a loader, which a bare module does not have.
    module = module_from_spec(spec_from_file_location(EXTENSION, __file__))
    module.__getattr__ = missing_operator
    vars(module).update(OPERATORS)
    sys.modules[EXTENSION] = module


def install() -> Path | None:
    """Write ``_ext.py`` into the installed mmcv, so that the libraries' own tools find the operators too.

    pip removes the file together with mmcv. An extension compiled later wins over it; where one is there, nothing is
    written.

    Returns:
        The file, or None where mmcv is absent or compiled.

    Raises:
        OSError: If the file cannot be written.
    """
    package, extension = _find_mmcv()
    if package is None or _is_compiled(extension):
        return None
    path = package / '_ext.py'
    write_atomic(path, EXTENSION_FILE.encode())
    for distribution in packages_distributions().get('mmcv', ()):
        for record in installed_files(distribution) or ():
            location = Path(record.locate())
            if location.name == 'RECORD' and location.parent.parent == package.parent:
                content = location.read_text()
                if '\nmmcv/_ext.py,' not in content:
                    write_atomic(location, f'{content.rstrip()}\nmmcv/_ext.py,,\n'.encode())
    return path


def in_use() -> str | None:
    """Whose operators mmcv runs with: ``'compiled mmcv'`` or ``'torchvision'``; None where mmcv is absent."""
    package, extension = _find_mmcv()
    if package is None:
        return None
    return 'compiled mmcv' if _is_compiled(extension) else 'torchvision'


def _find_mmcv() -> tuple[Path | None, ModuleSpec | None]:
    """Folder of the installed mmcv and the spec of its extension, neither imported."""
    spec = find_spec('mmcv')
    if spec is None or spec.origin is None:  # no origin: a folder that an uninstalled mmcv left
        return None, None
    return Path(spec.origin).parent, PathFinder.find_spec(EXTENSION, spec.submodule_search_locations)


def _is_compiled(extension: ModuleSpec | None) -> bool:
    return extension is not None and str(extension.origin).endswith(tuple(EXTENSION_SUFFIXES))
