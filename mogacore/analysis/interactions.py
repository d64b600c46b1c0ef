"""Multi-order interactions: in how much context do the parts of an image work together for a network's decision?

The players are the cells of a grid over the image; v(S) is the network's score of the image of which only the cells of
S are left. The m-order interaction of two cells is what both together add to v, over what each adds alone, in contexts
of m other cells; the strength of an order is its mean absolute value over that of all orders.

Sources: Zhang et al., arXiv 2009.11729, and Deng et al., arXiv 2111.06236, define them; Li et al., MogaNet, arXiv
2211.03295, section 3, compares networks by them.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import statistics
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dist import barrier, get_dist_info
from torch import Tensor

from mogacore.analysis.classifiers import SPLITS, Classifier, ModelSpec, open_classifiers
from mogacore.analysis.throughput import timed
from mogacore.engine.launch import close_process_group, init_process_group
from mogacore.errors import UserError
from mogacore.files import make_folder, write_whole

RATIOS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
SCORES = ('log-odds', 'log-probability', 'logit')
SELECTIONS = ('correct', 'any', 'replacement')
# Ranks wait for the slowest at the end, which may be an image behind.
WAIT_S = 7 * 24 * 3600


def orders_of(ratios: Sequence[float], players: int) -> tuple[int, ...]:
    """Orders ``floor(ratio * (players - 2))``, rising; small grids give some twice, which are left out."""
    return tuple(sorted({math.floor(ratio * (players - 2) + 1e-9) for ratio in ratios}))


def num_contexts(players: int, order: int, count: int) -> int:
    """Contexts that are drawn: there is but one of none of the other cells, and one of all."""
    return 1 if order in (0, players - 2) else count


def count_pairs(grid: int, radius: int) -> int:
    """Unordered pairs of cells whose offsets are at most ``radius`` along each side."""
    near = sum(grid - abs(offset) for offset in range(-radius, radius + 1) if abs(offset) < grid)
    return (near * near - grid * grid) // 2


@dataclass(frozen=True)
class Settings:
    """How much is measured, on what.

    Args:
        images: Number of images.
        pairs: Pairs of cells an image.
        contexts: Contexts a pair and order.
        grid: Cells along each side; there are grid * grid players.
        radius: Largest offset of the cells of a pair, along each side.
        ratios: Orders, as parts of the largest, which is two less than the players.
        score: One of ``SCORES``.
        selection: 'correct': images that every model classifies correctly; 'any'; 'replacement': drawn with replacement
            from the first image of each class. See :func:`choose_images`.
        split: 'train' or 'test': from which data.
        seed: Of every draw.
        batch_size: Masked images a forward pass.
    """

    images: int
    pairs: int
    contexts: int
    grid: int
    radius: int = 2
    ratios: tuple[float, ...] = RATIOS
    score: str = 'log-odds'
    selection: str = 'correct'
    split: str = 'test'
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self):
        for name in ('images', 'pairs', 'contexts', 'radius', 'batch_size'):
            if getattr(self, name) < 1:
                raise UserError(f'{name} {getattr(self, name)} does not fit: give 1 or more')
        if self.grid < 2:
            raise UserError(f'grid {self.grid} does not fit: give 2 or more cells a side')
        if self.seed < 0:
            raise UserError(f'seed {self.seed} does not fit: give 0 or more')
        if not self.ratios or any(not 0 <= ratio <= 1 for ratio in self.ratios):
            raise UserError(f'ratios {self.ratios} do not fit: give numbers from 0 to 1')
        for name, allowed in (('score', SCORES), ('selection', SELECTIONS), ('split', SPLITS)):
            if getattr(self, name) not in allowed:
                raise UserError(f'{name} {getattr(self, name)!r} is unknown: choose from {", ".join(allowed)}')
        num_pairs = count_pairs(self.grid, self.radius)
        if self.pairs > num_pairs:
            raise UserError(
                f'{self.pairs} pairs do not fit: a grid of {self.grid} has {num_pairs} within radius {self.radius}'
            )

    @property
    def players(self) -> int:
        return self.grid**2

    @property
    def orders(self) -> tuple[int, ...]:
        """Sizes of the contexts, each once and rising."""
        return orders_of(self.ratios, self.players)

    def passes(self, orders: Iterable[int] | None = None) -> int:
        """Masked images of one model and image, at some orders or at all."""
        orders = self.orders if orders is None else orders
        return sum(4 * self.pairs * num_contexts(self.players, order, self.contexts) for order in orders)


PRESETS = {
    # Any small labelled images: to see that it works.
    'smoke': Settings(images=2, pairs=4, contexts=4, grid=7),
    # Small images on a CPU: smoother, still nothing to publish.
    'small': Settings(images=16, pairs=6, contexts=16, grid=8),
    # Deng et al.'s code for CIFAR-10.
    'deng': Settings(images=50, pairs=200, contexts=100, grid=16, split='train'),
    # The MogaNet group's ImageNet version of it (A2MIM), and the shorter list that it ships.
    'a2mim': Settings(images=500, pairs=50, contexts=50, grid=14, selection='replacement', split='train'),
    'a2mim-list': Settings(images=100, pairs=50, contexts=50, grid=14, selection='any', split='train'),
    # A full report on ImageNet's validation images.
    'full': Settings(images=50, pairs=50, contexts=50, grid=14),
}


def sample_pairs(grid: int, count: int, radius: int, rng: np.random.Generator) -> np.ndarray:
    """Pairs of near cells, none twice.

    The first cell is uniform on the grid, the second away from it by offsets uniform in -radius..radius, clamped to the
    grid.

    Args:
        grid: Cells a side; cell (row, column) is player ``row * grid + column``.
        count: Number of pairs.
        radius: Largest offset.
        rng: Source of randomness.

    Returns:
        (count, 2) players.
    """
    pairs: dict[tuple[int, int], None] = {}  # in the order in which they were drawn
    while len(pairs) < count:
        cell = rng.integers(grid, size=2)
        other = np.clip(cell + rng.integers(-radius, radius + 1, size=2), 0, grid - 1)
        i, j = (int(row * grid + column) for row, column in (cell, other))
        if i != j and (j, i) not in pairs:
            pairs[i, j] = None
    return np.array(list(pairs))


def sample_contexts(players: int, pair: Sequence[int], order: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Contexts of a pair: sets of ``order`` other players, uniform and independent of each other.

    Returns:
        (num_contexts(...), players) bool.

    Raises:
        ValueError: If there are fewer other players than ``order``.
    """
    if not 0 <= order <= players - 2:
        raise ValueError(f'order {order} does not fit {players} players: choose from 0 to {players - 2}')
    others = np.setdiff1d(np.arange(players), pair)
    count = num_contexts(players, order, count)
    chosen = others[rng.random((count, players - 2)).argsort(axis=1)[:, :order]]
    contexts = np.zeros((count, players), bool)
    np.put_along_axis(contexts, chosen, True, axis=1)
    return contexts


