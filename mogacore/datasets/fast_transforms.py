"""Training transforms of classification with the random draws of mmpretrain's, in less processor time.

Which ones a config uses is the choice of ``fast_data``, see :mod:`mogacore.engine.fast_data`.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.registry import TRANSFORMS, DefaultScope

LEVELS = np.arange(256)
RAMP = np.repeat(LEVELS.astype(np.uint8)[None, :, None], 3, axis=2)  # an image (1, 256, 3) of every value
# Operations of RandAugment whose output value depends on the input value alone.
POINTWISE = ('Invert', 'Posterize', 'Solarize', 'SolarizeAdd', 'Brightness')


@TRANSFORMS.register_module()
class FastRandomResizedCrop:
    """mmpretrain's RandomResizedCrop with bicubic interpolation, resized by torch instead of Pillow.

    The crop is the same. Both resize with antialiasing; values differ by at most 2 of 255, by rounding.

    Args:
        **settings: Those of mmpretrain's RandomResizedCrop; ``interpolation`` must be 'bicubic'.
    """

    def __init__(self, **settings):
        if settings.get('interpolation') != 'bicubic':
            raise ValueError('interpolation must be bicubic')
        self.published = TRANSFORMS.build(dict(type='mmpretrain.RandomResizedCrop', **settings))

    def __call__(self, results: dict) -> dict:
        image = results['img']
        top, left, height, width = self.published.rand_crop_params(image)
        crop = image[top : top + height, left : left + width]
        crop = np.ascontiguousarray(crop if crop.ndim == 3 else crop[..., None])
        batch = torch.from_numpy(crop).permute(2, 0, 1)[None]
        resized = F.interpolate(batch, tuple(self.published.scale), mode='bicubic', antialias=True)
        array = np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())
        results['img'] = array if image.ndim == 3 else array[..., 0]
        results['img_shape'] = results['img'].shape
        return results


@TRANSFORMS.register_module()
class FastRandAugment:
    """mmpretrain's RandAugment with lookup tables for the operations that map values, and equal images.

    An operation on values runs on the 256 values instead of on every pixel. The others, such as rotations, run as they
    are.

    Args:
        **settings: Those of mmpretrain's RandAugment.
    """

    def __init__(self, **settings):
        with DefaultScope.overwrite_default_scope('mmpretrain'):  # for the operations, which are given by name
            self.published = TRANSFORMS.build(dict(type='mmpretrain.RandAugment', **settings))

    def __call__(self, results: dict) -> dict:
        for index in self.published.random_policy_indices():
            operation = self.published.transforms[index]
            name, image = type(operation).__name__, results['img']
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                results = operation(results)
            elif name in POINTWISE:
                table = operation({'img': RAMP})['img']
                if table is not RAMP:  # which means that it was not applied
                    results['img'] = cv2.LUT(image, table)
            elif name in TABLES:
                if not operation.random_disable():
                    results['img'] = cv2.LUT(image, TABLES[name](operation, image))
            else:
                results = operation(results)
        return results


def _counts(channel: np.ndarray) -> np.ndarray:
    return cv2.calcHist([channel], [0], None, [256], [0, 256])[:, 0].astype(int)


def _auto_contrast(operation, image: np.ndarray) -> np.ndarray:
    """Each channel is stretched to 0 to 255."""
    columns = []
    for channel in cv2.split(image):
        low, high, *_ = cv2.minMaxLoc(channel)
        scale = 255.0 / (high - low) if high > low else 1.0
        offset = -low * scale if high > low else 0.0
        columns.append(np.clip(LEVELS * scale + offset, 0, 255).astype(np.uint8))
    return np.stack(columns, -1)[None]


def _equalize(operation, image: np.ndarray) -> np.ndarray:
    """The histogram of each channel is made as even as its values allow."""
    columns = []
    for channel in cv2.split(image):
        counts = _counts(channel)
        step = (counts.sum() - counts[counts.nonzero()[0][-1]]) // 255
        table = LEVELS
        if step:
            table = np.minimum((counts.cumsum() + step // 2) // step, 255)
            table = np.concatenate([[0], table[:-1]])
        columns.append(table.astype(np.uint8))
    return np.stack(columns, -1)[None]


def _contrast(operation, image: np.ndarray) -> np.ndarray:
    """Values move from, or to, the mean of the gray image."""
    fixed = operation.magnitude
    factor = 1 + operation.random_negative(operation.random_magnitude() if fixed is None else fixed)
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    mean = np.full_like(RAMP, round(int(gray.sum(dtype=np.int64)) / gray.size))
    blended = cv2.addWeighted(RAMP.astype(np.float32), factor, mean.astype(np.float32), 1 - factor, 0)
    return np.clip(blended, 0, 255).astype(np.uint8)


# Operations whose table depends on the image.
TABLES = {'AutoContrast': _auto_contrast, 'Equalize': _equalize, 'Contrast': _contrast}
