"""Merging a detector's predictions for several views of one image."""

from __future__ import annotations

from mmengine.model import BaseTTAModel
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor


@MODELS.register_module()
class InstanceTTAModel(BaseTTAModel):
    """Merges the boxes, and masks if any, of an image's views and removes duplicates per class by NMS.

    The views may be flipped (``flip``, ``flip_direction`` in their metadata). The mask of a removed box is removed too.

    Args:
        module: Detector, or its config.
        iou_threshold: Of two boxes of one class with a larger overlap, the lower-scoring one is removed; 0 to 1.
        max_per_img: Maximum number of instances kept, highest scores first.
        data_preprocessor: As in mmengine's BaseTTAModel.
    """

    def __init__(self, module, iou_threshold: float = 0.5, max_per_img: int = 100, data_preprocessor=None):
        super().__init__(module, data_preprocessor)
        self.iou_threshold = iou_threshold
        self.max_per_img = max_per_img

    def merge_preds(self, data_samples_list: list[list]) -> list:
        """Merge the views of each image into one data sample."""
        return [self._merge(views) for views in data_samples_list]

    def _merge(self, views: list):
        from mmcv.ops import batched_nms

        merged = InstanceData.cat([unflip(view.pred_instances, view.metainfo) for view in views])
        nms = dict(type='nms', iou_threshold=self.iou_threshold)
        _, kept = batched_nms(merged.bboxes, merged.scores, merged.labels, nms)
        views[0].pred_instances = merged[kept[: self.max_per_img]]
        return views[0]


def unflip(instances: InstanceData, metainfo: dict) -> InstanceData:
    """Map the instances of a flipped view to the original image.

    Args:
        instances: ``bboxes`` (N, 4), x1, y1, x2, y2 in pixels at the original size; ``masks`` (N, H, W) if any.
        metainfo: ``ori_shape`` (H, W), ``flip``, and ``flip_direction``: horizontal, vertical or diagonal.
    """
    instances = instances.clone()
    direction = metainfo.get('flip_direction') if metainfo.get('flip') else None
    height, width = metainfo['ori_shape'][:2]
    if direction in ('horizontal', 'diagonal'):
        instances.bboxes = _mirror(instances.bboxes, width, axis=0)
    if direction in ('vertical', 'diagonal'):
        instances.bboxes = _mirror(instances.bboxes, height, axis=1)
    if direction is not None and 'masks' in instances:
        axes = {'horizontal': (-1,), 'vertical': (-2,), 'diagonal': (-2, -1)}[direction]
        instances.masks = instances.masks.flip(axes)
    return instances


def _mirror(boxes: Tensor, length: int, axis: int) -> Tensor:
    low, high = boxes[:, axis], boxes[:, axis + 2]
    mirrored = boxes.clone()
    mirrored[:, axis], mirrored[:, axis + 2] = length - high, length - low
    return mirrored
