"""Semantic segmentation: the class map as an image file, and the fraction of the image that each class covers."""

from __future__ import annotations

import numpy as np
from mmengine.structures import BaseDataElement, PixelData

from mogacore.files import write_png

from .base import Task


class Segmentation(Task):
    """The class of each pixel, with mmseg."""

    visualizer_type = 'SegLocalVisualizer'

    def __init__(self, visualizer, meta, score_thr):
        # mmseg only draws classes that have a name.
        super().__init__(visualizer, {'classes': map(str, range(256)), **meta}, score_thr)

    def join(self, samples):
        # Drop the per-pixel scores of all classes.
        return BaseDataElement(pred_sem_seg=samples[0].pred_sem_seg.cpu())

    def describe(self, sample):
        """The fraction of the image that each class covers, largest first."""
        labels, counts = sample.pred_sem_seg.data.unique(return_counts=True)
        order = counts.argsort(descending=True, stable=True)
        total = counts.sum().item()
        return {
            'classes': [
                {'class': self.class_name(label), 'label': label, 'share': count / total}
                for label, count in zip(labels[order].tolist(), counts[order].tolist(), strict=True)
            ]
        }

    def write(self, sample, out_dir, name):
        path = f'maps/{name}.png'
        labels = sample.pred_sem_seg.data[0].numpy()
        num_classes = len(self.classes or ())
        write_png(out_dir / path, labels.astype(np.uint8 if num_classes <= 256 else np.uint16))
        return {'map': path}

    def paint(self, image, sample, factor):
        labels = sample.pred_sem_seg.data.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        return self.show(image, {}, pred_sem_seg=PixelData(data=labels))
