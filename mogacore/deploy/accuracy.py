"""Accuracy of exported files on the test set of a config, by the config's own evaluator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData, PixelData

from mogacore.engine.config import load_config, locate_data, prepare_loaders, use_library
from mogacore.engine.data import label_class_folders
from mogacore.engine.dataset_meta import channel_order
from mogacore.engine.loaders import build_loader
from mogacore.errors import UserError
from mogacore.runtime.backends import Backend, open_backend
from mogacore.runtime.batches import run_batches
from mogacore.runtime.decode import DECODERS, Crop, Decoder, letter_box
from mogacore.runtime.tasks import Result

from .calibration import spread


def evaluate_files(
    paths: Sequence[str | Path],
    config: str,
    cfg_options: dict | None = None,
    num_images: int | None = None,
    threads: int | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> tuple[list[dict[str, float]], int]:
    """Test exported files of one model on the test set of its config.

    Args:
        paths: The files.
        config: The config, by path or short name.
        cfg_options: Settings that override the config's.
        num_images: Number of evenly spaced test images; None for all.
        threads: CPU threads of the backend; None for its default.
        log: Called with the progress.

    Returns:
        The metrics of each file, and the number of test images.

    Raises:
        UserError: If the test set is missing, or the task has no evaluation here, or the files are those of --raw.
    """
    backends = [open_backend(path, threads=threads) for path in paths]
    task = backends[0].metadata['task']
    if backends[0].metadata.get('raw'):
        raise UserError('a file of --raw has no predictions to evaluate')
    if task not in FILL:
        raise UserError(f'{task} has no evaluation of exported files: compare their predictions')
    cfg = load_config(config, cfg_options)
    use_library(cfg)
    training = cfg.get('train_dataloader')
    prepare_loaders(cfg)
    locate_data(cfg, 'test')
    label_class_folders(cfg, 'test', training)
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    loader = build_loader(cfg.test_dataloader)
    dataset: Any = loader.dataset
    evaluators = [Evaluator(cfg.test_evaluator) for _ in paths]
    if num_images is not None and num_images < len(dataset) and task != 'pose':  # its evaluator expects every image
        dataset.get_subset_(spread(len(dataset), num_images))
        loader = build_loader({**cfg.test_dataloader, 'dataset': dataset})
    for evaluator in evaluators:
        evaluator.dataset_meta = dataset.metainfo
        for metric in evaluator.metrics:
            if hasattr(metric, 'img_ids'):  # of COCO boxes, which expect every image of their file by default
                metric.img_ids = [dataset.get_data_info(index)['img_id'] for index in range(len(dataset))]
    for number, batch in enumerate(loader):
        log(f'testing: batch {number + 1} of {len(loader)}')
        for backend, evaluator in zip(backends, evaluators, strict=True):
            evaluator.process(_predict(backend, batch, channel_order(cfg) == 'bgr'), batch)
    return [evaluator.evaluate(len(dataset)) for evaluator in evaluators], len(dataset)


def _predict(backend: Backend, batch: Mapping[str, Any], is_bgr: bool) -> list:
    """Data samples with the predictions of a file for a batch of a test loader."""
    metadata = backend.metadata
    decoder = DECODERS[metadata['task']](metadata, backend.inputs)
    samples = [sample.clone() for sample in batch['data_samples']]
    crops = [
        _crop(inputs, sample, is_bgr, decoder, metadata['task'])
        for inputs, sample in zip(batch['inputs'], samples, strict=True)
    ]
    for crop, output, sample in zip(crops, run_batches(backend, decoder, metadata, crops, 8), samples, strict=True):
        FILL[metadata['task']](sample, decoder.decode([crop], [output]))
    return samples


def _crop(inputs: torch.Tensor, sample: Any, is_bgr: bool, decoder: Decoder, task: str) -> Crop:
    """The input for a sample of a test set, fitted into the size that the file requires, as the predictor does."""
    pixels = inputs.permute(1, 2, 0).numpy()
    if is_bgr and pixels.shape[2] == 3:
        pixels = pixels[..., ::-1]
    prepared, (shown_height, shown_width) = pixels, pixels.shape[:2]
    if task in ('detection', 'segmentation'):
        prepared, (shown_height, shown_width) = letter_box(pixels, decoder.fixed)
    if decoder.fixed and prepared.shape[:2] != decoder.fixed:
        sizes = [f'{size[1]} x {size[0]}' for size in (decoder.fixed, prepared.shape)]
        raise UserError(f'the file takes images of {sizes[0]} px, but the test pipeline gives {sizes[1]}: omit --shape')
    if task == 'classification':
        return Crop(pixels)
    if task == 'pose':
        box = np.asarray(sample.gt_instances.bboxes[0], np.float32)
        return Crop(pixels, context=(box, sample.input_center, sample.input_scale))
    height, width = sample.ori_shape
    if task == 'detection':
        scale_x, scale_y = sample.scale_factor
        scales = scale_x * shown_width / pixels.shape[1], scale_y * shown_height / pixels.shape[0]
        return Crop(prepared, context=(height, width, *scales))
    whole = round(height * prepared.shape[0] / shown_height), round(width * prepared.shape[1] / shown_width)
    extras = {'output_size': np.array(whole, np.int64)} if 'output_size' in decoder.inputs else {}
    return Crop(prepared, extras, context=(height, width))


def _fill_classification(sample: Any, found: Result) -> None:
    scores = torch.from_numpy(found['probabilities'])
    sample.set_pred_score(scores).set_pred_label(scores.argmax())


def _fill_detection(sample: Any, found: Result) -> None:
    instances = InstanceData(
        bboxes=torch.from_numpy(found['boxes']),
        scores=torch.from_numpy(found['scores']),
        labels=torch.from_numpy(found['labels']),
    )
    if 'masks' in found:
        instances.masks = torch.from_numpy(found['masks'])
    sample.pred_instances = instances


def _fill_segmentation(sample: Any, found: Result) -> None:
    sample.pred_sem_seg = PixelData(data=torch.from_numpy(np.asarray(found['class_map'], np.int64))[None])


def _fill_pose(sample: Any, found: Result) -> None:
    known = sample.gt_instances
    sample.pred_instances = InstanceData(
        keypoints=found['keypoints'],
        keypoint_scores=found['scores'],
        bboxes=known.bboxes,
        bbox_scores=known.bbox_scores,
    )


FILL: dict[str, Callable[[Any, Result], None]] = {
    'classification': _fill_classification,
    'detection': _fill_detection,
    'segmentation': _fill_segmentation,
    'pose': _fill_pose,
}
