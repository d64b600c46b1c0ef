"""Replace mmcv's compiled extension with our operators: in the running process, or in an environment."""

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
    """A function that raises ``UserError``, for a name of ``mmcv._ext`` that is not in ``OPERATORS``.

    The error is raised by the call and not by the lookup, because mmcv looks up every name on import.

    Raises:
        AttributeError: If the name starts with two underscores.
    """
    if name.startswith('__'):
        raise AttributeError(f'module {EXTENSION!r} has no attribute {name!r}')

    def missing(*_args, **_kwargs):
        raise UserError(
            f'mmcv operator {name!r} has no replacement from torchvision and torch: compile mmcv with '
            'MOGACORE_COMPILE_MMCV=1 bash tools/setup_env.sh'
        )

    return missing


def register() -> None:
    """Register ``OPERATORS`` as ``mmcv._ext`` in this process, unless mmcv is missing or has an extension.

    Does not import mmcv. A second call does nothing.
    """
    if EXTENSION in sys.modules:
        return
    package, extension = _find_mmcv()
    if package is None or extension is not None:
        return
    # mmengine looks for a spec with a loader, which a bare module does not have.
    spec = spec_from_file_location(EXTENSION, __file__)
    assert spec is not None  # a .py file always has a loader
    module = module_from_spec(spec)
    vars(module).update(OPERATORS, __getattr__=missing_operator)
    sys.modules[EXTENSION] = module


def install() -> Path | None:
    """Write ``_ext.py`` into the installed mmcv, so that the tools of other libraries find the operators too.

    The file is added to mmcv's list of files, so pip removes it together with mmcv. A compiled extension takes
    precedence over it; if there is one, nothing is written.

    Returns:
        The file, or None if mmcv is missing or compiled.

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
    """Which operators mmcv uses: ``'compiled mmcv'`` or ``'torchvision'``; None if mmcv is missing."""
    package, extension = _find_mmcv()
    if package is None:
        return None
    return 'compiled mmcv' if _is_compiled(extension) else 'torchvision'


def _find_mmcv() -> tuple[Path | None, ModuleSpec | None]:
    """Folder of the installed mmcv and the spec of its extension, without importing them."""
    spec = find_spec('mmcv')
    if spec is None or spec.origin is None:  # no origin: a folder left by an uninstalled mmcv
        return None, None
    return Path(spec.origin).parent, PathFinder.find_spec(EXTENSION, spec.submodule_search_locations)


def _is_compiled(extension: ModuleSpec | None) -> bool:
    return extension is not None and str(extension.origin).endswith(tuple(EXTENSION_SUFFIXES))
