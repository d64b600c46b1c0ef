"""Errors of detectors: boxes and masks."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import torch
from mmengine.registry import METRICS

from mogacore.engine.config import as_list, leaf_datasets
from mogacore.errors import UserError
from mogacore.evaluation.confusion import BACKGROUND, match_boxes
from mogacore.inference.prediction_files import coco_masks
from mogacore.runtime.tasks import Result
from mogacore.text import type_name

from . import figures
from .findings import Analysis, Findings, Picture, Table, confused_pairs, mean, ratio, without_output

STATS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
MIN_IOU = 0.5  # of a match


class DetectionAnalysis(Analysis):
    """COCO's average precision, by the annotation file of the config's evaluator, and errors at one score threshold.

    A prediction and an object are matched if they overlap enough, whatever their classes, the largest overlaps first.
    """

    task = 'detection'
    decimals = 3

    def __init__(self, cfg, dataset, score_thr):
        super().__init__(cfg, dataset, score_thr)
        self.evaluator = _evaluator(cfg)
        coco = self.evaluator.annotations
        self.categories = {entry['name']: key for key, entry in coco.cats.items() if entry['name'] in set(self.names)}
        if not self.categories:
            raise UserError('the annotation file of the evaluator has none of the classes of the test set: correct it')
        self.found: list[dict[str, Any]] = []
        self.has_masks = False
        size = len(self.names) + 1
        self.matrix = np.zeros((size, size), np.int64)
        self.overlaps: list[list[float]] = [[] for _ in self.names]

    def add(self, names, info, result):
        coco, image_id = self.evaluator.annotations, names.get('image_id')
        if image_id != info.get('img_id') or image_id not in coco.imgs:
            raise UserError(
                f'the predictions have image id {image_id!r} where the test set has {info.get("img_id")!r}: give the '
                'config with which they were made'
            )
        self.check_classes(result['labels'], f'the prediction for {info["img_path"]}')
        size = info['height'], info['width']
        if len(result.get('masks', ())) and result['masks'].shape[1:] != size:
            raise UserError(
                f'the masks for {info["img_path"]} have another size than the annotation file says, '
                f'{size[1]} x {size[0]} px: give the config with which the predictions were made'
            )
        self.has_masks |= 'masks' in result
        self._collect(image_id, result)
        truth_boxes, truth = _truth(info)
        result = self.writer.select(result)
        labels, background = result['labels'], len(self.names)
        pairs = match_boxes(torch.from_numpy(truth_boxes), torch.from_numpy(result['boxes']), MIN_IOU)
        right = 0
        for row, column, overlap in pairs:
            self.matrix[truth[row], labels[column]] += 1
            if truth[row] == labels[column]:
                right += 1
                self.overlaps[truth[row]].append(overlap)
        rows, columns = {row for row, _, _ in pairs}, {column for _, column, _ in pairs}
        np.add.at(self.matrix, ([truth[row] for row in range(len(truth)) if row not in rows], background), 1)
        np.add.at(self.matrix, (background, [labels[k] for k in range(len(labels)) if k not in columns]), 1)
        total = len(truth) + len(labels)
        return (2 * right / total if total else 1.0), float(total - 2 * right + total)

    def _collect(self, image_id: int, result: Result) -> None:
        boxes = result['boxes'].astype(float)
        masks = [coco_masks().encode(np.asfortranarray(mask, np.uint8)) for mask in result.get('masks', ())]
        for i, (box, score, label) in enumerate(zip(boxes, result['scores'], result['labels'], strict=True)):
            category = self.categories.get(self.names[label])
            if category is None:
                continue
            left, top, right, bottom = box.tolist()
            entry = {'image_id': image_id, 'category_id': category, 'score': float(score)}
            entry['bbox'] = [left, top, right - left, bottom - top]
            if masks:
                entry['segmentation'] = masks[i]
            self.found.append(entry)

    def findings(self):
        if not self.found:
            raise UserError(
                'the predictions hold no object of the classes of the test set: train longer, or lower score_thr of '
                "the model's test_cfg before the test"
            )
        kinds = [kind for kind in ('bbox', 'segm') if kind == 'bbox' or self.has_masks]
        kinds = [kind for kind in kinds if kind in self.evaluator.metrics] or kinds[:1]
        scores: dict[str, float] = {}
        pictures = {}
        rows = self._counts()
        for kind in kinds:
            values, areas, curves = self._average_precision(kind)
            scores |= {f'{kind}_{name}': value for name, value in values.items()}
            for row, of_class in zip(rows, areas, strict=True):
                row |= {(name if kind == 'bbox' else f'mask {name}'): value for name, value in of_class.items()}
            title = f'Precision and recall of {"boxes" if kind == "bbox" else "masks"}'
            note = 'At an IoU of 0.5; the classes with the lowest average precision are named.'
            pictures[f'precision_recall_{kind}'] = Picture(title, note, figures.precision_recall(curves, 'mean'))
        names = [*self.names, BACKGROUND]
        image, how = figures.confusion(self.matrix, names)
        how += f' Scores from {self.score_thr:g}, overlaps from an IoU of {MIN_IOU:g}. The column "{BACKGROUND}" has '
        how += 'the missed objects, its row the detections without an object.'
        note = 'AP: COCO, mean over IoU 0.50 to 0.95. Precision, recall and the mean IoU of right matches are those at '
        note += f'scores from {self.score_thr:g}.'
        return Findings(
            scores,
            {
                'classes': Table('Classes', note, rows),
                'confused': Table('Most confused pairs', 'Objects by class; background: missed, or nothing there.',
                                  confused_pairs(self.matrix, names)),
            },
            {'confusion': Picture('Confusion matrix', how, image), **pictures},
        )  # fmt: skip

    def _counts(self) -> list[dict[str, Any]]:
        right, truth, found = np.diag(self.matrix), self.matrix.sum(1), self.matrix.sum(0)
        precision, recall = ratio(right, found), ratio(right, truth)
        return [
            {
                'class': name,
                'objects': int(truth[k]),
                'precision': float(precision[k]),
                'recall': float(recall[k]),
                'IoU': mean(self.overlaps[k]),
            }
            for k, name in enumerate(self.names)
        ]

    def _average_precision(self, kind: str):
        """COCO's summary, the average precision of each class, and its curve at an IoU of 0.5."""
        metric, coco = self.evaluator, self.evaluator.annotations
        entries = [dict(entry) for entry in self.found]
        if kind == 'segm':  # the area of a result is that of its mask
            for entry in entries:
                del entry['bbox']
        with without_output():
            evaluation = import_module('pycocotools.cocoeval').COCOeval(coco, coco.loadRes(entries), kind)
            evaluation.params.catIds = sorted(self.categories.values())
            evaluation.params.imgIds = coco.getImgIds()
            evaluation.params.maxDets = list(metric.proposal_nums)
            evaluation.params.iouThrs = np.asarray(metric.iou_thrs)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        precision = evaluation.eval['precision'][:, :, :, 0, metric.proposal_nums.index(100)]
        thresholds = np.round(np.asarray(metric.iou_thrs), 2)
        areas, curves = [], []
        for name in self.names:
            of_class = {'AP': float('nan'), 'AP50': float('nan'), 'AP75': float('nan')}
            areas.append(of_class)
            if name not in self.categories:
                continue
            values = precision[:, :, evaluation.params.catIds.index(self.categories[name])]
            if not (values > -1).any():
                continue
            of_class['AP'] = float(values.mean())
            for key, threshold in (('AP50', 0.5), ('AP75', 0.75)):
                if threshold in thresholds:
                    of_class[key] = float(values[thresholds == threshold].mean())
            curves.append((name, evaluation.params.recThrs, values[0], float(values[0].mean())))
        # COCO's -1 means that there are no objects of the size.
        values = [float(value) if value >= 0 else float('nan') for value in evaluation.stats]
        return dict(zip(STATS, values, strict=False)), areas, curves

    def panels(self, image, info, result):
        boxes, labels = _truth(info)
        truth = {'boxes': boxes, 'labels': labels}
        if 'masks' in result:
            masks = [instance['mask'] for instance in _objects(info) if instance.get('mask')]
            if len(masks) == len(boxes):
                truth['masks'] = np.array([_decode(mask, *image.shape[:2]) for mask in masks], bool)
        result = self.writer.select(result)
        return [('truth', self.writer.draw(image, truth)), ('prediction', self.writer.draw(image, result))]

    def caption(self, info, result, score):
        return f'{len(_objects(info))} objects, {len(self.writer.select(result)["labels"])} found, F1 {score:.3f}'


