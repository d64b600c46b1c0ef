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
    encoded: dict[str, list[int] | str] = {'counts': [0, *runs] if flat[0] else runs, 'size': list(mask.shape)}
    if compressed:
        from pycocotools import mask as coco_mask

        encoded['counts'] = coco_mask.frPyObjects(encoded, *mask.shape)['counts'].decode()
    return encoded
