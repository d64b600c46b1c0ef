"""Masks in COCO run-length encoding: the functions of ``xtcocotools.mask``, from faster-coco-eval."""

from faster_coco_eval.core.mask import area, decode, encode, frPyObjects, iou, merge, toBbox

__all__ = ['area', 'decode', 'encode', 'frPyObjects', 'iou', 'merge', 'toBbox']
