"""The task libraries mmpretrain, mmdet, mmseg and mmpose: the only module that names them.

Each is optional and is imported inside the functions only: a missing library is skipped, a broken one raises its own
error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

from mogacore import coco_eval, images
from mogacore.checkpoint.sources import without_weights
from mogacore.errors import UserError
from mogacore.locations import project

TASK_LIBRARIES = ('mmpretrain', 'mmdet', 'mmseg', 'mmpose')
# Modules with classes that replace those of the same name in a registry of a library.
REPLACEMENTS = {
    'mmdet': {'DATASETS': 'mogacore.datasets.coco_boxes', 'METRICS': 'mogacore.evaluation.coco_boxes'},
    'mmpose': {'DATASETS': 'mogacore.datasets.coco_keypoints'},
    'mmseg': {'TRANSFORMS': 'mogacore.datasets.class_maps'},
}

# Folder of configs/ with the models of a library.
CONFIGS = {'mmpretrain': 'classification', 'mmdet': 'detection', 'mmseg': 'segmentation', 'mmpose': 'pose'}


def register_stand_ins() -> None:
    """Provide replacements for missing dependencies of the task libraries: mmcv's operators, xtcocotools, pycocotools.

    mmcv's decoding of images follows :mod:`mogacore.images`. Call this before importing a task library.
    """
    coco_eval.register()
    if find_spec('mmcv') and find_spec('torchvision'):
        from mogacore import operators

        operators.register()
    if find_spec('mmcv'):
        images.register()


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


def register_replacements() -> None:
    """Make the registries of the installed task libraries import ``REPLACEMENTS`` after the library's own classes."""
    for library, modules in REPLACEMENTS.items():
        if find_spec(library) is None:
            continue
        for name, module in modules.items():
            registry = getattr(import_module(f'{library}.registry'), name)
            if module not in registry._locations:
                registry._locations.append(module)
            if registry._imported:
                import_module(module)


def register_names_in_mmpretrain() -> None:
    """Add the models of our metafile to those that mmpretrain lists, builds and runs by name.

    Called after ``import mogacore`` once mmpretrain has been imported, see :mod:`mogacore.after_import`.
    """
    hub = import_module('mmpretrain.apis.model').ModelHub
    hub.register_model_index(project() / _metafile('mmpretrain'), config_prefix=project())
    for model in hub._models_dict.values():
        if model.in_collection == 'MogaNet' and not model.weights:
            model.weights = without_weights(model.name)


def register_names_in_inferencers() -> None:
    """Add the models of our metafiles to those that the inferencers of mmdet, mmseg and mmpose know by name.

    Called after ``import mogacore`` once mmengine's inferencer has been imported, see :mod:`mogacore.after_import`.
    """
    inferencer = import_module('mmengine.infer.infer').BaseInferencer
    of_library = inferencer._get_models_from_metafile

    def of_both(dir: str) -> Iterator[dict]:
        yield from of_library(dir)
        # The folder is .mim in the installed package, or the checkout that contains the package.
        folder = Path(dir)
        library = folder.parent.name if folder.name == '.mim' else ''
        for name in CONFIGS:
            if name == library or (not library and (folder / name / '__init__.py').is_file()):
                for model in import_module('mmengine').load(project() / _metafile(name))['Models']:
                    weights = model.get('Weights') or without_weights(model['Name'])
                    yield {**model, 'Config': str(project() / model['Config']), 'Weights': weights}

    inferencer._get_models_from_metafile = staticmethod(of_both)


def _metafile(library: str) -> Path:
    return Path('configs', CONFIGS[library], 'metafile.yml')


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


@cache
def registries(scope: str) -> tuple:
    """The registries of a scope and of mmengine, the scope's first; see :func:`import_quietly` for filling them."""
    from mmengine.registry import Registry

    names = [scope, 'mmengine'] if scope in TASK_LIBRARIES else ['mmengine']
    modules = [import_module(f'{name}.registry') for name in names]
    return tuple(
        dict.fromkeys(item for module in modules for item in vars(module).values() if isinstance(item, Registry))
    )


@cache
def find_class(name: str, scope: str) -> list[tuple[type, str]]:
    """Every class that is registered by a name, with the name of its registry.

    mmdet builds the layers of RoI extractors from mmcv.ops without a registry; these are found as well.
    """
    if not all(name.split('.')):  # mmengine takes an empty part before a dot for a package, and fails
        return []
    found = [(registry.get(name), registry.name) for registry in registries(scope)]
    found = [item for item in found if item[0] is not None]
    if not found and scope in TASK_LIBRARIES and hasattr(import_module('mmcv.ops'), name):
        found = [(getattr(import_module('mmcv.ops'), name), 'model')]
    return list(dict.fromkeys(found))


def registered_names(scope: str) -> set[str]:
    """Every name that a scope can build."""
    return {name for registry in registries(scope) for name in registry.module_dict}


@cache
def source_words(package: str) -> tuple[frozenset[str], frozenset[str]]:
    """Words in the source files of an installed package, and those that occur in quotes; none if it is absent.

    Comments and docstrings do not count.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return frozenset(), frozenset()
    files = [file for file in Path(spec.origin).parent.rglob('*.py') if '.mim' not in file.parts]
    prose = re.compile(r'"""(?:.|\n)*?"""|#[^\n]*')
    texts = [prose.sub('', file.read_text(errors='ignore')) for file in files]
    words = (word for text in texts for word in re.findall(r'[A-Za-z_]\w+', text))
    quoted = (word for text in texts for word in re.findall(r'[\'"]([A-Za-z_]\w+)[\'"]', text))
    return frozenset(words), frozenset(quoted)
