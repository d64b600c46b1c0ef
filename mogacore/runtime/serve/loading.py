"""Loading of the models that a server or the demo page offers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mogacore.errors import UserError
from mogacore.runtime.predictor import Predictor

NAME = re.compile(r'[\w.-]+', re.ASCII)
IMAGE_TASKS = ('classification', 'detection', 'segmentation', 'pose', 'hands')


def load_predictors(sources: Iterable[str], **options) -> dict[str, Predictor]:
    """Load models.

    Args:
        sources: Files, or NAME=FILE; the name of a file is the default.
        **options: Further arguments of :class:`mogacore.runtime.Predictor`.

    Raises:
        UserError: If a name is invalid or repeated, or a file cannot be used or does not take images.
    """
    predictors: dict[str, Predictor] = {}
    for source in sources:
        name, separator, path = source.partition('=')
        if not separator or Path(source).exists():
            name, path = Path(source).stem, source
        if not NAME.fullmatch(name):
            raise UserError(f'model name {name!r} is invalid: use letters, digits, ., _ and -, as in NAME={path}')
        if name in predictors:
            raise UserError(f'two models are named {name}: name them differently, as in other={path}')
        predictors[name] = Predictor(path, **options)
        if predictors[name].task not in IMAGE_TASKS:
            raise UserError(
                f'{path} is a model for {predictors[name].task}, not for images: use mogacore-runtime infer'
            )
        warm_up(predictors[name])
    return predictors


def warm_up(predictor: Predictor) -> None:
    """Predict a gray image, since the first prediction takes longest, and to find a file that does not run.

    Its record shows whether the file has enough class names.
    """
    height, width = predictor.metadata['input']['size']
    predictor(np.full((height, width, 3), 128, np.uint8))
