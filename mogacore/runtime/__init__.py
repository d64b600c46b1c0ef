"""Running exported files without torch: predictions as records and drawings, as ``mogacore infer`` writes them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .predictor import Prediction, Predictor
    from .topdown import TopDown

__all__ = ['Prediction', 'Predictor', 'TopDown']

_MODULES = {'Prediction': '.predictor', 'Predictor': '.predictor', 'TopDown': '.topdown'}


def __getattr__(name: str):
    # Imported on first use: other packages of mogacore need single modules of this one only.
    if name in _MODULES:
        return getattr(import_module(_MODULES[name], __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
