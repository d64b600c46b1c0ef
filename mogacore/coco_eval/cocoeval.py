"""COCO average precision and recall: the classes of ``xtcocotools.cocoeval``, computed by faster-coco-eval.

Definitions: https://cocodataset.org/#keypoints-eval, https://cocodataset.org/#detection-eval, and Li et al., CrowdPose,
arXiv 1812.00324, for the scores by crowding.
"""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable, Sequence

import numpy as np
from faster_coco_eval.core.coco import COCO as FasterCOCO
from faster_coco_eval.core.faster_eval_api import COCOeval_faster

from ..errors import UserError
from .coco import COCO

__all__ = ['COCOeval', 'Params']

# Fields of an annotation that hold the keypoints of each evaluation type.
BODY = ('keypoints',)
PARTS = {
    'keypoints_wholebody': ('keypoints', 'foot_kpts', 'face_kpts', 'lefthand_kpts', 'righthand_kpts'),
    'keypoints_foot': ('foot_kpts',),
    'keypoints_face': ('face_kpts',),
    'keypoints_lefthand': ('lefthand_kpts',),
    'keypoints_righthand': ('righthand_kpts',),
}
# Sigmas of COCO's 17 person keypoints.
COCO_SIGMAS = (
    np.array([0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89])
    / 10
)
# Ratio of the area of a person to that of its box, for annotations without areas.
AREA_OF_BOX = 0.53
LARGEST = 1e5**2
# Crowd index of an image in CrowdPose: easy below the first bound, hard from the second.
CROWDING = (0.2, 0.8)


class Params:
    """Parameters of an evaluation.

    Args:
        iouType: 'bbox', 'segm', 'keypoints' or another name that contains 'keypoints'; see `COCOeval`.

    Attributes:
        imgIds: Ids of the images.
        catIds: Ids of the categories.
        useCats: 0 ignores categories when matching boxes or masks, as for proposals.
        iouThrs: (T,), IoU thresholds of a match.
        recThrs: (R,), recalls at which precision is sampled.
        maxDets: (M,), numbers of results per image that count, the highest scores first.
        areaRng: (A, 2), smallest and largest area, in pixels.
        areaRngLbl: (A,), names of the area ranges.
        useSegm: Deprecated form of iouType: 1 is 'segm', 0 is 'bbox', None uses iouType.

    Raises:
        UserError: If iouType is unknown.
    """

    def __init__(self, iouType: str = 'segm') -> None:
        areas = {'all': [0, LARGEST], 'small': [0, 32**2], 'medium': [32**2, 96**2], 'large': [96**2, LARGEST]}
        if 'keypoints' in iouType:
            del areas['small']
            self.maxDets = [20]
        elif iouType in ('bbox', 'segm'):
            self.maxDets = [1, 10, 100]
        else:
            raise UserError(f"iouType {iouType!r} is unknown: use 'bbox', 'segm', or a name that contains 'keypoints'")
        self.iouType = iouType
        self.imgIds: list[int] = []
        self.catIds: list[int] = []
        self.useCats = 1
        self.iouThrs = np.linspace(0.5, 0.95, 10)
        self.recThrs = np.linspace(0, 1, 101)
        self.areaRng = list(areas.values())
        self.areaRngLbl = list(areas)
        self.useSegm: int | None = None


