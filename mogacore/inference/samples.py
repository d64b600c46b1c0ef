"""Samples of the task libraries: inputs of their pipelines, their predictions and annotations as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.structures import BaseDataElement, InstanceData

from mogacore.datasets.checks.maps import IGNORED
from mogacore.engine.dataset_meta import is_multi_label
from mogacore.runtime import tasks
from mogacore.runtime.tasks import Result, Task


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

    def truth(self, sample: BaseDataElement) -> Result:
        """The annotations of a sample, in pixels of the network input, as the arrays that ``task`` describes.

        Without ``scores``, except for keypoints, where they are 1 if the keypoint is labeled, or else 0. What is absent
        in the sample, such as a class, is empty or absent in the result.
        """
        num_classes = len(self.meta.get('classes') or ())
        if 'gt_score' in sample:  # several labels, or a mixed image
            return {'probabilities': sample.gt_score.cpu().numpy().astype(np.float32)}
        labels = sample.gt_label.cpu().numpy().reshape(-1) if 'gt_label' in sample else np.zeros(0, int)
        probabilities = np.zeros(max([num_classes, *(labels + 1)]), np.float32)
        probabilities[labels] = 1
        return {'probabilities': probabilities}


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

    def truth(self, sample):
        found = {'boxes': np.zeros((0, 4), np.float32), 'labels': np.zeros(0, int)}
        instances = sample.get('gt_instances', {})
        if 'bboxes' in instances:
            found['boxes'] = _corners(instances.bboxes)
            found['labels'] = instances.labels.numpy()
        if 'masks' in instances:
            found['masks'] = instances.masks.to_ndarray().astype(bool)
        if len(ignored := sample.get('ignored_instances', {}).get('bboxes', ())):
            found['ignored_boxes'] = _corners(ignored)
        return found


def _corners(boxes: Any) -> np.ndarray:
    """Boxes of mmdet as (N, 4): a tensor in what the network gets, an object of its own before."""
    return getattr(boxes, 'tensor', boxes).numpy().reshape(-1, 4)


class SegmentationSamples(Samples):
    """Of mmseg."""

    task = tasks.Segmentation

    def result(self, samples):
        return {'class_map': samples[0].pred_sem_seg.data[0].cpu().numpy()}

    def truth(self, sample):
        if 'gt_sem_seg' not in sample:
            return {}
        class_map = sample.gt_sem_seg.data[0].cpu().numpy()
        ignored = class_map == IGNORED
        return {'class_map': np.where(ignored, 0, class_map), 'ignored': ignored}


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

    def truth(self, sample):
        instances = sample.get('gt_instances', {})
        cropped = 'transformed_keypoints' in instances
        keypoints = instances.get('transformed_keypoints' if cropped else 'keypoints')
        if keypoints is None:
            return tasks.no_objects(len(self.meta['keypoint_id2name']))
        visible = np.asarray(instances.keypoints_visible)
        found = {
            'keypoints': np.asarray(keypoints),
            'scores': np.minimum(visible.reshape(*visible.shape[:2], -1)[..., 0], 1),
        }
        return found if cropped else {'boxes': np.asarray(instances.bboxes), **found}

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

    def truth(self, sample):
        found = super().truth(sample)
        if 'hand_type' in sample:  # right, left
            found['hands'] = np.asarray(sample.hand_type).reshape(-1, 2)
            found['root_depth'] = np.asarray(sample.get('rel_root_depth', 0.0)).reshape(-1)
        return found


# By default_scope of the config, which names the task library.
SAMPLES: dict[str, type[Samples]] = {
    'mmpretrain': Samples,
    'mmdet': DetectionSamples,
    'mmseg': SegmentationSamples,
    'mmpose': PoseSamples,
}


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
