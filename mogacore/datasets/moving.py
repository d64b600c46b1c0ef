"""Moving MNIST and its relatives: sequences made while they are read, two images that bounce off the sides."""

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
    """Sequences of two bouncing images out of an IDX file, see :func:`mogacore.datasets.digits.moving_sequence`.

    Args:
        data_root: Folder of the IDX file.
        images: Its name, with or without ``.gz``.
        num_sequences: Length of the data set.
        seed: None makes every item anew at each reading; a number gives the same sequences always.
        noise: None; 'dynamic' adds N(0, 0.2) to the velocity in the input frames; 'missing' and 'perceptual' see
            :func:`mogacore.datasets.sequences.add_frame_noise`.
        backgrounds: Folder below ``data_root`` of CIFAR-10's binary files, one of whose images, enlarged to the frame,
            lies under every sequence; digits are then pure white. None is black.
        canvas: Height and width of a frame in pixels.
        **kwargs: See :class:`mogacore.datasets.sequences.SequenceDataset`.

    Raises:
        UserError: If a file is missing or broken, or a setting out of its range.

    Source: Srivastava et al., arXiv 1502.04681; the loaders of OpenSTL.
    """

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
            raise UserError(f'num_sequences is {num_sequences}: give 1 or more')
        if noise not in (None, 'dynamic', *NOISES):
            raise UserError(f'noise {noise!r} is unknown: choose from dynamic, {", ".join(NOISES)}, or None')
        self.images, self.num_sequences, self.seed = images, num_sequences, seed
        self.noise, self.backgrounds, self.canvas = noise, backgrounds, canvas
        super().__init__(data_root=data_root, **kwargs)

    def load_images(self) -> np.ndarray:
        """The images that move, (K, S, S) uint8."""
        path = Path(self.data_root) / self.images
        images = read_idx(path)
        if images.ndim != 3 or images.shape[1] != images.shape[2] or images.shape[1] > self.canvas:
            raise UserError(
                f'{path} holds an array of shape {images.shape}, not square images of at most {self.canvas} px: give '
                'the file of images'
            )
        return images

    def load_data_list(self) -> list[dict]:
        self.digits = self.load_images()
        self.grounds = None if self.backgrounds is None else read_cifar10(Path(self.data_root) / self.backgrounds)
        return [dict(index=index) for index in range(self.num_sequences)]

    def random_stream(self, index: int) -> np.random.Generator:
        """Source of the randomness of an item: its own with a seed, else one that numpy's generator begins.

        That is the generator which torch, mmengine and :mod:`mogacore.engine.resume` seed for each process or sample.
        """
        entropy = np.random.randint(2**32, size=4, dtype=np.uint32) if self.seed is None else [self.seed, index]
        return np.random.default_rng(entropy)

    def read_frames(self, record):
        rng = self.random_stream(record['index'])
        velocity_noise = VELOCITY_NOISE if self.noise == 'dynamic' else 0.0
        frames = moving_sequence(rng, self.digits, self.num_frames, self.canvas, velocity_noise, self.num_inputs)
        frames = frames[..., None]
        if self.grounds is not None:
            ground = self.grounds[rng.integers(len(self.grounds))]
            ground = cv2.resize(ground, (self.canvas, self.canvas), interpolation=cv2.INTER_CUBIC)
            frames = np.maximum(np.where(frames > 1, np.uint8(255), np.uint8(0)), ground)
        if self.noise in NOISES:
            frames[: self.num_inputs] = add_frame_noise(frames[: self.num_inputs], self.noise, rng)
        return frames


@DATASETS.register_module()
class MovingDigits(MovingMNIST):
    """:class:`MovingMNIST` with the digits on board, 28 px; it needs no file.

    Args:
        split: 'train' takes the 1,442 digits for training, 'test' the 355 held out, which alone are in the sequences
            that ``tools/make_digits.py`` writes.
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
    """All images of CIFAR-10, training and test, from its binary version.

    Args:
        folder: Folder of ``data_batch_{1..5}.bin`` and ``test_batch.bin``: records of a label and 3 x 32 x 32 bytes.

    Returns:
        (N, 32, 32, 3) uint8 RGB, N a multiple of the records a file has, 60,000 for the real ones.

    Raises:
        UserError: If a file is missing or has another length.
    """
    images = []
    for name in CIFAR_FILES:
        path = Path(folder) / name
        if not path.is_file():
            raise UserError(f'{path} is missing, of the binary version of CIFAR-10: {DATA_HELP}')
        content = np.fromfile(path, np.uint8)
        if not len(content) or len(content) % CIFAR_RECORD:
            raise UserError(
                f'{path} is truncated, {len(content)} bytes are no records of {CIFAR_RECORD}: fetch it again'
            )
        images.append(content.reshape(-1, CIFAR_RECORD)[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return np.ascontiguousarray(np.concatenate(images))
