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
        from pycocotools import mask as coco_mask

        encoded['counts'] = coco_mask.frPyObjects(encoded, *mask.shape)['counts'].decode()
    return encoded
