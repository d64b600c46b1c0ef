"""Settings of a measurement: orders, contexts, pairs and images, and presets."""

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
    """Orders ``floor(ratio * (players - 2))``, ascending and without duplicates, which small grids produce."""
    return tuple(sorted({math.floor(ratio * (players - 2) + 1e-9) for ratio in ratios}))


def num_contexts(players: int, order: int, count: int) -> int:
    """Number of contexts to draw: 1 for order 0 and for the largest order, where there is only one context."""
    return 1 if order in (0, players - 2) else count


def count_pairs(grid: int, radius: int) -> int:
    """Number of unordered pairs of cells with offsets of at most ``radius`` along both axes."""
    near = sum(grid - abs(offset) for offset in range(-radius, radius + 1) if abs(offset) < grid)
    return (near * near - grid * grid) // 2


@dataclass(frozen=True)
class Settings:
    """Settings of a measurement.

    Args:
        images: Number of images.
        pairs: Pairs of cells per image.
        contexts: Contexts per pair and order.
        grid: Cells per side; there are grid * grid players.
        radius: Largest offset between the cells of a pair, along each axis.
        ratios: Orders, as fractions of the largest order, which is the number of players minus 2.
        score: One of ``SCORES``.
        selection: 'correct', images that every model classifies correctly; 'any'; 'replacement', drawn with replacement
            from the first image of each class. See :func:`choose_images`.
        split: 'train' or 'test', the data to draw images from.
        seed: Seed of all draws.
        batch_size: Masked images per forward pass.

    Raises:
        UserError: If a setting is invalid.
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
                raise UserError(f'{name} {getattr(self, name)} is invalid: give at least 1')
        if self.grid < 2:
            raise UserError(f'grid {self.grid} is invalid: give at least 2 cells per side')
        if self.seed < 0:
            raise UserError(f'seed {self.seed} is invalid: give at least 0')
        if not self.ratios or any(not 0 <= ratio <= 1 for ratio in self.ratios):
            raise UserError(f'ratios {self.ratios} are invalid: give numbers from 0 to 1')
        for name, allowed in (('score', SCORES), ('selection', SELECTIONS), ('split', SPLITS)):
            if getattr(self, name) not in allowed:
                raise UserError(f'{name} {getattr(self, name)!r} is unknown: choose from {", ".join(allowed)}')
        num_pairs = count_pairs(self.grid, self.radius)
        if self.pairs > num_pairs:
            raise UserError(
                f'{self.pairs} pairs are too many: a grid of {self.grid} has {num_pairs} within radius {self.radius}'
            )

    @property
    def players(self) -> int:
        """Number of cells."""
        return self.grid**2

    @property
    def orders(self) -> tuple[int, ...]:
        """Sizes of the contexts, ascending and distinct."""
        return orders_of(self.ratios, self.players)

    def passes(self, orders: Iterable[int] | None = None) -> int:
        """Number of masked images per model and image; ``orders`` None is all orders."""
        orders = self.orders if orders is None else orders
        return sum(4 * self.pairs * num_contexts(self.players, order, self.contexts) for order in orders)


PRESETS = {
    # A functional check on any small labeled images.
    'smoke': Settings(images=2, pairs=4, contexts=4, grid=7),
    # Small images on a CPU: less noise, still not for publication.
    'small': Settings(images=16, pairs=6, contexts=16, grid=8),
    # As in Deng et al.'s code for CIFAR-10.
    'deng': Settings(images=50, pairs=200, contexts=100, grid=16, split='train'),
    # As in its ImageNet version by the MogaNet authors (A2MIM), and for the shorter image list of that version.
    'a2mim': Settings(images=500, pairs=50, contexts=50, grid=14, selection='replacement', split='train'),
    'a2mim-list': Settings(images=100, pairs=50, contexts=50, grid=14, selection='any', split='train'),
    # A full report on ImageNet's validation images.
    'full': Settings(images=50, pairs=50, contexts=50, grid=14),
}
