"""What an exported file says of itself: one JSON text, read by :mod:`mogacore.runtime`."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from mogacore.runtime.backends import FORMAT
from mogacore.runtime.backends import METADATA_KEY as KEY
from mogacore.version import __version__

__all__ = ['FORMAT', 'KEY', 'OPSET', 'PT2_FILE', 'to_text', 'versions']

OPSET = 20
PT2_FILE = f'{KEY}.json'


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
