"""Run-length encoding of masks in COCO's format."""

from __future__ import annotations

import numpy as np


def encode_rle(mask: np.ndarray, compressed: bool = False) -> dict:
    """Encode a mask as COCO RLE: column-major, the first run counts zeros.

    Args:
        mask: (H, W) bool.
        compressed: Return ``counts`` as COCO's compressed string, which result files use, instead of a list of
            integers. Annotations may use either.

    Returns:
        dict with ``counts`` and ``size``, [H, W].
    """
    flat = mask.ravel(order='F')
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    counts = [0, *runs] if flat[0] else runs
    return {'counts': _compress(counts) if compressed else counts, 'size': list(mask.shape)}


def _compress(runs: list[int]) -> str:
    """COCO's compressed string of run lengths.

    From the fourth, a run is stored as its difference to the one before last. Numbers are split into groups of 5 bits,
    one character each, least significant first. The sixth bit of a character is set if more follow; the highest bit of
    the last group is the sign.
    """
    text = []
    for i, run in enumerate(runs):
        value, has_more = run - runs[i - 2] if i > 2 else run, True
        while has_more:
            bits, value = value & 31, value >> 5
            has_more = value != (-1 if bits & 16 else 0)
            text.append(chr(48 + bits + 32 * has_more))
    return ''.join(text)
