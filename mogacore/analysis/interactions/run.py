"""Measure models on the same random draws, image by image; a resumed run gives the same numbers."""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import barrier, get_dist_info

from mogacore.analysis.classifiers import Classifier, ModelSpec, open_classifiers
from mogacore.analysis.throughput import timed
from mogacore.engine.launch import close_process_group, init_process_group
from mogacore.errors import UserError
from mogacore.files import make_folder, write_json, write_npz

from .report import write_report
from .sampling import draw_contexts, draw_pairs
from .scores import MaskedScores, interactions
from .settings import Settings

# At the end all ranks wait for the slowest, which may need the time of one image more.
WAIT_S = 7 * 24 * 3600


def choose_images(classifiers: Sequence[Classifier], settings: Settings) -> list[int]:
    """Indices of the images to measure, the same in every run.

    The order of the classes is random; each round takes the next image of every class.

    Raises:
        UserError: If there are not enough images.
    """
    images = classifiers[0].images
    rng = np.random.default_rng(settings.seed)
    by_class = [np.flatnonzero(images.labels == label) for label in rng.permutation(np.unique(images.labels))]
    if settings.selection == 'replacement':
        return [int(index) for index in rng.choice([indices[0] for indices in by_class], settings.images)]
    rounds = range(max(map(len, by_class)))
    candidates = (int(indices[k]) for k in rounds for indices in by_class if k < len(indices))
    chosen: list[int] = []
    for index in candidates:
        if settings.selection == 'any' or all(_is_correct(classifier, index) for classifier in classifiers):
            chosen.append(index)
        if len(chosen) == settings.images:
            return chosen
    condition = ' that all models classify correctly' if settings.selection == 'correct' else ''
    raise UserError(f'{settings.images} images are too many: the data has {len(chosen)}{condition}')


