"""Random pairs of cells and contexts, the same for all models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .settings import Settings, num_contexts


def sample_pairs(grid: int, count: int, radius: int, rng: np.random.Generator) -> np.ndarray:
    """Draw distinct pairs of nearby cells.

    The first cell is uniform on the grid. The offsets of the second are uniform in [-radius, radius], clamped to the
    grid.

    Args:
        grid: Cells per side; cell (row, column) is player ``row * grid + column``.
        count: Number of pairs.
        radius: Largest offset.
        rng: Random generator.

    Returns:
        (count, 2) players.
    """
    pairs: dict[tuple[int, int], None] = {}  # in the order of the draws
    while len(pairs) < count:
        cell = rng.integers(grid, size=2)
        other = np.clip(cell + rng.integers(-radius, radius + 1, size=2), 0, grid - 1)
        i, j = (int(row * grid + column) for row, column in (cell, other))
        if i != j and (j, i) not in pairs:
            pairs[i, j] = None
    return np.array(list(pairs))


def sample_contexts(players: int, pair: Sequence[int], order: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw contexts of a pair: independent, uniform sets of ``order`` other players.

    Args:
        players: Number of players.
        pair: The two players of the pair.
        order: Players per context.
        count: Number of contexts, if ``order`` leaves a choice, see :func:`num_contexts`.
        rng: Random generator.

    Returns:
        (num_contexts(...), players) bool.

    Raises:
        ValueError: If ``order`` is negative or larger than the number of other players.
    """
    if not 0 <= order <= players - 2:
        raise ValueError(f'order {order} is invalid for {players} players: choose from 0 to {players - 2}')
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
