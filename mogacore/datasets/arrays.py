"""Images in ``.npy`` files, with any number of channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mmengine.registry import TRANSFORMS

from mogacore.errors import UserError

NUMBERS = 'buif'  # kinds of dtypes


def open_array(path: str | Path, remedy: str) -> np.ndarray:
    """Memory-map the array of a ``.npy`` file; pickled objects are refused.

    Args:
        path: The file.
        remedy: What to do about a damaged file, for the message.

    Raises:
        UserError: If the file cannot be read, or is an archive.
    """
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
    # numpy's parser raises errors of many types for a damaged header.
    except Exception as error:
        reason = ' '.join(str(error).split())[:100] or type(error).__name__
        raise UserError(f'{path} is truncated or not a .npy file ({reason}): {remedy}') from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise UserError(f'{path} contains an archive, not a single array: {remedy}')
    return array


def open_image(path: str | Path) -> np.ndarray:
    """Memory-map the array of an image, (H, W) or (H, W, C).

    Raises:
        UserError: If the file cannot be read, or its array is no image.
    """
    array = open_array(path, 'write it with numpy.save')
    if array.ndim not in (2, 3) or array.dtype.kind not in NUMBERS or not array.size:
        raise UserError(
            f'array {path} has {array.dtype} of shape {array.shape}: store numbers of shape (height, width) or '
            '(height, width, channels)'
        )
    return array


@TRANSFORMS.register_module()
class LoadArray:
    """Loads an image from a ``.npy`` file, (H, W) or (H, W, C) with any C, in place of LoadImageFromFile.

    8-bit values stay as they are, others become float32. Channels keep their order.

    Raises:
        UserError: If the file cannot be read, its array is no image, or a value is beyond float32.
    """

    def __call__(self, results: dict) -> dict:
        path = results['img_path']
        array = open_image(path)
        try:
            with np.errstate(over='raise'):
                image = np.array(array if array.dtype == np.uint8 else array.astype(np.float32))
        except FloatingPointError:
            raise UserError(f'array {path} has values beyond the range of float32: scale them') from None
        results['img'] = image if image.ndim == 3 else image[..., None]
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results