@torch.inference_mode()
def _is_correct(classifier: Classifier, index: int) -> bool:
    image, label = classifier.images[index]
    return classifier(image).argmax(1).item() == label


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Compute in fp32 without TF32 and with deterministic algorithms.

    Interactions are second differences of logits; at lower precision, rounding errors dominate them.
    """
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        matmul.allow_tf32 = before


class PartialResults:
    """The results of an unfinished run: one file per model and image, written atomically.

    Args:
        folder: Folder of the run.
        identity: Everything the numbers depend on, except the models.

    Raises:
        UserError: If the folder holds a run with another identity.
    """

    def __init__(self, folder: str | Path, identity: dict):
        self.folder, self.identity = make_folder(folder), identity
        self.models: dict[str, dict] = {}
        self._claim(make_folder(self.folder / 'partial') / 'settings.json', identity)

    @staticmethod
    def _claim(path: Path, identity: dict) -> None:
        identity = json.loads(json.dumps(identity))  # tuples become lists, as in the file
        if path.is_file():
            found = json.loads(path.read_text())
            for key in sorted(found.keys() | identity.keys()):
                if found.get(key) != identity.get(key):
                    raise UserError(
                        f'{path} belongs to a run with another {key}: choose another --out-dir, or that {key}'
                    )
        else:
            write_json(path, identity)

    def add_model(self, classifier: Classifier) -> None:
        """Register a model, new or from the run that is resumed.

        Raises:
            UserError: If the folder holds another model with this label.
        """
        spec = classifier.spec
        identity = {'label': spec.label, 'name': Path(spec.name).name, 'weights': classifier.weights_digest()}
        self._claim(make_folder(self._model(spec.label)) / 'model.json', identity)
        self.models[spec.label] = identity

    def _model(self, label: str) -> Path:
        return self.folder / 'partial' / re.sub(r'[^\w.+-]', '_', label)

    def _path(self, label: str, image: int) -> Path:
        return self._model(label) / f'{image:05}.npz'

    def load(self, label: str, image: int) -> dict[int, np.ndarray]:
        """Interactions (pairs,) by order; empty if none are stored.

        Raises:
            UserError: If the file is broken.
        """
        path = self._path(label, image)
        if not path.is_file():
            return {}
        try:
            with np.load(path) as file:
                return {int(order): file[order] for order in file.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f'{path} is broken: remove it, and the run measures its image again') from error

    def save(self, label: str, image: int, found: dict[int, np.ndarray]) -> None:
        """Store the interactions (pairs,) by order of an image."""
        write_npz(self._path(label, image), {str(order): values for order, values in found.items()})

    def collect(self, label: str, settings: Settings) -> np.ndarray:
        """All interactions of a model, (images, orders, pairs).

        Raises:
            UserError: If an image has not been measured.
        """
        loaded = [self.load(label, number) for number in range(settings.images)]
        if missing := [number for number, image in enumerate(loaded) if len(image) < len(settings.orders)]:
            raise UserError(
                f'image {missing[0]} of {label} is missing in {self.folder}: use a folder that all processes share'
            )
        return np.array([[image[order] for order in settings.orders] for image in loaded])

    def report(self, settings: Settings, labels: Sequence[str]) -> dict:
        """Write the report of the models with these labels, see :func:`write_report`.

        Raises:
            UserError: If an image has not been measured.
        """
        found = {label: self.collect(label, settings) for label in labels}
        models = {label: self.models[label] for label in labels}
        return write_report(self.folder, settings, found, models, self.identity)


def run(
    specs: list[ModelSpec],
    settings: Settings,
    out_dir: str | Path,
    data: str | None = None,
    indices: Sequence[int] | None = None,
    device: str | None = None,
    launcher: str = 'none',
) -> dict | None:
    """Measure models on the same random draws; write ``interactions.json``, ``.npz`` and ``.png``.

    Models and images are distributed over the processes of the launcher. If the folder holds part of the same run, the
    run resumes; the numbers are those of an uninterrupted run.

    Args:
        specs: The models.
        settings: Settings of the measurement.
        out_dir: Folder of the run, shared by all processes.
        data: See :func:`mogacore.analysis.classifiers.open_classifiers`.
        indices: Indices of the images to measure, instead of ``settings.selection``.
        device: torch device; None is a GPU if available.
        launcher: See :func:`mogacore.engine.launch.init_process_group`.

    Returns:
        The content of ``interactions.json``; None on all ranks but the first.

    Raises:
        UserError: If an argument is invalid, or a file is missing or invalid.
    """
    init_process_group(launcher, timeout_s=WAIT_S)
    rank, world_size = get_dist_info()
    with exact_arithmetic():
        classifiers = open_classifiers(specs, data, settings.split, device)
        chosen = list(indices or choose_images(classifiers, settings))
        images = classifiers[0].images
        if outside := [index for index in chosen if not 0 <= index < len(images)]:
            raise UserError(f'image {outside[0]} is out of range: choose from 0 to {len(images) - 1}')
        settings = dataclasses.replace(settings, images=len(chosen))
        files = [images.name(index) for index in chosen]
        results = PartialResults(out_dir, {**dataclasses.asdict(settings), 'indices': chosen, 'files': files})
        for classifier in classifiers:
            results.add_model(classifier)
        tasks = [(classifier, number) for number in range(len(chosen)) for classifier in classifiers]
        measure(tasks[rank::world_size], chosen, settings, results, is_quiet=rank > 0)
    barrier()
    found = results.report(settings, [spec.label for spec in specs]) if rank == 0 else None
    close_process_group()
    return found


def measure(
    tasks: list[tuple[Classifier, int]],
    chosen: Sequence[int],
    settings: Settings,
    results: PartialResults,
    is_quiet: bool = False,
) -> None:
    """Measure the orders that are missing for some models and images.

    Args:
        tasks: Pairs of a model and a position in ``chosen``.
        chosen: Indices of the images.
        settings: Settings of the measurement.
        results: Storage of the results, updated after every order.
        is_quiet: Hide the progress bar.

    Raises:
        UserError: If the grid is finer than the pixels of an image, or an interaction is not finite.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns: list[str | ProgressColumn] = [
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        'passes',
    ]
    columns += [TimeElapsedColumn(), 'left', TimeRemainingColumn()]
    with Progress(*columns, disable=is_quiet) as progress:
        bar = progress.add_task('', total=len(tasks) * settings.passes())
        for classifier, number in tasks:
            label = classifier.spec.label
            progress.update(bar, description=f'{label}, image {number + 1} of {len(chosen)}')
            found = results.load(label, number)
            progress.advance(bar, settings.passes(found))
            if len(found) == len(settings.orders):
                continue
            image, target = classifier.images[chosen[number]]
            value = MaskedScores(
                classifier,
                image,
                target,
                settings.grid,
                settings.score,
                settings.batch_size,
                advance=lambda count: progress.advance(bar, count),
            )
            pairs = draw_pairs(settings, number)
            for order in settings.orders:
                if order not in found:
                    found[order] = interactions(value, pairs, draw_contexts(settings, number, order, pairs))
                    if not np.isfinite(found[order]).all():
                        name = classifier.images.name(chosen[number])
                        raise UserError(
                            f'interactions of order {order} of {label} and image {name} are not finite: check the '
                            'weights and the image'
                        )
                    results.save(label, number, found)


