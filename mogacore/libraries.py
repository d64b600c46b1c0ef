"""The task libraries mmpretrain, mmdet, mmseg and mmpose: the only module that names them.

Each is optional and is imported inside the functions only: a missing library is skipped, a broken one raises its own
error.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from io import StringIO

from mogacore import coco_eval
from mogacore.errors import UserError

TASK_LIBRARIES = ('mmpretrain', 'mmdet', 'mmseg', 'mmpose')


def register_stand_ins() -> None:
    """Provide replacements for missing dependencies of the task libraries: mmcv's operators, xtcocotools, pycocotools.

    Call this before importing a task library.
    """
    coco_eval.register()
    if find_spec('mmcv') and find_spec('torchvision'):
        from mogacore import operators

        operators.register()


def register_backbone(cls: type, libraries: tuple[str, ...] = TASK_LIBRARIES) -> None:
    """Register ``cls`` by its name in mmengine and in every installed library of ``libraries``."""
    for library in ('mmengine', *libraries):
        if find_spec(library) is None:
            continue
        models = import_module(f'{library}.registry').MODELS
        if models.module_dict.get(cls.__name__) is not cls:
            models.register_module(module=cls)


def register_codec(cls: type) -> None:
    """Register ``cls`` by its name among mmpose's codecs, whose registry has no parent in mmengine."""
    if find_spec('mmpose') is None:
        return
    codecs = import_module('mmpose.registry').KEYPOINT_CODECS
    if codecs.module_dict.get(cls.__name__) is not cls:
        codecs.register_module(module=cls)


def import_quietly(library: str) -> None:
    """Import all modules that a task library registers, without its notice that OneDL packages are missing.

    Args:
        library: One of ``TASK_LIBRARIES``; any other name is ignored.

    Raises:
        UserError: If the library is not installed.
    """
    if library not in TASK_LIBRARIES:
        return
    if find_spec(library) is None:
        raise UserError(f'the config needs {library}, which is not installed: run tools/doctor.py for instructions')
    register_stand_ins()
    with redirect_stdout(StringIO()) as output:
        import_module(f'{library}.utils').register_all_modules(init_default_scope=False)
    for line in output.getvalue().splitlines():
        if 'Could not import OneDL' not in line:
            print(line)
