"""Moving MNIST and its variants: sequences of two images that bounce off the sides, generated on the fly."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from mmengine.registry import DATASETS

from mogacore.errors import UserError

from .digits import glyph, load_digits, moving_sequence
from .idx import read_idx
from .sequences import DATA_HELP, NOISES, SequenceDataset, add_frame_noise, check_split

CIFAR_FILES = (*(f'data_batch_{i}.bin' for i in range(1, 6)), 'test_batch.bin')
CIFAR_RECORD = 1 + 3 * 32 * 32
VELOCITY_NOISE = 0.2


@DATASETS.register_module()
class MovingMNIST(SequenceDataset):
    """Sequences of two bouncing images from an IDX file, see :func:`mogacore.datasets.digits.moving_sequence`.

    Args:
        data_root: Folder of the IDX file.
        images: Name of the IDX file, with or without ``.gz``.
        num_sequences: Length of the data set.
        seed: With a number, the sequences are always the same; with None, every access generates a new one.
        noise: None for no noise; 'dynamic' adds N(0, 0.2) to the velocity in the input frames; for 'missing' and
            'perceptual', see :func:`mogacore.datasets.sequences.add_frame_noise`.
        backgrounds: Folder below ``data_root`` with CIFAR-10's binary files. The background of each sequence is one of
            the images, resized to the frame, and digits are pure white. None for a black background.
        canvas: Height and width of a frame in pixels.
        **kwargs: See :class:`mogacore.datasets.sequences.SequenceDataset`.

    Raises:
        UserError: If a file is missing or corrupt, or a setting is out of range.

    Source: Srivastava et al., arXiv 1502.04681; the data loaders of OpenSTL.
    """

    is_generated = True

    def __init__(
        self,
        data_root: str | None = None,
        images: str = 'train-images-idx3-ubyte',
        num_sequences: int = 10000,
        seed: int | None = None,
        noise: str | None = None,
        backgrounds: str | None = None,
        canvas: int = 64,
        **kwargs,
    ):
        if num_sequences < 1:
            raise UserError(f'num_sequences is {num_sequences}: use 1 or more')
        if noise not in (None, 'dynamic', *NOISES):
            raise UserError(f'noise {noise!r} is unknown: choose from dynamic, {", ".join(NOISES)}, or None')
        self.images, self.num_sequences, self.seed = images, num_sequences, seed
        self.noise, self.backgrounds, self.canvas = noise, backgrounds, canvas
        super().__init__(data_root=data_root, **kwargs)

    def load_images(self) -> np.ndarray:
        """The moving images, (K, S, S) uint8."""
        path = Path(self.data_root) / self.images
        images = read_idx(path)
        if images.ndim != 3 or images.shape[1] != images.shape[2] or images.shape[1] > self.canvas:
            raise UserError(
                f'{path} contains an array of shape {images.shape}, not square images of at most {self.canvas} px: '
                'use the image file'
            )
        if not len(images):
            raise UserError(f'{path} has no images: use the image file')
        return images

    def load_data_list(self) -> list[dict]:
        self.digits = self.load_images()
        folder = self.backgrounds
        self.background_images = None if folder is None else read_cifar10(Path(self.data_root) / folder)
        return [dict(index=index) for index in range(self.num_sequences)]

    def random_stream(self, index: int) -> np.random.Generator:
        """Random number generator of an item.

        It depends on ``seed`` and ``index``; without a seed, it is seeded from numpy's global generator, which torch,
        mmengine and :mod:`mogacore.engine.resume` seed for each process or sample.
        """
        if self.seed is not None:
            return np.random.default_rng([self.seed, index])
        return np.random.default_rng(np.random.randint(2**32, size=4, dtype=np.uint32))

    def read_frames(self, record):
        rng = self.random_stream(record['index'])
        velocity_noise = VELOCITY_NOISE if self.noise == 'dynamic' else 0.0
        frames = moving_sequence(rng, self.digits, self.num_frames, self.canvas, velocity_noise, self.num_inputs)
        frames = frames[..., None]
        if self.background_images is not None:
            background = self.background_images[rng.integers(len(self.background_images))]
            background = cv2.resize(background, (self.canvas, self.canvas), interpolation=cv2.INTER_CUBIC)
            frames = np.maximum(np.where(frames > 1, np.uint8(255), np.uint8(0)), background)
        if self.noise in NOISES:
            frames[: self.num_inputs] = add_frame_noise(frames[: self.num_inputs], self.noise, rng)
        return frames


@DATASETS.register_module()
class MovingDigits(MovingMNIST):
    """:class:`MovingMNIST` with the bundled digits, 28 px; no files needed.

    Args:
        split: 'train' uses the 1,442 training digits, 'test' the 355 held-out digits, as do the sequences that
            ``tools/make_digits.py`` writes.
        **kwargs: See :class:`MovingMNIST`.
    """

    digit_size: ClassVar = 28

    def __init__(self, split: str = 'train', **kwargs):
        self.split = check_split(split)
        super().__init__(**kwargs)

    def load_images(self):
        return _glyphs(self.split == 'test', self.digit_size)


@lru_cache(maxsize=2)
def _glyphs(held_out: bool, size: int) -> np.ndarray:
    images, _, is_held_out = load_digits()
    return np.stack([glyph(image, size) for image in images[is_held_out == held_out]])


def read_cifar10(folder: str | Path) -> np.ndarray:
    """Read all images of CIFAR-10, training and test, in its binary version.

    Args:
        folder: Folder with ``data_batch_{1..5}.bin`` and ``test_batch.bin``: records of a label byte and 3 x 32 x 32
            bytes.

    Returns:
        (N, 32, 32, 3) uint8 RGB; N is 60,000 for the original files.

    Raises:
        UserError: If a file is missing, empty or truncated.
    """
    images = []
    for name in CIFAR_FILES:
        path = Path(folder) / name
        if not path.is_file():
            raise UserError(f'{path} of the binary version of CIFAR-10 not found: {DATA_HELP}')
        content = np.fromfile(path, np.uint8)
        if not len(content) or len(content) % CIFAR_RECORD:
            raise UserError(
                f'{path} is truncated: {len(content)} bytes are not whole records of {CIFAR_RECORD}, download it again'
            )
        images.append(content.reshape(-1, CIFAR_RECORD)[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return np.ascontiguousarray(np.concatenate(images))
