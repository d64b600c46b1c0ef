"""What an exported file says of itself: one JSON text, read by :mod:`mogacore.runtime`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from mogacore.version import __version__

FORMAT = 1
OPSET = 20
KEY = 'mogacore'
PT2_FILE = f'{KEY}.json'


def dataset_facts(meta: Mapping[str, Any]) -> dict:
    """Names and colors of classes and keypoints, from the metainfo of a data set.

    Returns:
        ``classes``, ``palette`` and ``keypoints``; None where the data set has none.
    """
    keypoints = None
    if names := meta.get('keypoint_id2name'):
        keypoints = {
            'names': [names[number] for number in sorted(names)],
            'colors': meta.get('keypoint_colors'),
            'skeleton': meta.get('skeleton_links'),
            'skeleton_colors': meta.get('skeleton_link_colors'),
            'flip_indices': meta.get('flip_indices'),
        }
    return {
        'classes': list(meta.get('classes') or ()) or None,
        'palette': list(meta.get('palette') or ()) or None,
        'keypoints': keypoints,
    }


def versions(*packages: str) -> dict[str, str]:
    """Versions of mogacore and of installed packages."""
    found = {'mogacore': __version__}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def to_text(metadata: dict) -> str:
    """JSON on one line, in ASCII; arrays and tuples become lists."""
    return json.dumps(metadata, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f'{type(value).__name__} in the metadata of a file')
