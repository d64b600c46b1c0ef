"""MogaNet, one fast and exact backbone for every vision task of the OpenMMLab 2.x stack."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from .after_import import call_after_import
from .process import keep_freed_memory, limit_spinning
from .version import __version__

if TYPE_CHECKING:
    from .models import create_model, list_models

__all__ = ['__version__', 'create_model', 'keep_freed_memory', 'limit_spinning', 'list_models']

# Imported on first use: importing torch takes seconds, and the command-line help does not need it.
_MODULES = (
    'analysis', 'checkpoint', 'datasets', 'deploy', 'engine', 'evaluation', 'inference', 'libraries', 'models',
    'operators', 'published', 'registry', 'zoo',
)  # fmt: skip


# Names that mogacore adds to other libraries, if the installed distribution has the part that they need.
for _name, _module, _function in (
    ('timm', 'models.timm_moganet', 'register'),
    ('mmpretrain.apis.model', 'libraries', 'register_names_in_mmpretrain'),
    ('mmengine.infer.infer', 'libraries', 'register_names_in_inferencers'),
):
    if find_spec(f'{__name__}.{_module.partition(".")[0]}'):
        call_after_import(_name, f'{__name__}.{_module}', _function)


def __getattr__(name: str):
    if name in ('create_model', 'list_models'):
        from .errors import missing_package

        try:
            return getattr(import_module('.models', __name__), name)
        except ModuleNotFoundError as error:
            if line := missing_package(error):
                raise ImportError(line) from None
            raise
    if name in _MODULES:
        return import_module(f'.{name}', __name__)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted([*globals(), 'create_model', 'list_models', *_MODULES])
