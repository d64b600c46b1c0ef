"""Measures models on the same draws, image by image; a stopped run resumes and gives the same numbers."""

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

# Ranks wait for the slowest at the end, which may be an image behind.
WAIT_S = 7 * 24 * 3600


def choose_images(classifiers: Sequence[Classifier], settings: Settings) -> list[int]:
    """Indices of the images to measure, the same in every run.

    Classes come in a drawn order, first with their first image each, then with their second, and so on.

    Raises:
        UserError: If there are not enough.
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
    wanted = ', all models right' if settings.selection == 'correct' else ''
    raise UserError(f'{settings.images} images do not fit: the data has {len(chosen)}{wanted}')


@torch.inference_mode()
def _is_correct(classifier: Classifier, index: int) -> bool:
    image, label = classifier.images[index]
    return classifier(image).argmax(1).item() == label


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """fp32 without TF32, by the same algorithms in every run: second differences of less precise logits are noise."""
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        matmul.allow_tf32 = before


class PartialResults:
    """What a run has measured so far, in a folder: one file per model and image, written atomically.

    Args:
        folder: Folder of the run.
        identity: What its numbers depend on, apart from the models.

    Raises:
        UserError: If the folder holds a run of another identity.
    """

    def __init__(self, folder: str | Path, identity: dict):
        self.folder, self.identity = make_folder(folder), identity
        self.models: dict[str, dict] = {}
        self._claim(make_folder(self.folder / 'partial') / 'settings.json', identity)

    @staticmethod
    def _claim(path: Path, identity: dict) -> None:
        identity = json.loads(json.dumps(identity))  # tuples as JSON has them
        if path.is_file():
            found = json.loads(path.read_text())
            for key in sorted(found.keys() | identity.keys()):
                if found.get(key) != identity.get(key):
                    raise UserError(
                        f'{path} belongs to a run with another {key}: choose another --out-dir, or repeat that run'
                    )
        else:
            write_json(path, identity)

    def add_model(self, classifier: Classifier) -> None:
        """Make room for a model, or find it again.

        Raises:
            UserError: If another model of this label was here.
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
        """Interactions (pairs,) by order."""
        path = self._path(label, image)
        if not path.is_file():
            return {}
        try:
            with np.load(path) as file:
                return {int(order): file[order] for order in file.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f'{path} is broken: remove it, and the run does its image again') from error

    def save(self, label: str, image: int, found: dict[int, np.ndarray]) -> None:
        write_npz(self._path(label, image), {str(order): values for order, values in found.items()})

    def collect(self, label: str, settings: Settings) -> np.ndarray:
        """All interactions of a model, (images, orders, pairs).

        Raises:
            UserError: If an image is not measured yet.
        """
        loaded = [self.load(label, number) for number in range(settings.images)]
        if missing := [number for number, image in enumerate(loaded) if len(image) < len(settings.orders)]:
            raise UserError(f'image {missing[0]} of {label} is not measured: do all processes see {self.folder}?')
        return np.array([[image[order] for order in settings.orders] for image in loaded])

    def report(self, settings: Settings, labels: Sequence[str]) -> dict:
        """Write the report of the models of these labels, see :func:`write_report`.

        Raises:
            UserError: If an image is not measured yet.
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
    """Measure models on the same draws; write ``interactions.json``, ``.npz`` and ``.png``.

    Models and images are divided among the processes of the launcher. A folder that holds part of the same run is gone
    on with, and the numbers come out as without a stop.

    Args:
        specs: The models.
        settings: How much is measured, on what.
        out_dir: Folder of the run, which all processes see.
        data: See :func:`mogacore.analysis.classifiers.open_classifiers`.
        indices: Images to take instead of those that ``settings.selection`` gives.
        device: torch device; None takes a GPU if there is one.
        launcher: Who started the processes, see :func:`mogacore.engine.launch.init_process_group`.

    Returns:
        The report, as the JSON file has it; None on all ranks but the first.

    Raises:
        UserError: If something the user gave is not there or does not fit.
    """
    init_process_group(launcher, timeout_s=WAIT_S)
    rank, world_size = get_dist_info()
    with exact_arithmetic():
        classifiers = open_classifiers(specs, data, settings.split, device)
        chosen = list(indices or choose_images(classifiers, settings))
        images = classifiers[0].images
        if outside := [index for index in chosen if not 0 <= index < len(images)]:
            raise UserError(f'image {outside[0]} does not fit: there are {len(images)}, from 0')
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
    """Measure what is missing of some models and images.

    Args:
        tasks: Models, and positions in ``chosen``.
        chosen: Indices of the images.
        settings: How much is measured.
        results: Where the numbers go, order by order.
        is_quiet: Show no progress.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = [TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), 'passes', TimeElapsedColumn()]
    columns += ['left', TimeRemainingColumn()]
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
                    results.save(label, number, found)


def measure_masking(classifier: Classifier, settings: Settings, rounds: int = 11, batches: int = 4) -> dict:
    """Throughput of masked forward passes, with all that is around them, beside that of plain ones.

    Both in turn, round by round: plain batches of the same size and layout, and the interactions of an order about in
    the middle, draws and scores included.

    Args:
        classifier: The network.
        settings: Grid, score and batch size.
        rounds: Timed rounds.
        batches: Batches a round.

    Returns:
        ``plain`` and ``masked`` in images per second (medians), ``ratio`` of the second to the first, the median over
        the rounds, its ``quartiles``, and ``cpu_ratio``, the same by the processor time of an image, which on a CPU
        that others use too is the steadier.
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
                if number:  # the first round warms up
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
