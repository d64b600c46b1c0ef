"""Classifiers by name, with labels, and the labeled images on which they are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import Tensor, nn

from mogacore.analysis.throughput import build_peer
from mogacore.checkpoint import check_source, load_into
from mogacore.engine.config import leaf_datasets, load_config, locate_data
from mogacore.engine.devices import choose_device
from mogacore.engine.trained import load_trained
from mogacore.errors import UserError, accepting
from mogacore.libraries import import_quietly
from mogacore.locations import config_file, is_config_name, labels
from mogacore.models.factory import create_model, list_models

PRETRAINED = 'pretrained'
SPLITS = ('train', 'test')


@dataclass(frozen=True)
class ModelSpec:
    """A model as a user names it: ``[LABEL=]NAME[@CHECKPOINT]``.

    Args:
        label: Name of the model in figures and files.
        name: A config file, a name of ``create_model``, ``timm:NAME`` or ``torchvision:NAME``.
        checkpoint: Weight file, or ``pretrained`` for the weights that timm or torchvision downloads; None is random
            weights.
    """

    label: str
    name: str
    checkpoint: str | None

    @property
    def is_config(self) -> bool:
        """Whether the name is a config, and not one of a network."""
        return is_config_name(self.name)


def parse_model(text: str) -> ModelSpec:
    """Parse ``[LABEL=]NAME[@CHECKPOINT]``; the default label is the name, or the file name of a config.

    Paths may contain ``=`` and ``@`` themselves: an existing config or network and an existing checkpoint take
    precedence over splitting at the first of these characters.

    Raises:
        UserError: If the name is empty.
    """
    readings = [
        (label, '@'.join(parts[:number]), '@'.join(parts[number:]))
        for label, rest in labels(text)
        for parts in [rest.split('@')]
        for number in range(len(parts), 0, -1)
    ]
    label, name, checkpoint = max(readings, key=lambda reading: (_exists(reading[1]), _is_source(reading[2])))
    if not _exists(name):
        before, _, checkpoint = text.partition('@')
        label, _, name = before.partition('=') if '=' in before else ('', '', before)
    if not name:
        raise UserError(f'model {text!r} has no name: write [LABEL=]NAME[@CHECKPOINT]')
    return ModelSpec(label or Path(name).stem, name, checkpoint or None)


def _exists(name: str) -> bool:
    """Whether a name is a config, a name of ``create_model``, or has the prefix of a library."""
    in_library = name.startswith(('timm:', 'torchvision:')) and '@' not in name and '=' not in name
    return in_library or name in list_models() or config_file(name) is not None


def _is_source(checkpoint: str) -> bool:
    try:
        check_source(checkpoint)
    except UserError:
        return checkpoint in ('', PRETRAINED)
    return True


def parse_models(texts: list[str]) -> list[ModelSpec]:
    """Parse several models.

    Raises:
        UserError: If a name is empty, or two models have the same label.
    """
    specs = [parse_model(text) for text in texts]
    labels = [spec.label for spec in specs]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f'two models have the label {label!r}: write LABEL=NAME for one of them')
    return specs


class LabeledImages:
    """The images of a classification config, prepared by its test pipeline.

    Args:
        cfg: Config of mmpretrain's scope.
        split: 'train' or 'test': the dataloader whose data is used.
        preprocess: Data preprocessor, which normalizes the images.

    Raises:
        UserError: If the split is unknown or the data is missing.
    """

    def __init__(self, cfg: Config, split: str, preprocess: BaseDataPreprocessor):
        if split not in SPLITS:
            raise UserError(f'split {split!r} is unknown: choose from {", ".join(SPLITS)}')
        locate_data(cfg, split)
        # leaf_datasets walks backwards: the last leaf is the first data set of the training dataloader.
        settings = list(leaf_datasets(cfg, split))[-1].copy()
        settings.pipeline = next(leaf_datasets(cfg, 'test')).pipeline
        self.dataset = DATASETS.build(settings)
        if not hasattr(self.dataset, 'get_gt_labels'):
            raise UserError(
                f'data set {settings.type} of {cfg.filename} does not have one class per image: choose another'
            )
        self.preprocess = preprocess
        self.labels: np.ndarray = np.asarray(self.dataset.get_gt_labels())

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Normalized image (1, C, H, W) and its label."""
        data = self.preprocess(pseudo_collate([self.dataset[index]]), False)
        return data['inputs'], int(self.labels[index])

    def name(self, index: int) -> str:
        """Path of an image relative to the data root; its index if it has no file."""
        path = self.dataset.get_data_info(index).get('img_path')
        root = Path(self.dataset.data_root or '')
        if path is None:
            return str(index)
        return Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else Path(path).name


