"""Samples of the task libraries: inputs of their pipelines, and their predictions as arrays."""

from __future__ import annotations

import numpy as np
from mmengine.config import Config
from mmengine.structures import BaseDataElement, InstanceData

from mogacore.runtime import tasks
from mogacore.runtime.tasks import Result, Task
from mogacore.text import type_name


class Samples:
    """Inputs and predictions of classifiers; base class of those of the other tasks.

    Args:
        meta: Metainfo of the data set: names and colors of the classes or keypoints.
    """

    task: type[Task] = tasks.Classification

    def __init__(self, meta: dict):
        self.meta = meta

    def inputs(self, image: dict, boxes: np.ndarray | None) -> list[dict]:
        """Inputs of the pipeline for a loaded image."""
        return [image]

    def result(self, samples: list[BaseDataElement]) -> Result:
        """The arrays that ``task`` describes, from the predictions for the ``inputs`` of an image."""
        return {'probabilities': samples[0].pred_score.cpu().numpy()}


class MultiLabelSamples(Samples):
    """Of mmpretrain's multi-label heads."""

    task = tasks.MultiLabel


class DetectionSamples(Samples):
    """Of mmdet."""

    task = tasks.Detection

    def result(self, samples):
        instances = samples[0].pred_instances.cpu()
        names = {'boxes': 'bboxes', 'scores': 'scores', 'labels': 'labels', 'masks': 'masks'}
        return {ours: instances[theirs].numpy() for ours, theirs in names.items() if theirs in instances}


class SegmentationSamples(Samples):
    """Of mmseg."""

    task = tasks.Segmentation

    def result(self, samples):
        return {'class_map': samples[0].pred_sem_seg.data[0].cpu().numpy()}


class PoseSamples(Samples):
    """Of mmpose."""

    task = tasks.Pose

    def inputs(self, image, boxes):
        if boxes is None:
            height, width = image['img_shape']
            boxes = np.array([[0, 0, width, height, 1]], np.float32)
        return [dict(image, bbox=box[None, :4], bbox_score=box[4:], **self.meta) for box in boxes]

    def result(self, samples):
        instances = self._instances(samples)
        if not len(instances):
            return tasks.no_objects(len(self.meta['keypoint_id2name']))
        return {
            'boxes': np.asarray(instances.bboxes),
            'keypoints': np.asarray(instances.keypoints),
            'scores': np.asarray(instances.keypoint_scores),
        }

    def _instances(self, samples):
        return InstanceData.cat([sample.pred_instances for sample in samples] or [InstanceData()])


class HandSamples(PoseSamples):
    """3D joints of hands, of mmpose.

    Args:
        meta: See :class:`Samples`.
        max_score: Score of a perfect joint, used to scale scores to 0..1.
    """

    task = tasks.HandPose

    def __init__(self, meta, max_score: float = 1.0):
        super().__init__(meta)
        self.max_score = max_score

    def result(self, samples):
        """Scale scores to 0..1; all joints of a hand that the model predicts to be absent have score 0."""
        result, instances = super().result(samples), self._instances(samples)
        if not len(instances):
            return result
        result['scores'] = np.clip(result['scores'] / self.max_score, 0, 1)
        if 'hand_type' in instances:  # right, left
            result['hands'] = np.asarray(instances.hand_type)
            result['root_depth'] = np.asarray(instances.rel_root_depth).reshape(-1)
            num_joints = result['keypoints'].shape[1] // 2
            result['scores'] = result['scores'] * np.repeat(result['hands'], num_joints, 1)
        return result


# mmpretrain's heads whose classes do not exclude each other.
MULTI_LABEL_HEADS = ('MultiLabelClsHead', 'MultiLabelLinearClsHead', 'CSRAClsHead')
# By default_scope of the config, which names the task library.
SAMPLES: dict[str, type[Samples]] = {
    'mmpretrain': Samples,
    'mmdet': DetectionSamples,
    'mmseg': SegmentationSamples,
    'mmpose': PoseSamples,
}


def is_multi_label(cfg: Config) -> bool:
    """Whether the model of a config predicts any number of classes per image."""
    return type_name(cfg.model.get('head', {}).get('type')) in MULTI_LABEL_HEADS


def create_samples(cfg: Config, meta: dict) -> Samples:
    """Create the :class:`Samples` of a config's model."""
    if is_multi_label(cfg):
        return MultiLabelSamples(meta)
    head = cfg.model.get('head', {})
    decoder = head.get('decoder') or {}
    if decoder.get('type') == 'Hand3DHeatmap':
        return HandSamples(meta, decoder.get('max_bound', 1.0))
    if decoder.get('type') == 'RootRelativeHeatmap' or head.get('type') == 'IterativeHandHead':
        return HandSamples(meta)  # their scores are in 0..1
    return SAMPLES[cfg.get('default_scope', 'mmengine')](meta)