def _objects(info: dict) -> list[dict]:
    return [instance for instance in info['instances'] if not instance.get('ignore_flag')]


def _truth(info: dict) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) and labels (N,) of the objects of an image, without crowds."""
    objects = _objects(info)
    boxes = np.array([instance['bbox'] for instance in objects], np.float32).reshape(-1, 4)
    return boxes, np.array([instance['bbox_label'] for instance in objects], np.int64)


def _decode(mask: list | dict, height: int, width: int) -> np.ndarray:
    rle = coco_masks()
    encoded = (
        rle.frPyObjects(mask, height, width) if isinstance(mask, list) or isinstance(mask['counts'], list) else mask
    )
    return rle.decode(rle.merge(encoded) if isinstance(encoded, list) else encoded) > 0


def _evaluator(cfg) -> Any:
    """The CocoMetric of a config, with its annotations; one of its data set's file if it has none."""
    settings = [item for item in as_list(cfg.get('test_evaluator')) if type_name(item['type']) == 'CocoMetric']
    if not settings:
        dataset = next(leaf_datasets(cfg, 'test'))
        settings = [dict(type='CocoMetric', ann_file=dataset.get('ann_file'), metric='bbox')]
    if not settings[0].get('ann_file'):
        raise UserError('boxes are compared with COCO annotations: set ann_file of the CocoMetric in test_evaluator')
    return METRICS.build(settings[0])
