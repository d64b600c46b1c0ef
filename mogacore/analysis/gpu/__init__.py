"""Check of a GPU: exactness, precisions, layouts, torch.compile, several processes, memory and speed."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec

# In this order; speed takes the time that is left.
PARTS = ('golden', 'float64', 'precisions', 'layouts', 'compiled', 'losses', 'memory', 'parallel', 'speed')


def allow_missing_opencv() -> None:
    """Let mmengine be imported without OpenCV.

    mmengine imports OpenCV for visualizations, which the check does not use. If OpenCV is missing, an empty module
    takes its place in this process. Call this before importing a module that imports mmengine.
    """
    if 'cv2' not in sys.modules and find_spec('cv2') is None:
        sys.modules['cv2'] = module_from_spec(ModuleSpec('cv2', None))
