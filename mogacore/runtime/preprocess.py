"""Preparation of images as the test pipelines of the task libraries do it, in numpy, OpenCV and Pillow.

A step is a dict from the description of an exported file. Each function takes an image (H, W, C) uint8 and a step.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from mogacore.errors import UserError
from mogacore.images import check_resized

from .inputs import UnreadableError

CV2_MODES = {
    'nearest': cv2.INTER_NEAREST, 'bilinear': cv2.INTER_LINEAR, 'bicubic': cv2.INTER_CUBIC, 'area': cv2.INTER_AREA,
    'lanczos': cv2.INTER_LANCZOS4,
}  # fmt: skip
PILLOW_MODES = {
    'nearest': Image.Resampling.NEAREST, 'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC,
    'box': Image.Resampling.BOX, 'lanczos': Image.Resampling.LANCZOS, 'hamming': Image.Resampling.HAMMING,
}  # fmt: skip

WARP_LIMIT = 32767  # pixels of a side, of OpenCV


def prepare(image: np.ndarray, steps: list[dict]) -> np.ndarray:
    """Apply all steps but ``warp`` to an image (H, W, C) uint8.

    Raises:
        UserError: If the image is too elongated to be resized, or a step is unknown.
    """
    for step in steps:
        if step['step'] not in STEPS:
            raise UserError(f'step {step["step"]!r} of the model is unknown to this version: update mogacore-runtime')
        image = STEPS[step['step']](image, step)
    return image


def resize(image: np.ndarray, step: dict) -> np.ndarray:
    """Resize to the size that :func:`resized_size` returns."""
    height, width = image.shape[:2]
    new_height, new_width = resized_size(height, width, step)
    if min(new_height, new_width) < 1:
        raise UnreadableError(
            f'an image of {width} x {height} px cannot be resized to {new_width} x {new_height}: pad or cut it to a '
            'less elongated shape'
        )
    try:
        check_resized((width, height), (new_width, new_height))
    except UserError as error:
        raise UnreadableError(str(error)) from None
    interpolation = step.get('interpolation', 'bilinear')
    if step.get('backend') == 'pillow':
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        resized = np.asarray(picture.resize((new_width, new_height), PILLOW_MODES[interpolation]))
    else:
        resized = cv2.resize(image, (new_width, new_height), interpolation=CV2_MODES[interpolation])
    return resized.reshape(new_height, new_width, -1)


def resized_size(height: int, width: int, step: dict) -> tuple[int, int]:
    """Height and width of a resized image.

    Modes: 'exact': ``size`` is (h, w); 'fit': as large as possible with the long side at most the larger of ``size``
    and the short side at most the smaller; 'short_edge': ``size`` is the length of the short side; 'multiple': both
    sides rounded up to multiples of ``size``.
    """
    mode, size = step['mode'], step['size']
    if mode == 'exact':
        return size[0], size[1]
    if mode == 'fit':
        scale = min(max(size) / max(height, width), min(size) / min(height, width))
        return int(height * scale + 0.5), int(width * scale + 0.5)
    if mode == 'short_edge':
        return (int(size * height / width), size) if width < height else (size, int(size * width / height))
    if mode == 'multiple':
        divisors = (size, size) if isinstance(size, int) else size
        return -(-height // divisors[0]) * divisors[0], -(-width // divisors[1]) * divisors[1]
    raise UserError(f'resizing mode {mode!r} of the model is unknown to this version: update mogacore-runtime')


def center_crop(image: np.ndarray, step: dict) -> np.ndarray:
    """Cut out the center, ``size`` (h, w); a side that is shorter stays as it is."""
    height, width = image.shape[:2]
    crop_height, crop_width = min(step['size'][0], height), min(step['size'][1], width)
    top, left = round((height - crop_height) / 2), round((width - crop_width) / 2)
    return image[top : top + crop_height, left : left + crop_width]


def pad(image: np.ndarray, step: dict) -> np.ndarray:
    """Pad at the bottom and right to at least ``size`` (h, w) with ``value``, one per channel."""
    height, width = image.shape[:2]
    bottom, right = max(step['size'][0] - height, 0), max(step['size'][1] - width, 0)
    value = step.get('value', 0)
    padded = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=value)
    return padded.reshape(height + bottom, width + right, -1)


STEPS = {'resize': resize, 'center_crop': center_crop, 'pad': pad}


def warp(image: np.ndarray, box: np.ndarray, step: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut the padded box of an object out of an image, with the aspect ratio of ``size``, as mmpose does.

    Args:
        image: (H, W, C) uint8.
        box: x1, y1, x2, y2 in pixels.
        step: ``size`` (h, w) of the crop; ``padding``, the factor by which the box is enlarged; ``udp``, whether the
            centers of the outer pixels lie on the border of the box.

    Returns:
        The crop (h, w, C), and center and size (x, y) of its box in the image; for points of the crop see
        :func:`to_image`.
    """
    height, width = step['size']
    if max(image.shape[:2]) >= WARP_LIMIT:
        raise UnreadableError(
            f'an image of {image.shape[1]} x {image.shape[0]} px is too large to cut objects out: use one of less than '
            f'{WARP_LIMIT} px on each side'
        )
    box = np.asarray(box, np.float32)
    center = (box[2:] + box[:2]) * 0.5
    box_width, box_height = (box[2:] - box[:2]) * step.get('padding', 1.25)
    ratio = width / height
    if box_width > box_height * ratio:
        size = np.array([box_width, box_width / ratio], np.float32)
    else:
        size = np.array([box_height * ratio, box_height], np.float32)
    if step.get('udp'):
        scale_x, scale_y = (width - 1) / size[0], (height - 1) / size[1]
        matrix = np.array(
            [[scale_x, 0, scale_x * (0.5 * size[0] - center[0])], [0, scale_y, scale_y * (0.5 * size[1] - center[1])]],
            np.float32,
        )
    else:
        left, half = center[0] - 0.5 * size[0], 0.5 * size[0]
        source = np.array([center, [left, center[1]], [left, center[1] + half]], np.float32)
        target = np.array([[width * 0.5, height * 0.5], [0, height * 0.5], [0, (height + width) * 0.5]], np.float32)
        matrix = np.asarray(cv2.getAffineTransform(source, target))
    crop = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
    return crop.reshape(height, width, -1), center, size


def to_image(points: np.ndarray, step: dict, center: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Points (..., 2) of a crop, in pixels of the image; ``center`` and ``size`` are those of :func:`warp`."""
    height, width = step['size']
    return points / np.array([width, height]) * size + center - 0.5 * size
