"""Every image, JSON and text file that mogacore writes, written atomically.

A reader sees the old content or the new one, never a part of it. The functions for one format make missing folders.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mogacore.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTIAL_SUFFIX = '.partial'


def write_whole(path: str | Path, data: bytes, sync: bool = True) -> None:
    """Write a file atomically.

    The content goes to a temporary file beside it, which then takes the name. A write that fails, on a full disk say,
    leaves the old file and no temporary one. Several processes may write the same file; the last one wins.

    Args:
        path: File in an existing folder.
        data: All of its content.
        sync: Wait until the content is on the disk, so that a power failure cannot leave an empty file. False suits
            many files that can be made again.

    Raises:
        OSError: If it cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f'{path.name}.{socket.gethostname()}-{os.getpid()}{PARTIAL_SUFFIX}')
    try:
        with partial.open('wb') as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if sync:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Bring a new name to the disk; some network file systems refuse, and have already done it on their own."""
    descriptor = os.open(folder, os.O_RDONLY)
    with contextlib.suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)


def make_folder(path: str | Path) -> Path:
    """The folder, made if it does not exist.

    Raises:
        UserError: If it cannot be made.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'{path} cannot be made a folder ({error.strerror}): choose another') from None
    return path


def write_text(path: str | Path, text: str, sync: bool = True) -> None:
    """Write a text file in UTF-8; ``sync`` as of :func:`write_whole`."""
    _write(path, text.encode(), sync)


def write_json(
    path: str | Path,
    content: Any,
    indent: int | None = 2,
    default: Callable[[Any], Any] | None = None,
    sync: bool = True,
) -> None:
    """Write a JSON file.

    Args:
        path: File to write.
        content: What it holds.
        indent: Spaces per level; None writes one line without spaces.
        default: Converts what JSON has no form for, see :func:`json.dumps`.
        sync: As of :func:`write_whole`.
    """
    separators = (',', ':') if indent is None else None
    write_text(path, json.dumps(content, indent=indent, separators=separators, default=default) + '\n', sync)


def write_npz(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a compressed numpy archive, the same bytes for the same arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    _write(path, buffer.getvalue())


def write_png(path: str | Path, image: np.ndarray, compression: int | None = None) -> None:
    """Write a grey (H, W) or RGB (H, W, 3) image of uint8 or uint16.

    Args:
        path: File to write.
        image: The image.
        compression: Level of zlib, 0 to 9; None is OpenCV's default.
    """
    import cv2  # here, since reading weights needs no OpenCV

    flags = [] if compression is None else [cv2.IMWRITE_PNG_COMPRESSION, compression]
    _write_image(path, image, '.png', flags)


def write_jpeg(path: str | Path, image: np.ndarray, quality: int) -> None:
    """Write a grey (H, W) or RGB (H, W, 3) uint8 image; ``quality`` is 0 to 100."""
    import cv2

    _write_image(path, image, '.jpg', [cv2.IMWRITE_JPEG_QUALITY, quality])


def _write_image(path: str | Path, image: np.ndarray, suffix: str, flags: list[int]) -> None:
    import cv2

    if image.ndim == 3:
        image = image[..., ::-1]  # OpenCV's order
    _write(path, cv2.imencode(suffix, image, flags)[1].tobytes(), sync=False)


def write_gif(path: str | Path, frames: list[np.ndarray], frame_ms: int) -> None:
    """Write RGB frames (H, W, 3) uint8 as an endless animation, each shown for ``frame_ms`` milliseconds."""
    from PIL import Image

    first, *others = map(Image.fromarray, frames)
    buffer = io.BytesIO()
    first.save(buffer, 'GIF', save_all=True, append_images=others, duration=frame_ms, loop=0)
    _write(path, buffer.getvalue(), sync=False)


def write_figure(path: str | Path, figure: Figure, dpi: int) -> None:
    """Write a figure of matplotlib in the format of the path's suffix; without a suffix it becomes a PNG."""
    path = Path(path)
    if not path.suffix:
        path = path.with_name(f'{path.name}.png')
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=dpi)
    _write(path, buffer.getvalue(), sync=False)


def _write(path: str | Path, data: bytes, sync: bool = True) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data, sync)