def draw_pairs(settings: Settings, image: int) -> np.ndarray:
    """The pairs of the ``image``-th image, (pairs, 2), the same for all models and orders."""
    rng = np.random.default_rng(1000 * image + settings.seed)
    return sample_pairs(settings.grid, settings.pairs, settings.radius, rng)


def draw_contexts(settings: Settings, image: int, order: int, pairs: np.ndarray) -> np.ndarray:
    """The contexts of each pair of the ``image``-th image, (pairs, contexts, players), the same for all models."""
    rng = np.random.default_rng(1000 * image + order + 1 + settings.seed)
    return np.stack([sample_contexts(settings.players, pair, order, settings.contexts, rng) for pair in pairs])


def score(logits: Tensor, label: int, kind: str = 'log-odds') -> Tensor:
    """What a network says for a class.

    Args:
        logits: (B, K).
        label: The class.
        kind: 'log-odds' log p / (1 - p), taken from the logits and finite however sure the network is;
            'log-probability' log p; or 'logit', the logit alone.

    Returns:
        (B,) float64.
    """
    logits = logits.double()
    own = logits[:, label]
    if kind == 'logit':
        return own
    if kind == 'log-probability':
        return own - logits.logsumexp(1)
    if kind != 'log-odds':
        raise ValueError(f'score {kind!r} is unknown: choose from {", ".join(SCORES)}')
    is_own = torch.arange(logits.shape[1], device=logits.device) == label
    return own - logits.masked_fill(is_own, -torch.inf).logsumexp(1)


