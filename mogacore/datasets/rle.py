"""Masks as COCO's run lengths."""

from __future__ import annotations

import numpy as np


def encode_rle(mask: np.ndarray, compressed: bool = False) -> dict:
    """A mask as COCO's run lengths: column by column, the first run counts zeros.

    Args:
        mask: (H, W) bool.
        compressed: Return the counts as COCO's text instead of a list of numbers, as results have them; annotations
            have either.

    Returns:
        ``counts`` and ``size``, the latter (H, W).
    """
    flat = mask.ravel(order='F')
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    encoded = {'counts': [0, *runs] if flat[0] else runs, 'size': list(mask.shape)}
    if compressed:
        encoded['counts'] = _compress(encoded['counts'])
    return encoded


def _compress(runs: list[int]) -> str:
    """Run lengths as COCO's text: from the fourth on each less the one before last; 5 bits a character, low ones first.

    The bit above the five tells that more characters follow; the last one's highest bit is the sign.
    """
    text = []
    for i, run in enumerate(runs):
        value, follows = run - runs[i - 2] if i > 2 else run, True
        while follows:
            bits, value = value & 31, value >> 5
            follows = value != (-1 if bits & 16 else 0)
            text.append(chr(48 + bits + 32 * follows))
    return ''.join(text)
