"""Predictions for a user's own pictures: records for machines, drawings for people."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.registry import MODELS, init_default_scope

from mogacore.checkpoint import load_into, read
from mogacore.errors import UserError
from mogacore.registry import import_quietly

from .config import load_config

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')
OVERVIEW_SIZE = 40  # pictures; more are too small to look at


def find_images(source: str | Path) -> list[Path]:
    """The picture ``source``, or the pictures in the folder ``source`` and below, sorted.

    Raises:
        UserError: If there is none.
    """
    source = Path(source)
    if source.is_dir():
        images = sorted(path for path in source.rglob('*') if path.suffix.lower() in IMAGE_SUFFIXES)
    else:
        images = [source] if source.is_file() and source.suffix.lower() in IMAGE_SUFFIXES else []
    if not images:
        raise UserError(
            f'input {source} holds no picture: give a file or folder of pictures ({", ".join(IMAGE_SUFFIXES)})'
        )
    return images


class Predictor:
    """A trained model of a config file, for single pictures.

    Args:
        config: Config file or loaded config; its test pipeline prepares the pictures.
        checkpoint: Weight file; it must fit the model whole.
        device: torch device; None takes a GPU if there is one.

    Raises:
        UserError: If config or weight file do not fit, or the task has no drawing here yet.
    """

    def __init__(self, config: str | Config, checkpoint: str, device: str | None = None):
        cfg = config if isinstance(config, Config) else load_config(config)
        scope = cfg.get('default_scope', 'mmengine')
        if scope not in TASKS:
            raise UserError(f'pictures of {scope} models cannot be drawn: choose a config of {", ".join(TASKS)}')
        if not Path(checkpoint).is_file():
            raise UserError(f'checkpoint {checkpoint} is not there: give the path of a weight file')
        import_quietly(scope)
        init_default_scope(scope)
        self.describe, self.draw = TASKS[scope]
        model = cfg.model.copy()
        if 'data_preprocessor' in cfg:
            model.setdefault('data_preprocessor', cfg.data_preprocessor)
        self.model = MODELS.build(model)
        container = read(checkpoint)
        load_into(self.model, container)
        self.model.to(device or get_device()).eval()
        self.classes = self._classes(cfg, container)
        pipeline = list(cfg.test_dataloader.dataset.pipeline)
        if pipeline[0]['type'] != 'LoadImageFromFile':  # the data set holds decoded images
            pipeline.insert(0, dict(type='LoadImageFromFile'))
        self.pipeline = Compose(pipeline)

    @staticmethod
    def _classes(cfg: Config, container: dict) -> tuple[str, ...] | None:
        for meta in (
            container.get('meta', {}).get('dataset_meta') or {},
            cfg.test_dataloader.dataset.get('metainfo') or {},
        ):
            if meta.get('classes'):
                return tuple(meta['classes'])
        return None

    @torch.no_grad()
    def __call__(self, image: Path) -> dict:
        """Prediction for one picture, as JSON can hold it."""
        data = self.pipeline(dict(img_path=str(image)))
        sample = self.model.test_step(pseudo_collate([data]))[0]
        return {'image': str(image), **self.describe(sample, self.classes)}


def infer(
    config: str, checkpoint: str, source: str, out_dir: str, cfg_options: dict | None = None, device: str | None = None
) -> list[dict]:
    """Predict a picture or a folder of pictures; write ``predictions.json`` and drawings into ``out_dir``.

    Args:
        config: Config file.
        checkpoint: Weight file.
        source: A picture, or a folder of pictures.
        out_dir: Folder to write to; made if need be.
        cfg_options: Settings over the config's.
        device: torch device; None takes a GPU if there is one.

    Returns:
        One record a picture, as written to the JSON file.

    Raises:
        UserError: If something the user gave is not there or does not fit.
    """
    from rich.progress import track

    images = find_images(source)
    predictor = Predictor(load_config(config, cfg_options), checkpoint, device)
    records = [predictor(image) for image in track(images, description='predicting')]
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    report = {'config': str(config), 'checkpoint': str(checkpoint), 'predictions': records}
    (out_dir / 'predictions.json').write_text(json.dumps(report, indent=2) + '\n')
    predictor.draw(records, out_dir)
    return records


def describe_classification(sample, classes: tuple[str, ...] | None, num_top: int = 5) -> dict:
    """Labels and scores of the most probable classes, best first."""
    scores = sample.pred_score.cpu()
    top_scores, top_labels = scores.topk(min(num_top, len(scores)))
    names = [classes[label] if classes else str(label) for label in top_labels.tolist()]
    return {
        'pred_label': top_labels[0].item(),
        'pred_class': names[0],
        'pred_score': round(top_scores[0].item(), 6),
        'top': [
            {'class': name, 'score': round(score, 6)} for name, score in zip(names, top_scores.tolist(), strict=True)
        ],
    }


def draw_classification(records: list[dict], out_dir: Path) -> None:
    """``predictions.png``: pictures with their predicted class and its score; of many, an even choice.

    Where a picture lies in a folder that bears the name of a predicted class, that name is taken for the truth: a
    wrong prediction is red and says it.
    """
    from matplotlib.figure import Figure
    from PIL import Image

    chosen = [records[i] for i in np.unique(np.linspace(0, len(records) - 1, OVERVIEW_SIZE).round().astype(int))]
    class_names = {record['pred_class'] for record in records}
    num_cols = min(8, len(chosen))
    num_rows = -(-len(chosen) // num_cols)
    figure = Figure(figsize=(1.6 * num_cols, 1.9 * num_rows), layout='constrained')
    axes = figure.subplots(num_rows, num_cols, squeeze=False).ravel()
    for axis in axes:
        axis.axis('off')
    for axis, record in zip(axes, chosen, strict=False):
        path = Path(record['image'])
        with Image.open(path) as image:
            axis.imshow(np.asarray(image.convert('RGB')))
        title, color = f'{record["pred_class"]}  {record["pred_score"]:.0%}', 'black'
        if path.parent.name in class_names and path.parent.name != record['pred_class']:
            title, color = f'{title}\nnot {path.parent.name}', 'red'
        axis.set_title(title, color=color, fontsize=11)
    figure.savefig(out_dir / 'predictions.png', dpi=100)


# How a task's prediction is told and drawn, by the library that its configs name as default_scope.
TASKS: dict[str, tuple[Callable, Callable]] = {'mmpretrain': (describe_classification, draw_classification)}
