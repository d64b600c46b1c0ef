"""OpenCV under the names of old and new versions."""

from __future__ import annotations

import cv2

SILENT, ERRORS = 0, 2


def set_log_level(level: int) -> int:
    """Set what OpenCV prints, and return the level before: ``SILENT``, ``ERRORS``, or what this returned."""
    # Until 4.11 in the main module; later in that of logging, which older versions lack.
    setter = getattr(cv2, 'setLogLevel', None) or cv2.utils.logging.setLogLevel
    return setter(level)
