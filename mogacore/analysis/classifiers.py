"""Classifiers by name, under labels, and the labelled images they are compared on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import Tensor, nn

from mogacore.analysis.throughput import build_peer
from mogacore.checkpoint import load_into
from mogacore.engine.config import leaf_datasets, load_config, locate_data
from mogacore.errors import UserError
from mogacore.inference.predictor import load_trained
from mogacore.libraries import import_quietly
from mogacore.locations import is_config_name
from mogacore.models.factory import create_model, list_models

PRETRAINED = 'pretrained'
SPLITS = ('train', 'test')


@dataclass(frozen=True)
class ModelSpec:
    """What a user writes for a model: ``[LABEL=]NAME[@CHECKPOINT]``.

    Args:
        label: How figures and files call it.
        name: A config file, a name of ``create_model``, ``timm:NAME`` or ``torchvision:NAME``.
        checkpoint: Weight file; ``pretrained`` for the weights that timm or torchvision fetches; None for none.
    """

    label: str
    name: str
    checkpoint: str | None

    @property
    def is_config(self) -> bool:
        return is_config_name(self.name)


def parse_model(text: str) -> ModelSpec:
    """Take ``[LABEL=]NAME[@CHECKPOINT]`` apart; without a label the name is one, of a config that of its file."""
    label, has_label, rest = text.partition('=')
    if not has_label:
        label, rest = '', text
    name, _, checkpoint = rest.partition('@')
    if not name:
        raise UserError(f'model {text!r} has no name: write [LABEL=]NAME[@CHECKPOINT]')
    return ModelSpec(label or Path(name).stem, name, checkpoint or None)


def parse_models(texts: list[str]) -> list[ModelSpec]:
    """Take several apart.

    Raises:
        UserError: If two have the same label.
    """
    specs = [parse_model(text) for text in texts]
    labels = [spec.label for spec in specs]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f'two models are called {label!r}: write LABEL=NAME for one of them')
    return specs


class LabelledImages:
    """The images of a config's classification data, as its network gets them in a test.

    Args:
        cfg: Config of mmpretrain's scope.
        split: 'train' or 'test': which of its dataloaders' data.
        preprocess: Data preprocessor, which normalises.

    Raises:
        UserError: If the data is not there.
    """

    def __init__(self, cfg: Config, split: str, preprocess: nn.Module):
        if split not in SPLITS:
            raise UserError(f'split {split!r} is unknown: choose from {", ".join(SPLITS)}')
        locate_data(cfg, split)
        # Of the training split's data sets the last is the first that its dataloader names.
        settings = list(leaf_datasets(cfg, split))[-1].copy()
        settings.pipeline = next(leaf_datasets(cfg, 'test')).pipeline
        self.dataset = DATASETS.build(settings)
        self.preprocess = preprocess
        self.labels: np.ndarray = np.asarray(self.dataset.get_gt_labels())

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Normalised image (1, C, H, W) and label."""
        data = self.preprocess(pseudo_collate([self.dataset[index]]), False)
        return data['inputs'], int(self.labels[index])

    def name(self, index: int) -> str:
        """File of an image below its data root; its number where it has none."""
        path = self.dataset.get_data_info(index).get('img_path')
        root = Path(self.dataset.data_root or '')
        if path is None:
            return str(index)
        return Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else Path(path).name


