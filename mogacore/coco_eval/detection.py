"""Boxes and masks: the classes of ``pycocotools.coco`` and ``pycocotools.cocoeval`` that mmdet uses."""

from __future__ import annotations

from os import PathLike

import numpy as np

from ..errors import UserError
from . import coco, cocoeval

__all__ = ['COCO', 'COCOeval', 'Params']

Params = cocoeval.Params


class COCO(coco.COCO):
    """As `coco.COCO`, but ``loadRes`` rejects an empty list: so mmdet detects that a model found nothing."""

    def __init__(self, annotation_file: str | PathLike | None = None) -> None:
        super().__init__(annotation_file)

    def loadRes(self, resFile: str | PathLike | list | np.ndarray, resData: list | None = None) -> coco.COCO:
        """Load the results of a model, see `coco.COCO.loadRes`.

        Raises:
            IndexError: If there are no results.
        """
        results = super().loadRes(resFile, resData)
        if not results.anns:
            raise IndexError('there are no results')
        return results


class COCOeval(cocoeval.COCOeval):
    """As `cocoeval.COCOeval`, for 'segm' (the default) and 'bbox'."""

    def __init__(self, cocoGt: COCO | None = None, cocoDt: COCO | None = None, iouType: str = 'segm') -> None:
        if iouType not in ('bbox', 'segm'):
            raise UserError(f"iouType {iouType!r} needs pycocotools: install it, or use 'bbox' or 'segm'")
        super().__init__(cocoGt, cocoDt, iouType)

    def computeIoU(self, imgId: int, catId: int) -> None:
        """Reject subclasses that evaluate image by image, such as mmdet's ``COCOevalMP``.

        Raises:
            UserError: Always.
        """
        raise UserError('use_mp_eval=True needs pycocotools: install it, or remove the setting (evaluation is fast)')
