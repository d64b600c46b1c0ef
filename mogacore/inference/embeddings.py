"""Features of many images, and how well they separate the classes: k nearest neighbors and a linear probe."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from rich.progress import Progress
from torch import Tensor

from mogacore.engine.config import leaves, load_config, locate_data, prepare_loaders, restored_scope
from mogacore.engine.data import label_class_folders
from mogacore.engine.loaders import build_loader
from mogacore.errors import UserError
from mogacore.files import check_outputs, make_folder, readable, write_atomic, write_json
from mogacore.kinds import checks_arguments
from mogacore.packs import is_file
from mogacore.runtime.drawing.overview import draw_overview
from mogacore.runtime.inputs import VIDEO_SUFFIXES, UnreadableError, find_inputs

from .features import backbone_of, pool
from .predictor import Predictor

SPLITS = ('train', 'val', 'test')
CHUNK = 1024  # queries whose similarities to all training images are in memory at a time
SHOWN_QUERIES, SHOWN_NEIGHBORS = 5, 7
NO_LABELS = '--knn and --linear-probe need a label for each image: use a config for classification'


@dataclass
class Embeddings:
    """Features of images.

    Args:
        features: (N, C) float32.
        names: Path of each image; of a data set of decoded images, its split and number.
        labels: (N,) int64; None if unknown.
        classes: Names of the classes; None if unknown.
    """

    features: np.ndarray
    names: list[str]
    labels: np.ndarray | None = None
    classes: list[str] | None = None


@torch.no_grad()
def _features(model: Any, batch: dict) -> np.ndarray:
    inputs = model.data_preprocessor(batch, False)['inputs']
    return pool(backbone_of(model)(inputs)).cpu().numpy()


def embed_inputs(predictor: Predictor, inputs: Iterable[Path]) -> Embeddings:
    """Features of image files; one that cannot be read is skipped with a warning.

    Raises:
        UserError: If one is a video, or none can be read.
    """
    rows, names = [], []
    for path in inputs:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            raise UserError(f'{path} is a video: give images, or save the features of its frames with mogacore infer')
        try:
            items = predictor.samples.inputs(predictor.load(path), None)
            rows.append(_features(predictor.model, pseudo_collate([predictor.prepare(item) for item in items])))
        except UnreadableError as error:
            print(f'warning: {readable(str(error))}; skipped')
            continue
        names.append(str(path))
    if not rows:
        raise UserError('none of the images can be read: use others')
    return Embeddings(np.concatenate(rows), names)


def embed_split(predictor: Predictor, cfg: Config, split: str, checkpoint: str, track: Any = None) -> Embeddings:
    """Features of a data set of a config, each image as the test pipeline prepares it.

    Args:
        predictor: The model.
        cfg: Its config.
        split: 'train', 'val' or 'test'.
        checkpoint: Its weight file, whose class names have precedence.
        track: See :meth:`rich.progress.Progress.track`.

    Raises:
        UserError: If the config has no such data set, or its data is missing.
    """
    cfg, training = deepcopy(cfg), deepcopy(cfg.get('train_dataloader'))
    parts = [deepcopy(part) for part in leaves(cfg.get(f'{split}_dataloader'))]
    if not parts:
        raise UserError(f'the config has no {split}_dataloader: choose another split, or add it to the config')
    pipeline = next(leaves(cfg.test_dataloader)).pipeline
    for part in parts:
        part.update(pipeline=pipeline, test_mode=True)
    dataset = parts[0] if len(parts) == 1 else dict(type='ConcatDataset', datasets=parts)
    settings = {'batch_size': cfg.test_dataloader.batch_size, 'num_workers': cfg.test_dataloader.get('num_workers', 0)}
    sampler = dict(type='DefaultSampler', shuffle=False)
    cfg.test_dataloader = dict(settings, dataset=dataset, sampler=sampler)
    cfg.pop('test_evaluator', None)
    prepare_loaders(cfg)
    locate_data(cfg, 'test')
    label_class_folders(cfg, 'test', training, checkpoint)
    loader: Any = build_loader(cfg.test_dataloader)
    rows: list[np.ndarray] = []
    names: list[str] = []
    labels: list[int] = []
    for batch in loader if track is None else track(loader, description=f'{split} images'):
        rows.append(_features(predictor.model, batch))
        for sample in batch['data_samples']:
            names.append(str(sample.get('img_path') or f'{split} {len(names)}'))
            label = sample.get('gt_label')
            if label is not None and label.numel() == 1:
                labels.append(int(label))
    has_labels = len(labels) == len(names)
    classes = list(loader.dataset.metainfo.get('classes') or ()) or None
    return Embeddings(np.concatenate(rows), names, np.array(labels) if has_labels else None, classes)


def write_embeddings(path: str | Path, found: Embeddings) -> list[Path]:
    """Write features to a ``.npy`` file, with names and labels in a JSON file of the same name, or to ``.parquet``.

    Returns:
        The written files.

    Raises:
        UserError: If the suffix is another one, or pyarrow is not installed.
    """
    check_format(path)
    path = Path(path)
    make_folder(path.parent)
    labels = {} if found.labels is None else {'labels': found.labels.tolist()}
    buffer = io.BytesIO()
    if path.suffix == '.npy':
        np.save(buffer, found.features)
        write_atomic(path, buffer.getbuffer())
        write_json(path.with_suffix('.json'), {'names': found.names, **labels})
        return [path, path.with_suffix('.json')]
    import pyarrow
    from pyarrow import parquet

    rows = pyarrow.FixedSizeListArray.from_arrays(found.features.ravel(), found.features.shape[1])
    columns = {'name': [readable(name) for name in found.names], **({'label': found.labels} if labels else {})}
    parquet.write_table(pyarrow.table({**columns, 'features': rows}), buffer)
    write_atomic(path, buffer.getbuffer())
    return [path]


def check_format(path: str | Path) -> None:
    """Raise UserError for a file of features that :func:`write_embeddings` cannot write."""
    if Path(path).suffix not in ('.npy', '.parquet'):
        raise UserError(f'--out {path} has an unknown suffix: use .npy or .parquet')
    if Path(path).suffix == '.parquet':
        try:
            import pyarrow  # noqa: F401
        except ModuleNotFoundError:
            raise UserError(f'--out {path} needs pyarrow: pip install pyarrow, or use .npy') from None


def nearest(train: np.ndarray, queries: np.ndarray, k: int, device: str = 'cpu') -> tuple[np.ndarray, np.ndarray]:
    """The most similar training images of each query.

    Args:
        train: Features (M, C).
        queries: Features (N, C).
        k: Number of neighbors.
        device: torch device of the computation.

    Returns:
        Cosine similarities (N, k), largest first, and the numbers of the training images (N, k).

    Raises:
        UserError: If there are fewer than k training images, or k is below 1.
    """
    if not 1 <= k <= len(train):
        raise UserError(f'--k {k} is out of range: use 1 to {len(train)}, the number of training images')
    columns = _unit(train, device).T
    found = [(chunk @ columns).topk(k, 1) for chunk in _unit(queries, device).split(CHUNK)]
    similarities, numbers = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
    return similarities, numbers


def _unit(features: np.ndarray, device: str) -> Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(features).to(device, torch.float32), dim=1)


def vote(similarities: np.ndarray, labels: np.ndarray, temperature: float, num_classes: int) -> np.ndarray:
    """The class of each query by the votes of its neighbors, which are weighted with exp(similarity / temperature).

    Args:
        similarities: (N, k).
        labels: Of the neighbors, (N, k).
        temperature: Above 0.
        num_classes: Number of classes.

    Raises:
        UserError: If the temperature is not above 0.

    Source: Caron et al. (DINO), arXiv 2104.14294, and Wu et al., arXiv 1805.01978, with temperature 0.07.
    """
    _check_temperature(temperature)
    weights = np.exp((similarities.astype(np.float64) - similarities.max(1, keepdims=True)) / temperature)
    votes = np.zeros((len(labels), num_classes))
    np.add.at(votes, (np.arange(len(labels))[:, None], labels), weights)
    return votes.argmax(1)


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise UserError(f'--temperature {temperature} is out of range: use a number above 0, such as 0.07')


def knn_accuracy(
    train: Embeddings, val: Embeddings, k: int = 20, temperature: float = 0.07, device: str = 'cpu'
) -> float:
    """Fraction of the images of ``val`` whose class the k nearest images of ``train`` agree on, see :func:`vote`."""
    train_labels, labels = _labels(train), _labels(val)
    similarities, numbers = nearest(train.features, val.features, k, device)
    num_classes = 1 + int(max(train_labels.max(), labels.max()))
    return float(np.mean(vote(similarities, train_labels[numbers], temperature, num_classes) == labels))


def probe_accuracy(train: Embeddings, val: Embeddings, strength: float = 1.0) -> float:
    """Accuracy on ``val`` of a logistic regression on the standardized features of ``train``.

    Args:
        train: Training images.
        val: Test images.
        strength: Inverse of the weight of the L2 penalty, ``C`` of scikit-learn's LogisticRegression.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
    return float(probe.fit(train.features, _labels(train)).score(val.features, _labels(val)))