class MaskedScores:
    """The game a network plays on an image: v(S) of sets S of cells that are kept.

    The other cells are 0 in the normalised image, the mean colour of the data set.

    Args:
        network: Gives logits (B, K) of images (B, C, H, W).
        image: Normalised image (1, C, H, W).
        label: The class that is scored.
        grid: Cells a side.
        kind: See :func:`score`.
        batch_size: Images a forward pass.
        advance: Told how many images have passed.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        image: Tensor,
        label: int,
        grid: int,
        kind: str = 'log-odds',
        batch_size: int = 64,
        advance: Callable[[int], None] = lambda count: None,
    ):
        self.network, self.image, self.label, self.grid, self.kind = network, image, label, grid, kind
        self.advance = advance
        self.batch = image.new_empty(batch_size, *image.shape[1:])

    @torch.inference_mode()
    def __call__(self, kept: np.ndarray) -> np.ndarray:
        """Scores (N,) float64 of sets (N, players) bool."""
        cells = torch.from_numpy(kept).to(self.image).unflatten(1, (1, self.grid, self.grid))
        scores = []
        for part in cells.split(len(self.batch)):
            # Nearest: each cell is one block of pixels, wholly there or not.
            masks = F.interpolate(part, size=self.image.shape[-2:], mode='nearest')
            masked = torch.mul(self.image, masks, out=self.batch[: len(part)])
            scores.append(score(self.network(masked), self.label, self.kind))
            self.advance(len(part))
        return torch.cat(scores).cpu().numpy()


def interactions(value: Callable[[np.ndarray], np.ndarray], pairs: np.ndarray, contexts: np.ndarray) -> np.ndarray:
    """Interaction of each pair, averaged over its contexts.

    Args:
        value: The game: scores (N,) of sets (N, players) bool.
        pairs: (P, 2) players.
        contexts: (P, k, players) bool, without the players of the pair.

    Returns:
        (P,) float64, signed: mean of ``v(S+i+j) - v(S+i) - v(S+j) + v(S)``.

    Source: Deng et al., arXiv 2111.06236, equation 1.
    """
    kept = np.repeat(contexts[:, :, None], 4, axis=2)  # S+i+j, S+i, S+j, S
    for k, (i, j) in enumerate(pairs):
        kept[k, :, [0, 1], i] = True
        kept[k, :, [0, 2], j] = True
    scores = value(kept.reshape(-1, kept.shape[-1])).reshape(kept.shape[:3]).astype(np.float64)
    return (scores[..., 0] - scores[..., 1] - scores[..., 2] + scores[..., 3]).mean(axis=1)


def strength(magnitudes: np.ndarray) -> np.ndarray:
    """Strength J of each order: the mean of J over the orders is 1.

    Args:
        magnitudes: Mean absolute interaction of each image and order, (..., images, orders).

    Returns:
        (..., orders).

    Source: Deng et al., arXiv 2111.06236, equation 3.
    """
    means = magnitudes.mean(axis=-2)
    return means / means.mean(axis=-1, keepdims=True)


def bootstrap_error(magnitudes: np.ndarray, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """Standard error of the strength over images, by drawing them with replacement.

    Args:
        magnitudes: (images, orders).
        draws: Number of samples.
        seed: Of the draws.

    Returns:
        (orders,); 0 for a single image, which tells nothing of others.
    """
    chosen = np.random.default_rng(seed).integers(len(magnitudes), size=(draws, len(magnitudes)))
    return strength(magnitudes[chosen]).std(axis=0)


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
    """What a run has measured so far, in a folder: a file a model and image, whole at every moment.

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
            write_whole(path, json.dumps(identity, indent=2).encode())

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
        write_whole(self._path(label, image), _npz({str(order): values for order, values in found.items()}))


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    """A compressed numpy archive, the same bytes for the same arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


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
    found = write_report(results, settings, [spec.label for spec in specs]) if rank == 0 else None
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


def write_report(results: PartialResults, settings: Settings, labels: Sequence[str]) -> dict:
    """Put the numbers of all images together and write them, with the figure.

    Returns:
        ``settings``, ``orders``, ``ratios`` (orders over the largest), and for each model ``strength``, its
        ``strength_error``, and ``magnitude``, the mean absolute interaction, by order.

    Raises:
        UserError: If an image is not measured yet.
    """
    orders = settings.orders
    found = {'settings': results.identity, 'orders': orders, 'models': {}}
    found['ratios'] = [order / (settings.players - 2) for order in orders]
    arrays = {'orders': np.array(orders), 'ratios': np.array(found['ratios'])}
    for label in labels:
        loaded = [results.load(label, number) for number in range(settings.images)]
        if missing := [number for number, image in enumerate(loaded) if len(image) < len(orders)]:
            raise UserError(f'image {missing[0]} of {label} is not measured: do all processes see {results.folder}?')
        pairs = np.array([[image[order] for order in orders] for image in loaded])  # (images, orders, pairs)
        magnitudes = np.abs(pairs).mean(axis=-1)
        numbers = {
            'strength': strength(magnitudes),
            'strength_error': bootstrap_error(magnitudes),
            'magnitude': magnitudes.mean(axis=0),
        }
        arrays |= {f'{label}/interactions': pairs, f'{label}/magnitudes': magnitudes}
        arrays |= {f'{label}/{name}': values for name, values in numbers.items()}
        found['models'][label] = results.models[label] | {name: values.tolist() for name, values in numbers.items()}
    write_whole(results.folder / 'interactions.npz', _npz(arrays))
    write_whole(results.folder / 'interactions.json', (json.dumps(found, indent=2) + '\n').encode())
    draw(found, results.folder / 'interactions.png')
    return found


def draw(found: dict, path: str | Path) -> None:
    """Draw strength over order, a line and a band of one standard error a model, and the magnitudes beside it.

    Args:
        found: As of :func:`write_report`.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout='constrained')
    left, right = figure.subplots(1, 2)
    ratios = np.array(found['ratios'])
    for label, model in found['models'].items():
        values, errors = np.array(model['strength']), np.array(model['strength_error'])
        (line,) = left.plot(ratios, values, marker='.', label=label)
        left.fill_between(ratios, values - errors, values + errors, color=line.get_color(), alpha=0.2, linewidth=0)
        right.plot(ratios, model['magnitude'], marker='.', color=line.get_color(), label=label)
    settings = found['settings']
    left.set_ylabel('Interaction Strength')
    right.set_ylabel(f'mean |I|, {settings["score"]}')
    for axis in (left, right):
        ticks = np.linspace(0, 1, 6)
        axis.set_xticks(ticks, [f'{tick:.1f}n' for tick in ticks])
        axis.set(xlabel='Order', ylim=(0, None))
        axis.grid(alpha=0.3)
    left.legend()
    figure.suptitle(
        f'{settings["images"]} images, {settings["pairs"]} pairs an image, {settings["contexts"]} contexts a pair and '
        f'order, {settings["grid"]} x {settings["grid"]} cells',
        fontsize=9,
    )
    figure.savefig(path, dpi=110)


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
