"""Deployment: folding and export of trained networks, and prediction with the exported files."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from mogacore.errors import missing_package

if TYPE_CHECKING:
    from mogacore.runtime.predictor import Predictor
    from mogacore.runtime.topdown import TopDown

    from .folding import fuse, unfused

__all__ = ['Predictor', 'TopDown', 'fuse', 'unfused']

# Imported on first use: what is in mogacore.runtime works without torch. No module has the name of what it defines,
# since Python would then replace the object by the module.
_MODULES = {
    'Predictor': 'mogacore.runtime.predictor',
    'TopDown': 'mogacore.runtime.topdown',
    'fuse': 'mogacore.deploy.folding',
    'unfused': 'mogacore.deploy.folding',
}


def __getattr__(name: str):
    if name in _MODULES:
        try:
            return getattr(import_module(_MODULES[name]), name)
        except ModuleNotFoundError as error:
            if line := missing_package(error):
                raise ImportError(line) from None
            raise
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