def _labels(found: Embeddings) -> np.ndarray:
    if found.labels is None:
        raise UserError(NO_LABELS)
    return found.labels


def draw_neighbors(path: str | Path, train: Embeddings, val: Embeddings) -> None:
    """Draw some images of ``val``, each with its nearest images of ``train`` and their similarity, to a PNG file.

    Neighbors of another class have red titles.

    Raises:
        UserError: If the data sets have no image files.
    """
    if not is_file(val.names[0]):
        raise UserError(f'--show {path} needs a data set of image files: omit it')
    queries = np.unique(np.linspace(0, len(val.names) - 1, SHOWN_QUERIES).round().astype(int))
    k = min(SHOWN_NEIGHBORS, len(train.names))
    similarities, numbers = nearest(train.features, val.features[queries], k)
    files, titles = [], []
    for query, row, neighbors in zip(queries, similarities, numbers, strict=True):
        label = None if val.labels is None else val.labels[query]
        files += [Path(val.names[query]), *(Path(train.names[number]) for number in neighbors)]
        titles.append((_class_name(val, query) + '\nimage', 'black'))
        for number, similarity in zip(neighbors, row, strict=True):
            is_other = label is not None and train.labels is not None and train.labels[number] != label
            titles.append((f'{_class_name(train, number)}\n{similarity:.3f}', 'red' if is_other else 'black'))
    draw_overview(Path(path), files, titles, 96)


