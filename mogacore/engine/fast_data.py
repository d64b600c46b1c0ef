"""Training pipelines with faster transforms that draw the same random numbers."""

from __future__ import annotations

from mmengine.config import Config

from mogacore.errors import UserError
from mogacore.text import type_name

from .config import leaf_datasets

REPLACEMENTS = {'RandomResizedCrop': 'FastRandomResizedCrop', 'RandAugment': 'FastRandAugment'}


def use_fast_data(cfg: Config) -> None:
    """Replace the transforms of :mod:`mogacore.datasets.fast_transforms` in the training pipelines, in place.

    Crops with other interpolation than bicubic by Pillow stay, since OpenCV does not smooth when it reduces.

    Args:
        cfg: Config; nothing changes unless its ``fast_data`` is True.

    Raises:
        UserError: If no step can be replaced.
    """
    if not cfg.get('fast_data'):
        return
    number = 0
    for dataset in leaf_datasets(cfg, 'train'):
        for step in dataset.get('pipeline') or ():
            name = type_name(step.get('type')).removeprefix('mmpretrain.')
            if name in REPLACEMENTS and _fits(name, step):
                step['type'] = REPLACEMENTS[name]
                number += 1
    if not number:
        raise UserError(
            'fast_data=True, but the training pipeline has neither RandAugment nor a RandomResizedCrop with '
            "backend='pillow' and interpolation='bicubic': omit it"
        )


def _fits(name: str, step: dict) -> bool:
    return name != 'RandomResizedCrop' or (step.get('backend'), step.get('interpolation')) == ('pillow', 'bicubic')
