"""Images in ``.npy`` files, with any number of channels."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from mmengine.registry import TRANSFORMS

from mogacore.errors import UserError

# What numpy and zipfile raise for damaged or malicious files; there is no common type.
CORRUPT = (
    ArithmeticError, AttributeError, EOFError, MemoryError, OSError, RuntimeError, TypeError, ValueError, struct.error,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
NUMBERS = 'buif'  # kinds of dtypes


def open_image(path: str | Path) -> np.ndarray:
    """Memory-map the array of an image, (H, W) or (H, W, C).

    Raises:
        UserError: If the file cannot be read, or its array is no image.
    """
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
    except CORRUPT as error:
        reason = ' '.join(str(error).split())[:100]
        raise UserError(f'array {path} cannot be read ({reason}): write it with numpy.save') from None
    if (
        not isinstance(array, np.ndarray)
        or array.ndim not in (2, 3)
        or array.dtype.kind not in NUMBERS
        or not array.size
    ):
        found = f'{array.dtype} of shape {array.shape}' if isinstance(array, np.ndarray) else 'an archive'
        raise UserError(
            f'array {path} has {found}: store numbers of shape (height, width) or (height, width, channels)'
        )
    return array


@TRANSFORMS.register_module()
class LoadArray:
    """Loads an image from a ``.npy`` file, (H, W) or (H, W, C) with any C, in place of LoadImageFromFile.

    8-bit values stay as they are, others become float32. Channels keep their order.

    Raises:
        UserError: If the file cannot be read, or its array is no image.
    """

    def __call__(self, results: dict) -> dict:
        array = open_image(results['img_path'])
        image = np.array(array if array.dtype == np.uint8 else array.astype(np.float32))
        results['img'] = image if image.ndim == 3 else image[..., None]
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results