def _class_name(found: Embeddings, number: int) -> str:
    if found.labels is None:
        return Path(found.names[number]).stem
    label = int(found.labels[number])
    return str(label) if found.classes is None else found.classes[label]


@restored_scope()
@checks_arguments()
def compute_features(
    config: str,
    checkpoint: str,
    source: Sequence[str] = (),
    split: str | None = None,
    out: str | None = None,
    knn: bool = False,
    linear_probe: bool = False,
    k: int = 20,
    temperature: float = 0.07,
    show: str | None = None,
    cfg_options: dict | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Write the features of images, and evaluate those of the config's training and validation images.

    Args:
        config: Config file.
        checkpoint: Weight file.
        source: Images, folders, patterns or lists of them, whose features are written to ``out``.
        split: Data set of the config whose features are written instead: 'train', 'val' or 'test'.
        out: File for :func:`write_embeddings`.
        knn: Compute :func:`knn_accuracy`.
        linear_probe: Compute :func:`probe_accuracy`.
        k: Number of neighbors.
        temperature: See :func:`vote`.
        show: File for :func:`draw_neighbors`.
        cfg_options: Settings that override the config.
        device: torch device; None for a GPU if available.

    Returns:
        ``written``, the files; ``images``, the number of images by what was given; ``knn`` and ``linear_probe``, the
        accuracies in 0..1 that were asked for.

    Raises:
        UserError: If a setting is invalid or nothing is asked for, or data is missing or does not fit.
    """
    evaluates = knn or linear_probe or show is not None
    if bool(source) + (split is not None) > 1:
        raise UserError(f'--split {split} and inputs exclude each other: omit one')
    if not (source or split or evaluates):
        raise UserError('nothing to do: give images or --split with --out, or --knn, --linear-probe or --show')
    if bool(source or split) != (out is not None):
        raise UserError('--out and the images belong together: give --out FILE.npy with images or with --split')
    if out is not None:
        check_format(out)
    if k < 1:
        raise UserError(f'--k {k} is out of range: use 1 or more')
    _check_temperature(temperature)
    check_outputs(out, show)
    inputs = find_inputs(source) if source else []
    cfg = load_config(config, cfg_options)
    predictor = Predictor(cfg.copy(), checkpoint, device)
    if (knn or linear_probe) and predictor.task != 'classification':
        raise UserError(NO_LABELS)
    found: dict[str, Embeddings] = {}
    report: dict[str, Any] = {'written': []}
    with Progress() as progress:
        if inputs:
            found['input'] = embed_inputs(predictor, progress.track(inputs, description='images'))
        for name in dict.fromkeys([*([split] if split else []), *(('train', 'val') if evaluates else ())]):
            found[name] = embed_split(predictor, cfg, name, checkpoint, progress.track)
    report['images'] = {name: len(embeddings.names) for name, embeddings in found.items()}
    if out is not None:
        report['written'] += write_embeddings(out, found[split or 'input'])
    if knn:
        where = str(next(predictor.model.parameters()).device)
        report['knn'] = knn_accuracy(found['train'], found['val'], k, temperature, where)
    if linear_probe:
        report['linear_probe'] = probe_accuracy(found['train'], found['val'])
    if show is not None:
        draw_neighbors(show, found['train'], found['val'])
        report['written'].append(Path(show))
    return report
