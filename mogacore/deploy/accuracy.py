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
from mogacore.engine.loaders import build_loader
from mogacore.errors import UserError
from mogacore.runtime.backends import Backend, open_backend
from mogacore.runtime.batches import run_batches
from mogacore.runtime.decode import DECODERS, Crop
from mogacore.runtime.tasks import Result

from .calibration import spread
from .graphs.base import loads_bgr


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
        UserError: If the test set is missing, or the task has no evaluation here.
    """
    cfg = load_config(config, cfg_options)
    use_library(cfg)
    training = cfg.get('train_dataloader')
    prepare_loaders(cfg)
    locate_data(cfg, 'test')
    label_class_folders(cfg, 'test', training)
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    loader = build_loader(cfg.test_dataloader)
    dataset: Any = loader.dataset
    backends = [open_backend(path, threads=threads) for path in paths]
    task = backends[0].metadata['task']
    if task not in FILL:
        raise UserError(f'{task} has no evaluation of exported files: compare their predictions')
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
        log(f'batch {number + 1} of {len(loader)}')
        for backend, evaluator in zip(backends, evaluators, strict=True):
            evaluator.process(_predict(backend, batch, loads_bgr(cfg)), batch)
    return [evaluator.evaluate(len(dataset)) for evaluator in evaluators], len(dataset)


def _predict(backend: Backend, batch: Mapping[str, Any], is_bgr: bool) -> list:
    """Data samples with the predictions of a file for a batch of a test loader."""
    metadata = backend.metadata
    decoder = DECODERS[metadata['task']](metadata, backend.inputs)
    samples = [sample.clone() for sample in batch['data_samples']]
    crops = [
        _crop(inputs, sample, is_bgr, backend, metadata['task'])
        for inputs, sample in zip(batch['inputs'], samples, strict=True)
    ]
    for crop, output, sample in zip(crops, run_batches(backend, decoder, metadata, crops, 8), samples, strict=True):
        FILL[metadata['task']](sample, decoder.decode([crop], [output]))
    return samples


def _crop(inputs: torch.Tensor, sample: Any, is_bgr: bool, backend: Backend, task: str) -> Crop:
    pixels = inputs.permute(1, 2, 0).numpy()
    if is_bgr and pixels.shape[2] == 3:
        pixels = pixels[..., ::-1]
    if task == 'classification':
        return Crop(pixels)
    if task == 'pose':
        box = np.asarray(sample.gt_instances.bboxes[0], np.float32)
        return Crop(pixels, context=(box, sample.input_center, sample.input_scale))
    height, width = sample.ori_shape
    if task == 'detection':
        return Crop(pixels, context=(height, width, *sample.scale_factor))
    extras = {'output_size': np.array([height, width], np.int64)} if 'output_size' in backend.inputs else {}
    return Crop(pixels, extras, context=(height, width))


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