class Classifier:
    """A network in eval mode that gives logits, and the images it takes.

    Args:
        spec: What the user asked for.
        network: The network.
        logits: Gives (B, K) logits of normalised images (B, C, H, W).
        images: Labelled images, normalised for this network.
    """

    def __init__(self, spec: ModelSpec, network: nn.Module, logits: Callable[[Tensor], Tensor], images: LabelledImages):
        self.spec, self.network, self._logits, self.images = spec, network, logits, images
        image, _ = images[0]
        try:
            with torch.inference_mode():
                found = logits(image)
        except RuntimeError as error:
            reason = str(error).partition('\n')[0]
            raise UserError(f'{spec.name} does not take images of {tuple(image.shape[1:])}: {reason}') from error
        if not isinstance(found, Tensor) or found.ndim != 2:
            raise UserError(f'{spec.name} gives no logits (B, K): choose a classifier')
        if found.shape[1] <= images.labels.max():
            raise UserError(
                f'{spec.name} tells {found.shape[1]} classes, the data has {images.labels.max() + 1}: '
                'they must be those it was trained on'
            )

    def __call__(self, images: Tensor) -> Tensor:
        return self._logits(images)

    def weights_digest(self) -> str:
        """SHA-256 of all parameters and buffers, by which a run knows its network again."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def open_classifiers(
    specs: list[ModelSpec], data: str | None = None, split: str = 'test', device: str | None = None
) -> list[Classifier]:
    """Build classifiers over the same images.

    A config's network sees them through its own pipeline and normalisation; any other through those of ``data``.

    Args:
        specs: The models.
        data: Config file whose data, pipeline and normalisation the models without a config take; None takes those of
            the first model that has one.
        split: 'train' or 'test'.
        device: torch device; None takes a GPU if there is one.

    Raises:
        UserError: If a model, its weights or the data are not there or do not fit.
    """
    device = device or get_device()
    data = data or next((spec.name for spec in specs if spec.is_config), None)
    if data is None:
        raise UserError('no model is a config file: name one whose images are to be taken with --data CONFIG')
    found = [_open(spec, data, split, device) for spec in specs]
    first = found[0].images
    for other in found[1:]:
        if not np.array_equal(other.images.labels, first.labels):
            raise UserError(f'{other.spec.name} has other data than {found[0].spec.name}: compare on the same images')
    return found


def _open(spec: ModelSpec, data: str, split: str, device: str) -> Classifier:
    cfg = load_config(spec.name if spec.is_config else data)
    if cfg.get('default_scope') != 'mmpretrain':
        raise UserError(f'config {cfg.filename} is no classifier of mmpretrain: choose one of configs/classification')
    if spec.is_config:
        if spec.checkpoint is None:
            raise UserError(f'model {spec.name} needs trained weights: write {spec.name}@CHECKPOINT')
        network, _ = load_trained(cfg, spec.checkpoint, device)
        preprocess = network.data_preprocessor
        return Classifier(
            spec,
            network,
            lambda images: network(images, mode='tensor'),
            LabelledImages(cfg, split, preprocess),
        )
    preprocess = build_preprocess(cfg).to(device)
    images = LabelledImages(cfg, split, preprocess)
    num_classes = preprocess.num_classes or int(images.labels.max()) + 1
    network = build_classifier(spec, num_classes, images[0][0].shape[1]).to(device).eval()
    return Classifier(spec, network, network, images)


def build_preprocess(cfg: Config) -> nn.Module:
    """What normalises the images of a classification config, without its model."""
    import_quietly('mmpretrain')
    init_default_scope('mmpretrain')
    settings = {**cfg.get('data_preprocessor', {}), **cfg.model.get('data_preprocessor', {})}
    return MODELS.build({'type': 'ClsDataPreprocessor', **settings})


def build_classifier(spec: ModelSpec, num_classes: int, in_channels: int) -> nn.Module:
    """A classifier by its name in ``create_model``, timm or torchvision; without a checkpoint its weights are random.

    Raises:
        UserError: If there is none of that name, or the weights do not fit.
    """
    torch.manual_seed(0)
    library, _, name = spec.name.rpartition(':')
    fetch = spec.checkpoint == PRETRAINED
    if spec.name in list_models():
        if fetch:
            raise UserError(f'{spec.name} has no weights to fetch: write {spec.name}@FILE, see docs/checkpoints.md')
        network = create_model(spec.name, num_classes, in_channels=in_channels)
    elif library == 'timm':
        network = build_peer(library, name, num_classes=num_classes, in_chans=in_channels, pretrained=fetch)
    elif library == 'torchvision':
        # Its weights come with the number of classes that they were trained on, and only so.
        settings = {'weights': 'DEFAULT'} if fetch else {'num_classes': num_classes}
        network = build_peer(library, name, **settings)
    else:
        raise UserError(
            f'model {spec.name!r} is unknown: choose a config file, timm:NAME, torchvision:NAME, or from '
            f'{", ".join(list_models())}'
        )
    if spec.checkpoint and not fetch:
        if not Path(spec.checkpoint).is_file():
            raise UserError(f'checkpoint {spec.checkpoint} is not there: give the path of a weight file')
        load_into(network, spec.checkpoint)
    return network
