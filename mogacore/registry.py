"""Makes our classes buildable by name in every installed OpenMMLab library: the one file that names them.

A config gets it by ``custom_imports = dict(imports=['mogacore.registry'], allow_failed_imports=False)``, under our
tools and under each library's own.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from io import StringIO

# Imported for their registration in mmengine's registries.
from . import datasets, evaluation  # noqa: F401
from .checkpoint import register_safe_loader
from .engine import amp, ema, hooks, optim, resume, saving, schedules, sharding, stop, tta  # noqa: F401
from .errors import UserError
from .models import AblatedMogaNet, MogaNet, RootRelativeHeatmap

TASK_LIBRARIES = ('mmpretrain', 'mmdet', 'mmseg', 'mmpose')


def register_backbone(cls: type, libraries: tuple[str, ...] = TASK_LIBRARIES) -> None:
    """Make ``cls`` buildable by its name in mmengine and in every installed one of ``libraries``.

    A library that is not there is skipped; one that is there but broken lets its own error out.
    """
    for library in ('mmengine', *libraries):
        if find_spec(library) is None:
            continue
        models = import_module(f'{library}.registry').MODELS
        if models.module_dict.get(cls.__name__) is not cls:
            models.register_module(module=cls)


def register_codec(cls: type) -> None:
    """Make ``cls`` buildable by its name among mmpose's codecs, whose registry has no parent in mmengine."""
    if find_spec('mmpose') is None:
        return
    codecs = import_module('mmpose.registry').KEYPOINT_CODECS
    if codecs.module_dict.get(cls.__name__) is not cls:
        codecs.register_module(module=cls)


def import_quietly(library: str) -> None:
    """Import a task library's data sets, models and the rest without its word that OneDL's are absent.

    Raises:
        UserError: If the library is not installed.
    """
    if library not in TASK_LIBRARIES:
        return
    if find_spec(library) is None:
        raise UserError(f'the config needs {library}, which is not installed: run tools/doctor.py for what to do')
    with redirect_stdout(StringIO()) as said:
        import_module(f'{library}.utils').register_all_modules(init_default_scope=False)
    for line in said.getvalue().splitlines():
        if 'Could not import OneDL' not in line:
            print(line)


register_backbone(MogaNet)
register_backbone(AblatedMogaNet)
register_codec(RootRelativeHeatmap)
register_safe_loader()