class COCOeval:
    """Evaluates results against annotations.

    Call ``evaluate()``, ``accumulate()`` and ``summarize()``, in this order; ``stats`` then holds the summary.

    Args:
        cocoGt: Annotations.
        cocoDt: Results, from ``cocoGt.loadRes``.
        iouType: 'bbox' or 'segm' for boxes or masks. 'keypoints_wholebody', 'keypoints_foot', 'keypoints_face',
            'keypoints_lefthand' and 'keypoints_righthand' for the parts of COCO-WholeBody. 'keypoints_crowd' for
            CrowdPose, whose images have ``crowdIndex`` and whose annotations have ``num_keypoints``. Any other name
            that contains 'keypoints' for the field ``keypoints``.
        sigmas: (keypoints,), tolerance of each keypoint relative to the square root of the area; None is COCO's.
        use_area: Use ``area`` of the annotations; False, or an annotation without it, uses 0.53 times the area of the
            box for keypoints, and the area of the box for others.

    Attributes:
        params: Parameters, to be set before ``evaluate()``.
        eval: ``precision`` and ``scores`` (T, R, K, A, M), ``recall`` (T, K, A, M); K is the number of categories, the
            other sizes are those of `Params`; -1 where there are no annotations.
        stats: Summary. Keypoints: AP, AP50, AP75, AP medium, AP large, and AR likewise. CrowdPose: AP, AP50, AP75, AR,
            AR50, AR75, AP easy, AP medium, AP hard. Boxes and masks: AP, AP50, AP75, AP small, AP medium, AP large, AR
            for each of three maxDets, AR small, AR medium, AR large.
    """

    def __init__(
        self,
        cocoGt: COCO | None = None,
        cocoDt: COCO | None = None,
        iouType: str = 'keypoints',
        sigmas: Sequence[float] | None = None,
        use_area: bool = True,
    ) -> None:
        self.cocoGt = cocoGt
        self.cocoDt = cocoDt
        self.sigmas: np.ndarray = COCO_SIGMAS if sigmas is None else np.asarray(sigmas)
        self.use_area = use_area
        self.params = Params(iouType)
        self.eval: dict = {}
        self.stats: np.ndarray | list = []
        self._found: dict = {}
        if cocoGt is not None:
            self.params.imgIds = sorted(cocoGt.getImgIds())
            self.params.catIds = sorted(cocoGt.getCatIds())

    def evaluate(self) -> None:
        """Match results with annotations.

        Raises:
            UserError: If annotations lack ``num_keypoints`` for CrowdPose, the number of keypoints differs from that
                of sigmas, or useCats is 0 for keypoints.
            RuntimeError: If annotations or results are missing.
        """
        p = self.params
        if self.cocoGt is None or self.cocoDt is None:
            raise RuntimeError('pass annotations and results to COCOeval before evaluate()')
        if p.useSegm is not None:
            p.iouType = 'segm' if p.useSegm == 1 else 'bbox'
        p.imgIds = list(np.unique(p.imgIds))
        p.catIds = list(np.unique(p.catIds)) if p.useCats else p.catIds
        p.maxDets = sorted(p.maxDets)
        kind = 'keypoints' if 'keypoints' in p.iouType else p.iouType
        if kind == 'keypoints' and not p.useCats:
            raise UserError('useCats 0 is not available for keypoints: set params.useCats to 1')
        engine = COCOeval_faster(
            self._dataset(self.cocoGt, self.cocoGt, self._annotation),
            self._dataset(self.cocoDt, self.cocoGt, self._result),
            kind,
            kpt_oks_sigmas=self.sigmas,
        )
        for name in ('imgIds', 'catIds', 'useCats', 'iouThrs', 'recThrs', 'maxDets', 'areaRng', 'areaRngLbl'):
            setattr(engine.params, name, copy.copy(getattr(p, name)))
        engine.evaluate()
        self._found = engine.eval

    def accumulate(self) -> None:
        """Store precision and recall in ``eval``."""
        if not self._found:
            raise RuntimeError('call evaluate() before accumulate()')
        arrays = {name: self._found[name] for name in ('counts', 'precision', 'recall', 'scores')}
        self.eval = dict(params=self.params, date=f'{datetime.datetime.now():%Y-%m-%d %H:%M:%S}', **arrays)

    def summarize(self) -> None:
        """Print the summary and store it in ``stats``."""
        if not self.eval:
            raise RuntimeError('call accumulate() before summarize()')
        if self.params.iouType == 'keypoints_crowd':
            stats = [self._mean(kind, iou, 'all', 20) for kind in ('AP', 'AR') for iou in (None, 0.5, 0.75)]
            stats += self._by_crowding()
        elif 'keypoints' in self.params.iouType:
            ranges = ((None, 'all'), (0.5, 'all'), (0.75, 'all'), (None, 'medium'), (None, 'large'))
            stats = [self._mean(kind, iou, area, 20) for kind in ('AP', 'AR') for iou, area in ranges]
        else:
            if len(self.params.maxDets) != 3:
                raise UserError(f'maxDets {self.params.maxDets} is invalid: the summary needs three entries')
            few, some, most = self.params.maxDets
            sizes = ('small', 'medium', 'large')
            # COCO's primary score, defined for 100 results per image regardless of maxDets.
            stats = [self._mean('AP', None, 'all', 100)]
            stats += [self._mean('AP', iou, 'all', most) for iou in (0.5, 0.75)]
            stats += [self._mean('AP', None, size, most) for size in sizes]
            stats += [self._mean('AR', None, 'all', number) for number in (few, some, most)]
            stats += [self._mean('AR', None, size, most) for size in sizes]
        self.stats = np.array(stats)

    def _dataset(self, coco: COCO, annotations: COCO, convert: Callable[[dict], dict | None]) -> FasterCOCO:
        """Convert annotations or results for the engine, with ids from 1, because it reads id 0 as "no match"."""
        p = self.params
        ids = coco.getAnnIds(imgIds=p.imgIds, catIds=p.catIds if p.useCats else [])
        converted = [ann for ann in map(convert, coco.loadAnns(ids)) if ann is not None]
        dataset = FasterCOCO()
        dataset.dataset = dict(
            images=list(coco.imgs.values()),
            categories=list(annotations.cats.values()),
            annotations=[dict(ann, id=number) for number, ann in enumerate(converted, 1)],
        )
        dataset.createIndex()
        return dataset

    def _annotation(self, ann: dict) -> dict:
        """Convert an annotation for the engine: one list of keypoints, and the area that counts."""
        kind = self.params.iouType
        box_area = ann['bbox'][3] * ann['bbox'][2] * (AREA_OF_BOX if 'keypoints' in kind else 1)
        read = dict(
            ann, iscrowd=int(ann.get('iscrowd', 0)), area=ann.get('area', box_area) if self.use_area else box_area
        )
        if 'keypoints' in kind:
            read['keypoints'] = self._keypoints(ann) if BODY[0] in ann else [0.0] * 3 * len(self.sigmas)
            if len(read['keypoints']) != 3 * len(self.sigmas):
                raise UserError(
                    f'annotation {ann["id"]} has {len(read["keypoints"]) // 3} keypoints for {kind}, but there are '
                    f'{len(self.sigmas)} sigmas: give one sigma per keypoint'
                )
            # The engine ignores annotations without keypoints; CrowdPose does not count occluded keypoints.
            if kind == 'keypoints_crowd':
                if 'num_keypoints' not in ann:
                    raise UserError(
                        f"annotation {ann['id']} has no 'num_keypoints': add it, the CrowdPose evaluation needs it"
                    )
            else:
                read['num_keypoints'] = np.count_nonzero(np.array(read['keypoints'][2::3]) > 0)
        return read

    def _result(self, ann: dict) -> dict | None:
        """Convert a result for the engine; None, to ignore it, if the scores of all keypoints are 0."""
        kind = self.params.iouType
        if 'keypoints' not in kind:
            return ann
        keypoints = self._keypoints(ann)
        if not np.any(np.array(keypoints[2::3]) > 0):
            return None
        score = ann['score']
        if kind in PARTS:
            score = ann.get(f'{kind.removeprefix("keypoints_")}_score', score)
        return dict(ann, keypoints=keypoints, score=score)

    def _keypoints(self, ann: dict) -> list[float]:
        """x, y and visibility or score of each evaluated keypoint, flattened."""
        return [value for part in PARTS.get(self.params.iouType, BODY) for value in ann[part]]

    def _mean(self, kind: str, iou: float | None, area: str, number: int) -> float:
        """Print and return mean precision (AP) or recall (AR) for a selection; -1 if it has no annotations.

        Args:
            kind: 'AP' or 'AR'.
            iou: IoU threshold; None is all.
            area: Name of the area range.
            number: Entry of maxDets.
        """
        p = self.params
        values = self.eval['precision' if kind == 'AP' else 'recall']
        overlaps = np.asarray(p.iouThrs)
        if iou is not None:
            values = values[overlaps == iou]
        values = values[..., np.array(p.areaRngLbl) == area, :][..., np.array(p.maxDets) == number]
        values = values[values > -1]
        mean = values.mean() if values.size else -1.0
        title = 'Average Precision' if kind == 'AP' else 'Average Recall'
        between = f'{overlaps[0]:.2f}:{overlaps[-1]:.2f}' if iou is None else f'{iou:.2f}'
        print(f' {title:<18} ({kind}) @[ IoU={between:<9} | area={area:>6} | maxDets={number:>3} ] = {mean:6.3f}')
        return mean

    def _by_crowding(self) -> list[float]:
        """Mean precision of easy, medium and hard images, rounded to four digits as in CrowdPose."""
        means = []
        images = self.cocoGt.imgs if self.cocoGt is not None else {}
        for name, low, high in zip(('easy', 'medium', 'hard'), (-np.inf, *CROWDING), (*CROWDING, np.inf), strict=True):
            part = COCOeval(self.cocoGt, self.cocoDt, self.params.iouType, list(self.sigmas), self.use_area)
            part.params = copy.deepcopy(self.params)
            part.params.imgIds = [i for i, image in images.items() if low <= image['crowdIndex'] < high]
            part.evaluate()
            # CrowdPose averages over all entries, including -1 of categories without annotations.
            means.append(round(part._found['precision'][:, :, :, 0].mean(), 4))
            print(f' {"Average Precision":<18} (AP) @[ crowding={name:>6} | maxDets= 20 ] = {means[-1]:6.3f}')
        return means
