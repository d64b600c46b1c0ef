"""How much is measured, on what: orders, contexts, pairs, and presets of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mogacore.analysis.classifiers import SPLITS
from mogacore.errors import UserError

RATIOS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
SCORES = ('log-odds', 'log-probability', 'logit')
SELECTIONS = ('correct', 'any', 'replacement')


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
