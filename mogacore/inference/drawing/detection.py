"""Object detection and instance segmentation: boxes and masks."""

from __future__ import annotations

from mmengine.structures import BaseDataElement, InstanceData

from mogacore.datasets.rle import encode_rle

from .base import Task


class Detection(Task):
    """Boxes of objects, and masks if the model predicts them, with mmdet."""

    visualizer_type = 'DetLocalVisualizer'

    def join(self, samples):
        """The instances with a score of at least ``score_thr``, best first."""
        instances = samples[0].pred_instances.cpu()
        order = instances.scores.argsort(descending=True, stable=True)
        return BaseDataElement(pred_instances=instances[order[instances.scores[order] >= self.score_thr]])

    def describe(self, sample):
        instances = sample.pred_instances
        records = [
            {
                'class': self.class_name(label),
                'label': label,
                'score': round(score, 6),
                'bbox': [round(value, 2) for value in box],
            }
            for label, score, box in zip(
                instances.labels.tolist(), instances.scores.tolist(), instances.bboxes.tolist(), strict=True
            )
        ]
        if 'masks' in instances:
            for record, mask in zip(records, instances.masks, strict=True):
                record['segmentation'] = encode_rle(mask.numpy(), compressed=True)
        return {'instances': records}

    def paint(self, image, sample, factor):
        instances = sample.pred_instances
        if not len(instances):
            return image
        enlarged = InstanceData(bboxes=instances.bboxes * factor, labels=instances.labels, scores=instances.scores)
        if 'masks' in instances:
            enlarged.masks = instances.masks.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        return self.show(image, {'pred_score_thr': -1}, pred_instances=enlarged)