class Classifier:
    """A network in eval mode that returns logits, with its images.

    Args:
        spec: The model as the user named it.
        network: The network.
        logits: Returns (B, K) logits of normalized images (B, C, H, W).
        images: Labeled images, normalized for this network.

    Raises:
        UserError: If the network does not accept the images, does not return logits, or has too few classes.
    """

    def __init__(self, spec: ModelSpec, network: nn.Module, logits: Callable[[Tensor], Tensor], images: LabeledImages):
        self.spec, self.network, self._logits, self.images = spec, network, logits, images
        image, _ = images[0]
        with accepting(spec.name, image.shape[1:]), torch.inference_mode():
            found = logits(image)
        if not isinstance(found, Tensor) or found.ndim != 2:
            raise UserError(f'{spec.name} does not return logits (B, K): choose a classifier')
        if found.shape[1] <= images.labels.max():
            raise UserError(
                f'{spec.name} has {found.shape[1]} classes, but the data has {images.labels.max() + 1}: '
                'use the data that the model was trained on'
            )

    def __call__(self, images: Tensor) -> Tensor:
        return self._logits(images)

    def weights_digest(self) -> str:
        """SHA-256 of all parameters and buffers, by which a resumed run recognizes its network."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def open_classifiers(
    specs: list[ModelSpec], data: str | None = None, split: str = 'test', device: str | None = None
) -> list[Classifier]:
    """Build classifiers on the same images.

    A model given by a config uses its own pipeline and normalization; every other model uses those of ``data``.

    Args:
        specs: The models.
        data: Config whose data, pipeline and normalization the models without a config use; None is the first model
            that is a config.
        split: 'train' or 'test'.
        device: torch device; None is a GPU if available.

    Raises:
        UserError: If a model, its weights or the data are missing or invalid, or the models have different data.
    """
    device = choose_device(device)
    data = data or next((spec.name for spec in specs if spec.is_config), None)
    if data is None:
        raise UserError('no model is a config: name the config whose images to use with --data CONFIG')
    found = [_open(spec, data, split, device) for spec in specs]
    first = found[0].images
    for other in found[1:]:
        if not np.array_equal(other.images.labels, first.labels):
            raise UserError(
                f'{other.spec.name} and {found[0].spec.name} have different data: compare models on the same images'
            )
    return found


def _open(spec: ModelSpec, data: str, split: str, device: str) -> Classifier:
    cfg = load_config(spec.name if spec.is_config else data)
    if cfg.get('default_scope') != 'mmpretrain':
        raise UserError(f'config {cfg.filename} is not an mmpretrain classifier: choose one of configs/classification')
    preprocess: BaseDataPreprocessor
    if spec.is_config:
        if spec.checkpoint is None:
            raise UserError(f'model {spec.name} needs trained weights: write {spec.name}@CHECKPOINT')
        network, _ = load_trained(cfg, spec.checkpoint, device)
        preprocess = network.data_preprocessor
        return Classifier(
            spec,
            network,
            lambda images: network(images, mode='tensor'),
            LabeledImages(cfg, split, preprocess),
        )
    preprocess = build_preprocess(cfg).to(device)
    images = LabeledImages(cfg, split, preprocess)
    num_classes = preprocess.num_classes or int(images.labels.max()) + 1
    network = build_classifier(spec, num_classes, images[0][0].shape[1]).to(device).eval()
    return Classifier(spec, network, network, images)


def build_preprocess(cfg: Config) -> BaseDataPreprocessor:
    """Build the data preprocessor of a classification config, without its model."""
    import_quietly('mmpretrain')
    init_default_scope('mmpretrain')
    settings = {**cfg.get('data_preprocessor', {}), **cfg.model.get('data_preprocessor', {})}
    return MODELS.build({'type': 'ClsDataPreprocessor', **settings})


def build_classifier(spec: ModelSpec, num_classes: int, in_channels: int) -> nn.Module:
    """Build a classifier by its name in ``create_model``, timm or torchvision; weights are random without a checkpoint.

    Raises:
        UserError: If the name is unknown, or the weights are missing or of another network.
    """
    torch.manual_seed(0)
    library, _, name = spec.name.rpartition(':')
    fetch = spec.checkpoint == PRETRAINED
    if spec.name in list_models():
        if fetch:
            raise UserError(f'{spec.name}@{PRETRAINED} is unknown: write {spec.name}@FILE, see docs/checkpoints.md')
        network = create_model(spec.name, num_classes, in_channels=in_channels)
    elif library == 'timm':
        network = build_peer(library, name, num_classes=num_classes, in_chans=in_channels, pretrained=fetch)
    elif library == 'torchvision':
        # torchvision loads weights only with the number of classes that they were trained on.
        settings: dict = {'weights': 'DEFAULT'} if fetch else {'num_classes': num_classes}
        network = build_peer(library, name, **settings)
    else:
        raise UserError(
            f'model {spec.name!r} is unknown: choose a config, timm:NAME, torchvision:NAME, or one of '
            f'{", ".join(list_models())}'
        )
    if spec.checkpoint and not fetch:
        check_source(spec.checkpoint)
        load_into(network, spec.checkpoint, advice='')
    return network
