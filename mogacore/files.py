"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

PARTIAL_SUFFIX = '.partial'


def write_whole(path: str | Path, data: bytes) -> None:
    """Write a file of which a reader sees the old content or the new one and never a part.

    The content goes to a file beside it, to the disk, and then takes the name. A write that fails, on a full disk say,
    leaves the old file and no partial one. Several processes may write the same file, the last one stays.

    Args:
        path: File in a folder that is there.
        data: All of its content.

    Raises:
        OSError: If it cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f'{path.name}.{socket.gethostname()}-{os.getpid()}{PARTIAL_SUFFIX}')
    try:
        with partial.open('wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Bring a new name to the disk; some network file systems refuse, and have then done so on their own."""
    descriptor = os.open(folder, os.O_RDONLY)
    with contextlib.suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)


def set_opencv_log_level(level: int) -> int:
    """Set what OpenCV prints on its own: 0 nothing, 2 errors, 3 also warnings.

    Returns:
        The level before.
    """
    import cv2

    # OpenCV 4.14 has the function in cv2.utils.logging alone, 4.11 has it in cv2 alone.
    return cv2.setLogLevel(level) if hasattr(cv2, 'setLogLevel') else cv2.utils.logging.setLogLevel(level)