def measure_masking(classifier: Classifier, settings: Settings, rounds: int = 11, batches: int = 4) -> dict:
    """Compare the throughput of masked forward passes, with their overhead, to that of plain forward passes.

    The two are timed in turn, round by round: plain batches of the same size and layout, and the interactions of a
    middle order, including draws and scores.

    Args:
        classifier: The network.
        settings: Grid, score and batch size.
        rounds: Number of timed rounds.
        batches: Batches per round.

    Returns:
        ``plain`` and ``masked``, images per second (medians); ``ratio``, masked over plain (median over the rounds);
        ``quartiles`` of the ratio; ``cpu_ratio``, the same from the processor time per image, which varies less on a
        shared CPU.
    """
    image, label = classifier.images[0]
    size = settings.batch_size
    plain_batch = image.repeat(size, 1, 1, 1)
    settings = dataclasses.replace(settings, pairs=1, contexts=batches * size // 4)
    pairs, order = draw_pairs(settings, 0), settings.orders[len(settings.orders) // 2]
    value = MaskedScores(classifier, image, label, settings.grid, settings.score, size)

    @torch.inference_mode()
    def plain() -> None:
        for _ in range(batches):
            classifier(plain_batch)

    def masked() -> None:
        interactions(value, pairs, draw_contexts(settings, 0, order, pairs))

    times: dict[str, list[float]] = {'plain': [], 'masked': []}
    cpu_times: dict[str, list[float]] = {'plain': [], 'masked': []}
    with exact_arithmetic():
        for number in range(rounds + 1):
            for name, work in (('plain', plain), ('masked', masked)):
                start = time.process_time()
                seconds = timed(work, image.device)
                if number:  # the first round is the warm-up
                    times[name].append(seconds)
                    cpu_times[name].append(time.process_time() - start)
    images = {'plain': batches * size, 'masked': settings.passes([order])}
    speeds = {name: [images[name] / seconds for seconds in times[name]] for name in times}
    ratios = [m / p for p, m in zip(speeds['plain'], speeds['masked'], strict=True)]
    quartiles = statistics.quantiles(ratios, n=4) if rounds > 1 else ratios * 3
    costs = {name: statistics.median(values) / images[name] for name, values in cpu_times.items()}
    return {
        **{name: statistics.median(values) for name, values in speeds.items()},
        'ratio': statistics.median(ratios),
        'quartiles': [quartiles[0], quartiles[2]],
        'cpu_ratio': costs['plain'] / costs['masked'],
    }
