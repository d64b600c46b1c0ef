"""Scores of masked images, the interactions of pairs, and the strength of orders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mogacore.errors import UserError

from .settings import SCORES


def score(logits: Tensor, label: int, kind: str = 'log-odds') -> Tensor:
    """Score of a class.

    Args:
        logits: (B, K).
        label: The class.
        kind: 'log-odds', log(p / (1 - p)), computed from the logits and therefore finite for any confidence;
            'log-probability', log p; or 'logit'.

    Returns:
        (B,) float64.

    Raises:
        ValueError: If the kind is unknown.
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
    """The value function v(S) of a network and an image: the score with only the cells of S visible.

    Hidden cells are 0 in the normalized image, which is the mean color of the data set.

    Args:
        network: Returns logits (B, K) of images (B, C, H, W).
        image: Normalized image (1, C, H, W).
        label: The class to score.
        grid: Cells per side.
        kind: See :func:`score`.
        batch_size: Images per forward pass.
        advance: Called with the number of images after each forward pass.

    Raises:
        UserError: If there are more cells than pixels along a side.
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
        height, width = image.shape[-2:]
        if grid > min(height, width):
            raise UserError(
                f'grid {grid} is finer than the {height} x {width} pixels of the image, so some cells have no pixel: '
                f'give at most {min(height, width)} cells per side'
            )
        self.network, self.image, self.label, self.grid, self.kind = network, image, label, grid, kind
        self.advance = advance
        self.batch = image.new_empty(batch_size, *image.shape[1:])

    @torch.inference_mode()
    def __call__(self, kept: np.ndarray) -> np.ndarray:
        """Scores (N,) float64 of sets of visible cells (N, players) bool."""
        cells = torch.from_numpy(kept).to(self.image).unflatten(1, (1, self.grid, self.grid))
        scores = []
        for part in cells.split(len(self.batch)):
            # Nearest neighbor: each cell is a block of pixels that is entirely visible or hidden.
            masks = F.interpolate(part, size=self.image.shape[-2:], mode='nearest')
            masked = torch.mul(self.image, masks, out=self.batch[: len(part)])
            scores.append(score(self.network(masked), self.label, self.kind))
            self.advance(len(part))
        return torch.cat(scores).cpu().numpy()


def interactions(value: Callable[[np.ndarray], np.ndarray], pairs: np.ndarray, contexts: np.ndarray) -> np.ndarray:
    """Interaction of each pair, averaged over its contexts.

    Args:
        value: Value function: scores (N,) of sets (N, players) bool.
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
    """Strength J of each order, normalized to mean 1 over the orders.

    Args:
        magnitudes: Mean absolute interaction of each image and order, (..., images, orders).

    Returns:
        (..., orders).

    Source: Deng et al., arXiv 2111.06236, equation 3.
    """
    means = magnitudes.mean(axis=-2)
    return means / means.mean(axis=-1, keepdims=True)


def bootstrap_error(magnitudes: np.ndarray, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """Bootstrap standard error of the strength over images.

    Args:
        magnitudes: (images, orders).
        draws: Number of bootstrap samples.
        seed: Seed of the samples.

    Returns:
        (orders,); 0 for a single image, where the error is unknown.
    """
    chosen = np.random.default_rng(seed).integers(len(magnitudes), size=(draws, len(magnitudes)))
    return strength(magnitudes[chosen]).std(axis=0)
