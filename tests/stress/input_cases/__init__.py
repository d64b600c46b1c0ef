"""The cases of ``tests/stress/inputs.py``, of which ``tests/test_odd_inputs.py`` runs some."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[2]
sys.path += [str(TESTS / name) for name in ('engine', 'init_data') if str(TESTS / name) not in sys.path]

from . import annotations, arrays, images, keypoints, maps, own_folders, shapes, videos  # noqa: E402
from .core import CASES  # noqa: E402

__all__ = ['CASES', 'annotations', 'arrays', 'images', 'keypoints', 'maps', 'own_folders', 'shapes', 'videos']
