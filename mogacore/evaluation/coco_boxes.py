"""mmdet's CocoMetric with classes by name; imported by mmdet's registry, see `mogacore.libraries`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mogacore.errors import UserError

Base: Any = import_module('mmdet.evaluation').CocoMetric


@import_module('mmdet.registry').METRICS.register_module(force=True)
class CocoMetric(Base):
    """As mmdet's, but predictions are assigned to the categories of the annotation file by class name.

    The order and the ids of the categories in the file do not matter. Predictions of a class that the file lacks are
    ignored, as its annotations are. Annotations without ``area``, or with 0, have that of their mask with the metric
    segm, and otherwise of their box; it decides whether an object is small, medium or large. Keys of ``classwise``
    start with the metric, as in ``bbox_cat_precision``, since the values of boxes and masks differ.

    Raises:
        UserError: If the metric is segm and annotations of the file have no mask.
    """

    metrics: list[str]
    outfile_prefix: str | None

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._files: dict[str, str] | None = None
        if self._coco_api is None:
            return
        # pycocotools requires both.
        self._coco_api.dataset.setdefault('info', {})
        for annotation in self._coco_api.anns.values():
            annotation.setdefault('iscrowd', 0)
        lacking = [entry for entry in self._coco_api.anns.values() if not entry.get('segmentation')]
        if 'segm' in self.metrics and lacking:
            name = kwargs.get('ann_file') or args[0]
            raise UserError(
                f'{name}: {len(lacking)} of {len(self._coco_api.anns)} annotations have no segmentation, which the '
                f"metric segm needs, the first has id {lacking[0]['id']!r}: add it, or set metric='bbox' of the "
                'evaluator'
            )
        for annotation in self._coco_api.anns.values():
            if annotation.get('area', 0) <= 0:
                _, _, width, height = annotation['bbox']
                is_mask = 'segm' in self.metrics
                annotation['area'] = float(self._coco_api.annToMask(annotation).sum()) if is_mask else width * height

    @property
    def annotations(self) -> Any:
        """The annotation file, as pycocotools reads it, with the areas that count."""
        return self._coco_api

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics, one kind after the other.

        Raises:
            UserError: If the file has none of the classes, or a label has no class.
        """
        if self._coco_api is not None:
            classes = set(self.dataset_meta['classes'])
            # pycocotools sorts the ids, and mmdet assumes that it does not.
            self.cat_ids = sorted(key for key, entry in self._coco_api.cats.items() if entry['name'] in classes)
            if not self.cat_ids:
                raise UserError(
                    'the annotation file of the evaluator has none of the classes of the test data: set '
                    'metainfo=dict(classes=...) to names of its categories'
                )
        kinds, prefix, self._files = self.metrics, self.outfile_prefix, None
        found = {}
        with TemporaryDirectory() as folder:
            self.outfile_prefix = prefix or str(Path(folder, 'results'))
            try:
                for kind in kinds:
                    self.metrics = [kind]
                    values = super().compute_metrics(results)
                    names = {f'{name}_precision' for name in self.dataset_meta['classes']}
                    found.update({f'{kind}_{key}' if key in names else key: values[key] for key in values})
            finally:
                self.metrics, self.outfile_prefix = kinds, prefix
        return found

    def results2json(self, results: Sequence[dict], outfile_prefix: str) -> dict[str, str]:
        """Write the predictions once for all metrics, with the category ids of the annotation file."""
        if self._files is None:
            ids = {entry['name']: key for key, entry in self._coco_api.cats.items()}
            position = {key: index for index, key in enumerate(self.cat_ids)}
            positions = np.array([position.get(ids.get(name), -1) for name in self.dataset_meta['classes']])
            self._files = super().results2json([_relabel(result, positions) for result in results], outfile_prefix)
        return self._files


def _relabel(result: dict, positions: np.ndarray) -> dict:
    """Replace labels by positions, and drop the predictions whose position is -1."""
    labels = result['labels']
    if len(labels) and labels.max() >= len(positions):
        raise UserError(
            f'the model predicts class {labels.max()}, but the test data has {len(positions)} classes, counted from 0: '
            'set metainfo=dict(classes=...) of the data set to all classes of the model'
        )
    labels = positions[labels]
    kept = labels >= 0
    fields = {key: result[key][kept] for key in ('bboxes', 'scores', 'mask_scores') if key in result}
    if 'masks' in result:
        fields['masks'] = [mask for mask, keep in zip(result['masks'], kept, strict=True) if keep]
    return dict(result, labels=labels[kept], **fields)
