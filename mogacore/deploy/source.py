"""A trained network with all that its exported file needs to say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.model import ImgDataPreprocessor
from torch import nn

from mogacore.checkpoint import check_gate, content_hash, read, weights_of
from mogacore.engine.check_config import check_keys
from mogacore.engine.check_kinds import check_parts
from mogacore.engine.config import load_config
from mogacore.engine.dataset_meta import channel_order, dataset_facts, dataset_meta
from mogacore.engine.trained import load_trained
from mogacore.errors import UserError
from mogacore.kinds import checks_arguments
from mogacore.locations import find_config, is_config_name
from mogacore.models.factory import create_model, load_named

from .preprocess import pipeline_of, steps_of

IMAGENET = 'classification/_base_/datasets/imagenet-224'  # mean, deviation and test pipeline of networks by name


@dataclass
class Source:
    """A trained network.

    Args:
        model: In eval mode; an export may replace its parts by equivalent ones.
        cfg: Its config, or what there is of one.
        meta: Metainfo of its data set.
        shape: Shape of one input, (C, H, W) or (T, C, H, W).
        raw: Whether the file has the outputs of the network, without post-processing.
        features: Whether it has the maps of the backbone.
        facts: Entries of the metadata: config, checkpoint, classes, preprocess ...
    """

    model: nn.Module
    cfg: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (3, 224, 224)
    raw: bool = False
    features: bool = False
    facts: dict = field(default_factory=dict)


@checks_arguments()
def load_source(
    network: str,
    checkpoint: str,
    cfg_options: dict | None = None,
    num_classes: int | None = None,
    raw: bool = False,
    features: bool = False,
) -> Source:
    """Load a trained network.

    Args:
        network: Config, by path or short name, or a model name for :func:`mogacore.create_model`.
        checkpoint: Weight file; it must match the network exactly. 'official' for the published one of a network by
            name.
        cfg_options: Settings that override the config.
        num_classes: Classes of a network by name; None for 1000.
        raw, features: See :class:`Source`.

    Raises:
        UserError: If the network or a setting is unknown, or the weights do not match.
    """
    if is_config_name(network):
        if num_classes is not None:
            raise UserError(
                f'--num-classes {num_classes} is for networks by name: use --cfg-options, for a classifier '
                f'model.head.num_classes={num_classes}'
            )
        cfg = load_config(network, cfg_options)
        check_keys(cfg)
        check_parts(cfg, 'export')
        model, meta = _load_config_model(cfg, checkpoint)
    else:
        if cfg_options:
            raise UserError(f'--cfg-options {cfg_options} are for configs, not for the network {network}: omit them')
        cfg = load_config(find_config(IMAGENET))
        checkpoint = weights_of(network, checkpoint)
        model, meta = _load_named_model(network, checkpoint, num_classes, cfg, features)
    name = Path(network).stem if network.endswith('.py') else network
    facts = {
        'config': name,
        **dataset_facts(meta),
        'preprocess': steps_of(pipeline_of(cfg)) if _has_images(cfg) else [],
        'checkpoint': _describe(checkpoint),
    }
    shape = tuple(cfg.get('input_shape', (3, 224, 224)))
    if channel_order(cfg) == 'gray' and _has_images(cfg):
        shape = (1, *shape[1:])  # the mean of three channels repeats a gray one
    return Source(model.eval(), cfg, meta, shape, raw, features, facts)


def _has_images(cfg: Config) -> bool:
    """Whether the test pipeline prepares images; a video predictor's data sets have none."""
    return len(cfg.get('input_shape', (3, 224, 224))) == 3


def _load_config_model(cfg: Config, checkpoint: str) -> tuple[nn.Module, dict]:
    model, container = load_trained(cfg, checkpoint, 'cpu')
    return model, dataset_meta(cfg, container) if _has_images(cfg) else {}


def _load_named_model(
    name: str, checkpoint: str, num_classes: int | None, cfg: Config, features: bool
) -> tuple[nn.Module, dict]:
    model = create_model(name, 1000 if num_classes is None else num_classes, features_only=features)
    check_gate(model, checkpoint, 'export it by a config with {setting}')
    load_named(model, checkpoint, advice='' if features else 'or give the number of its classes in --num-classes')
    model.data_preprocessor = ImgDataPreprocessor(
        mean=cfg.data_preprocessor.mean, std=cfg.data_preprocessor.std, bgr_to_rgb=True
    )
    meta = read(checkpoint, mmap=True).get('meta')
    saved = meta.get('dataset_meta') if isinstance(meta, dict) else None
    return model, saved if isinstance(saved, dict) else {}


def _describe(checkpoint: str) -> dict:
    """Name and sha256 of a weight file; None for the hash of one from another library's table."""
    return {'name': Path(checkpoint).name, 'sha256': content_hash(checkpoint)}
