"""OpenCV functions whose names differ between versions."""

from __future__ import annotations

import cv2

SILENT, ERRORS = 0, 2


def set_log_level(level: int) -> int:
    """Set OpenCV's log level to ``SILENT``, ``ERRORS`` or an earlier return value; return the previous level."""
    # Up to 4.11 in the main module; later only in the logging module, which older versions lack.
    setter = getattr(cv2, 'setLogLevel', None) or cv2.utils.logging.setLogLevel
    return setter(level)
