"""Running exported files without torch: predictions as records and drawings, as ``mogacore infer`` writes them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .predictor import Prediction, Predictor

__all__ = ['Prediction', 'Predictor']


def __getattr__(name: str):
    # Imported on first use: other packages of mogacore need single modules of this one only.
    if name in __all__:
        return getattr(import_module('.predictor', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
