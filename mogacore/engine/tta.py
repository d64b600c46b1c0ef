"""Merging a detector's or segmentor's predictions for several views of one image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mmengine.model import BaseTTAModel
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData
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

    def test_step(self, data: dict[str, list]) -> list:
        """Predict all views of a batch.

        The detector gets each view as an image of its own, that is with ``flip`` False in the metadata. Otherwise
        mmdet's heads of several mask stages would flip the masks back themselves, before their average, but not the
        boxes that these masks lie in.

        Args:
            data: ``inputs`` and ``data_samples``, each with one list per view of one entry per image.

        Returns:
            One data sample per image, in the frame of the original image.
        """
        views = []
        for values in zip(*data.values(), strict=True):
            view = dict(zip(data, values, strict=True))
            flips = [sample.metainfo.get('flip', False) for sample in view['data_samples']]
            _set_flips(view['data_samples'], [False] * len(flips))
            views.append(self.module.test_step(view))
            _set_flips(views[-1], flips)
        return self.merge_preds(list(zip(*views, strict=True)))

    def merge_preds(self, data_samples_list: Sequence[Sequence]) -> list:
        """Merge the views of each image into one data sample."""
        return [self._merge(views) for views in data_samples_list]

    def _merge(self, views: Sequence):
        from mmcv.ops import batched_nms

        merged = InstanceData.cat([unflip(view.pred_instances, view.metainfo) for view in views])
        if len(merged):  # mmcv's NMS fails without boxes
            nms = dict(type='nms', iou_threshold=self.iou_threshold)
            _, kept = batched_nms(merged.bboxes, merged.scores, merged.labels, nms)
            merged = merged[kept[: self.max_per_img]]
        views[0].pred_instances = merged
        return views[0]


def _set_flips(samples: Sequence, flips: Sequence[bool]) -> None:
    for sample, flip in zip(samples, flips, strict=True):
        sample.set_metainfo(dict(flip=flip))


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


@MODELS.register_module()
class SegmentationTTAModel(BaseTTAModel):
    """Averages the class probabilities of an image's views at its original size.

    mmseg's SegTTAModel keeps the maps of all views, gigabytes for a large image with 150 classes. This class adds up
    one view at a time.

    Args:
        module: Segmentor, or its config. Its logits are at the original size and flipped back, as mmseg's are.
        data_preprocessor: As in mmengine's BaseTTAModel.
    """

    def test_step(self, data: dict[str, list]) -> list:
        """Predict all views of a batch.

        Args:
            data: ``inputs`` and ``data_samples``, each with one list per view of one entry per image.

        Returns:
            One data sample per image: ``pred_sem_seg`` (1, H, W), and ``seg_logits`` with the logarithm of the average
            probabilities, or the average probability itself if there is a single class, as in mmseg.
        """
        views = zip(*data.values(), strict=True)
        return self._average(self.module.test_step(dict(zip(data, view, strict=True))) for view in views)

    def merge_preds(self, data_samples_list: Sequence[Sequence]) -> list:
        """Merge the views of each image into one data sample."""
        return self._average(zip(*data_samples_list, strict=True))

    def _average(self, views: Iterable[Sequence]) -> list:
        merged: Sequence = ()
        totals: list[Tensor] = []
        count = 0
        for samples in views:
            maps = [_take_probabilities(sample) for sample in samples]
            if count == 0:
                merged, totals = samples, maps
            else:
                for total, probabilities in zip(totals, maps, strict=True):
                    total += probabilities
            count += 1
        for sample, total in zip(merged, totals, strict=True):
            self._set(sample, total.div_(count))
        return list(merged)

    def _set(self, sample, probabilities: Tensor) -> None:
        if len(probabilities) > 1:
            classes, logits = probabilities.argmax(0, keepdim=True), probabilities.log()
        else:
            classes, logits = (probabilities > self.module.decode_head.threshold).to(probabilities), probabilities
        sample.set_data(dict(seg_logits=PixelData(data=logits), pred_sem_seg=PixelData(data=classes)))


def _take_probabilities(sample) -> Tensor:
    # The logits are removed, so that their memory is free for the next view. For one class, they are probabilities.
    logits = sample.seg_logits.data
    del sample.seg_logits
    return logits.softmax(0) if len(logits) > 1 else logits
