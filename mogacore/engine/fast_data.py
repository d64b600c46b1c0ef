"""Training pipelines with faster transforms that draw the same random numbers."""

from __future__ import annotations

from mmengine.config import Config

from mogacore.errors import UserError
from mogacore.text import type_name

from .config import leaves

REPLACEMENTS = {
    'mmpretrain.RandomResizedCrop': 'FastRandomResizedCrop',
    'mmpretrain.RandAugment': 'FastRandAugment',
    'mmseg.RandomCrop': 'FastRandomCrop',
    'mmdet.LoadAnnotations': 'LoadPolygons',
}
# Steps of detection that do the same to polygons as to bitmaps.
FOR_POLYGONS = (
    'FilterAnnotations', 'LoadImageFromFile', 'PackDetInputs', 'PhotoMetricDistortion', 'RandomChoiceResize',
    'RandomFlip', 'RandomResize', 'Resize',
)  # fmt: skip


def use_fast_data(cfg: Config) -> None:
    """Replace steps of the training pipelines by those of :mod:`mogacore.datasets.fast_transforms` and
    :mod:`mogacore.datasets.fast_dense`, in place.

    Crops with other interpolation than bicubic by Pillow stay, since OpenCV does not smooth when it reduces. Masks stay
    bitmaps where a step does not treat polygons alike, such as a random crop.

    Args:
        cfg: Config; nothing changes unless its ``fast_data`` is True.

    Raises:
        UserError: If no step can be replaced.
    """
    if not cfg.get('fast_data'):
        return
    scope, number = cfg.get('default_scope'), 0
    for dataset in leaves(cfg.get('train_dataloader')):
        steps = dataset.get('pipeline') or []
        names = [_name(step, scope) for step in steps]
        for name, step in zip(names, list(steps), strict=True):
            if name in REPLACEMENTS and _fits(name, step, names):
                step['type'] = REPLACEMENTS[name]
                number += 1
                if name == 'mmdet.LoadAnnotations':
                    step.pop('poly2mask', None)
                    steps.insert(names.index('mmdet.PackDetInputs'), dict(type='RasterizePolygons'))
    if not number:
        raise UserError(
            'fast_data=True, but the training pipeline has no step for which there is a faster one (RandAugment; '
            "RandomResizedCrop with backend='pillow' and interpolation='bicubic'; RandomCrop of class maps; masks of "
            'objects): omit it'
        )


def _name(step: dict, scope: str | None) -> str:
    """Name of a step with its library."""
    kind = step.get('type')
    return kind if isinstance(kind, str) and '.' in kind else f'{scope}.{type_name(kind)}'


def _fits(name: str, step: dict, names: list[str]) -> bool:
    if name == 'mmpretrain.RandomResizedCrop':
        return (step.get('backend'), step.get('interpolation')) == ('pillow', 'bicubic')
    if name == 'mmdet.LoadAnnotations':
        others = {other.partition('.')[2] for other in names} - {'LoadAnnotations'}
        is_last = names[-1] == 'mmdet.PackDetInputs'
        return bool(step.get('with_mask') and step.get('poly2mask', True) and is_last and others <= set(FOR_POLYGONS))
    return True
