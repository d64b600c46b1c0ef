"""Check of a GPU: exactness, precisions, layouts, torch.compile, several processes, memory and speed."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec

# In this order; speed takes the time that is left.
PARTS = ('golden', 'float64', 'precisions', 'layouts', 'compiled', 'losses', 'memory', 'parallel', 'speed')


def allow_missing_opencv() -> None:
    """Let mmengine be imported without OpenCV.

    mmengine imports OpenCV for visualizations, which the check does not use. If OpenCV is missing, or a system library
    that it needs, an empty module takes its place in this process. Call this before importing mmengine.
    """
    try:
        import cv2  # noqa: F401
    except ImportError:
        sys.modules['cv2'] = module_from_spec(ModuleSpec('cv2', None))
