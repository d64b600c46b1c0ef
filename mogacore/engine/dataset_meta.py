"""What a data set says of its images, and of the classes or keypoints that a model predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from mogacore.datasets.checks import Expected
from mogacore.text import type_name

from .config import leaf_datasets, leaves

# What the metainfo of a checkpoint must have to be used, by default_scope.
REQUIRED = {
    'mmpose': ('keypoint_id2name', 'flip_indices', 'keypoint_colors', 'skeleton_links', 'skeleton_link_colors'),
}

# mmpretrain's heads whose classes do not exclude each other.
MULTI_LABEL_HEADS = ('MultiLabelClsHead', 'MultiLabelLinearClsHead', 'CSRAClsHead')
GRAY_DATASETS = ('MNIST', 'FashionMNIST', 'FashionMNISTFiles')  # of decoded images


def is_multi_label(cfg: Config) -> bool:
    """Whether the model of a config predicts any number of classes per image."""
    return type_name(cfg.model.get('head', {}).get('type')) in MULTI_LABEL_HEADS


def dataset_meta(cfg: Config, container: dict) -> dict:
    """Metainfo of the training data from the checkpoint; if incomplete, that of the config's test data.

    It is also incomplete if it has fewer class names than the model has classes.

    Args:
        cfg: Loaded config.
        container: Content of the checkpoint.
    """
    meta = container.get('meta')
    saved = meta.get('dataset_meta') if isinstance(meta, dict) else None
    required = REQUIRED.get(cfg.get('default_scope', ''), ('classes',))
    if isinstance(saved, dict) and all(saved.get(key) is not None for key in required):
        num_classes = max(Expected.of(cfg.model).num_classes.values(), default=0)
        if len(saved.get('classes') or ()) >= num_classes:
            return saved
    dataset = next(leaf_datasets(cfg, 'test'))
    with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
        return registry.get(dataset.type)._load_metainfo(dataset.get('metainfo'))


def dataset_facts(meta: Mapping[str, Any]) -> dict:
    """Names and colors of classes and keypoints, from the metainfo of a data set.

    Returns:
        ``classes``, ``palette`` and ``keypoints``; None where the data set has none.
    """
    keypoints = None
    if names := meta.get('keypoint_id2name'):
        keypoints = {
            'names': [names[number] for number in sorted(names)],
            'colors': meta.get('keypoint_colors'),
            'skeleton': meta.get('skeleton_links'),
            'skeleton_colors': meta.get('skeleton_link_colors'),
            'flip_indices': meta.get('flip_indices'),
        }
    return {
        'classes': list(meta.get('classes') or ()) or None,
        'palette': list(meta.get('palette') or ()) or None,
        'keypoints': keypoints,
    }


def channel_order(cfg: Mapping[str, Any], split: str = 'test') -> str:
    """Channels of the images that the pipeline of a data set loads.

    Args:
        cfg: Loaded config.
        split: 'train', 'val' or 'test'.

    Returns:
        'gray'; 'bgr', as OpenCV reads files; or 'rgb', of data sets of decoded images, whose pipelines load no file.
    """
    dataset = next(leaves(cfg.get(f'{split}_dataloader')), None) or {}
    color_type = _color_type(dataset)
    if color_type is not None:
        return 'gray' if color_type.startswith('gray') else 'bgr'
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    return 'gray' if type_name(dataset['type']) in GRAY_DATASETS or backbone.get('in_channels') == 1 else 'rgb'


def ignores_orientation(cfg: Mapping[str, Any]) -> bool:
    """Whether the test set of a config loads images as they are stored, without their EXIF orientation."""
    dataset = next(leaves(cfg.get('test_dataloader')), None) or {}
    color_type = _color_type(dataset)
    return color_type not in (None, 'color', 'grayscale')


def _color_type(dataset: Mapping[str, Any]) -> str | None:
    """How the pipeline of a data set decodes image files; None if it loads no file."""
    load = next(iter(dataset.get('pipeline') or ()), {'type': 'LoadImageFromFile'})
    return load.get('color_type', 'color') if 'LoadImage' in type_name(load['type']) else None


def video_facts(cfg: Mapping[str, Any]) -> dict:
    """How the test set of a video predictor makes frames.

    Returns:
        ``frame_step``; ``channel_order``, 'rgb' or 'bgr'; ``is_image``, whether the frames are images.
    """
    dataset = next(leaves(cfg.get('test_dataloader')), None) or {}
    return {
        'frame_step': dataset.get('frame_step', 1),
        'channel_order': dataset.get('channel_order', 'rgb'),
        'is_image': type_name(dataset.get('type')) not in ('TaxiBJ', 'WeatherBench'),
    }
