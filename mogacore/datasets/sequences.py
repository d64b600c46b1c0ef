"""Data sets for video prediction: the base class, fixed sequences from a file, and what several data sets share.

Every item is ``dict(inputs=(num_inputs, C, H, W), data_samples=...)`` with ``gt_frames`` (num_targets, C, H, W) in the
data sample: float32 tensors in network scale, which is 0..1 for images. The metainfo has ``mean`` and ``std``: a
network value v is ``v * std + mean`` in the unit of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from mmengine.structures import BaseDataElement

from mogacore.errors import UserError

from .arrays import NUMBERS, open_array

DATA_HELP = 'see docs/video_prediction.md for how to download and place the data'
NOISES = ('missing', 'perceptual')
BLACK_SQUARE = 24  # pixels
MISSING_PROBABILITY = 0.2


def load_array(path: str | Path, num_dims: int | None = None, kinds: str = NUMBERS) -> np.ndarray:
    """Memory-map the array of a ``.npy`` file; pickled objects are refused.

    Args:
        path: The file.
        num_dims: Required number of dimensions; None for any.
        kinds: Kinds of the dtypes that are allowed.

    Raises:
        UserError: If the file is missing, truncated or not a ``.npy`` file, or has another number of dimensions or kind
            of values.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'{path} not found: {DATA_HELP}')
    array = open_array(path, 'download it again')
    if array.dtype.kind not in kinds:
        wanted = 'whole numbers' if kinds == 'iu' else 'numbers'
        raise UserError(f'{path} contains {array.dtype} of shape {array.shape}, not {wanted}: use the original file')
    if num_dims is not None and array.ndim != num_dims:
        raise UserError(
            f'{path} contains an array of shape {array.shape}, not an array of {num_dims} dimensions: use the original '
            'file'
        )
    return array


def add_frame_noise(frames: np.ndarray, noise: str, rng: np.random.Generator) -> np.ndarray:
    """Black out whole frames or a part of each frame.

    Args:
        frames: (T, H, W, C).
        noise: 'missing' sets each frame to black with probability 0.2; 'perceptual' sets a random 24 x 24 square of
            each frame to black.
        rng: Random number generator.

    Returns:
        A modified copy, (T, H, W, C).

    Source: the noisy Moving MNIST of OpenSTL.
    """
    frames = np.array(frames)
    if noise == 'missing':
        frames[rng.random(len(frames)) < MISSING_PROBABILITY] = 0
        return frames
    for frame in frames:
        # As published, the square never touches the lower and the right border.
        top, left = (rng.integers(max(length - BLACK_SQUARE, 1)) for length in frame.shape[:2])
        frame[top : top + BLACK_SQUARE, left : left + BLACK_SQUARE] = 0
    return frames


class SequenceDataset(BaseDataset):
    """Base class of data sets of frame sequences: the first frames are the input, the rest is to be predicted.

    A subclass implements :meth:`load_data_list`, which returns one dict per sequence, and :meth:`read_frames`.

    Args:
        num_inputs: Number of input frames.
        num_targets: Number of frames to predict.
        **kwargs: Passed to mmengine's BaseDataset, e.g. ``data_root`` or ``indices``.

    Raises:
        UserError: If a number of frames is below 1.
    """

    METAINFO: ClassVar = dict(mean=0.0, std=1.0)
    is_generated = False  # sequences are generated, not read

    def __init__(self, num_inputs: int = 10, num_targets: int = 10, **kwargs):
        if num_inputs < 1 or num_targets < 1:
            raise UserError(f'num_inputs is {num_inputs} and num_targets is {num_targets}: use 1 or more for each')
        self.num_inputs, self.num_targets = num_inputs, num_targets
        super().__init__(**kwargs)

    @property
    def num_frames(self) -> int:
        """Number of frames in a whole sequence."""
        return self.num_inputs + self.num_targets

    def read_frames(self, record: dict) -> np.ndarray:
        """The whole sequence of a record, (num_frames, H, W, C): uint8 0..255, or float in network scale."""
        raise NotImplementedError

    def prepare_data(self, idx: int) -> dict:
        record = self.get_data_info(idx)
        array = self.read_frames(record)
        scale = 255 if array.dtype == np.uint8 else 1
        frames = torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2), np.float32)) / scale
        sample = BaseDataElement(
            gt_frames=frames[self.num_inputs :], metainfo=dict(sample_idx=record['sample_idx'], **self.describe(record))
        )
        return dict(inputs=frames[: self.num_inputs], data_samples=sample)

    def describe(self, record: dict) -> dict:
        """Metainfo of a data sample; ``name`` identifies the sequence for people."""
        return dict(name=f'sequence {record["sample_idx"]}')


@DATASETS.register_module()
class SequenceFile(SequenceDataset):
    """Fixed sequences from a uint8 file like Moving MNIST's ``mnist_test_seq.npy``, which has its frame axis first.

    Args:
        data_root: Folder of the file.
        file: File name; the array is (frames, N, H, W) or (N, frames, H, W), with a last axis C for color.
        frame_axis: Axis of the frames, 0 or 1. None is the axis of length ``num_inputs + num_targets``; with an
            explicit axis, sequences may be longer, and their first frames are used.
        noise: None, 'missing' or 'perceptual', applied to the input frames, see :func:`add_frame_noise`. It is the
            same on every access.
        **kwargs: See :class:`SequenceDataset`.

    Raises:
        UserError: If the file is missing or corrupt, has another type or too few frames, or if the frame axis is
            neither given nor clear from the shape.
    """

    def __init__(
        self,
        data_root: str,
        file: str = 'mnist_test_seq.npy',
        noise: str | None = None,
        frame_axis: int | None = None,
        **kwargs,
    ):
        if frame_axis not in (None, 0, 1):
            raise UserError(f'frame_axis is {frame_axis}: use 0, 1, or None to find it from the number of frames')
        if noise not in (None, *NOISES):
            raise UserError(f'noise {noise!r} is unknown for fixed sequences: choose from {", ".join(NOISES)}, or None')
        if not isinstance(file, str | Path):
            raise UserError(f'file of the data set is {file!r}: give the name of a .npy file in data_root')
        self.file, self.noise, self.frame_axis = file, noise, frame_axis
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        path = Path(self.data_root) / self.file
        self.sequences = load_array(path)
        shape, dtype = self.sequences.shape, self.sequences.dtype
        if len(shape) not in (4, 5) or dtype != np.uint8:
            raise UserError(
                f'{path} contains {dtype} of shape {shape}, not uint8 (frames, sequences, height, width), with or '
                'without a channel axis: use the original file'
            )
        if 0 in shape[:2]:
            raise UserError(f'{path} has no sequences or frames (shape {shape}): use the original file')
        self.sequences = np.moveaxis(self.sequences, self._find_frame_axis(path), 0)
        return [dict(index=index) for index in range(self.sequences.shape[1])]

    def _find_frame_axis(self, path: Path) -> int:
        lengths = self.sequences.shape[:2]
        wanted = f'num_inputs + num_targets is {self.num_frames}'
        if self.frame_axis is not None:
            if lengths[self.frame_axis] < self.num_frames:
                raise UserError(
                    f'{path} has {lengths[self.frame_axis]} frames per sequence, but {wanted}: lower one of them'
                )
            return self.frame_axis
        axes = [axis for axis in (0, 1) if lengths[axis] == self.num_frames]
        if len(axes) != 1:
            found = 'both of its first two axes have' if axes else 'neither of its first two axes has'
            raise UserError(
                f'{path} contains an array of shape {self.sequences.shape}, but {wanted}, and {found} this length: set '
                'frame_axis of the data set to 0 if the array is (frames, sequences, ...) or to 1 if it is (sequences, '
                'frames, ...), or change num_inputs or num_targets'
            )
        return axes[0]

    def read_frames(self, record):
        frames = np.array(self.sequences[: self.num_frames, record['index']])
        frames = frames[..., None] if frames.ndim == 3 else frames
        if self.noise:
            rng = np.random.default_rng(record['index'])
            frames[: self.num_inputs] = add_frame_noise(frames[: self.num_inputs], self.noise, rng)
        return frames


def check_split(split: str) -> str:
    """Return ``split`` if it is 'train' or 'test'; raise UserError otherwise."""
    if split not in ('train', 'test'):
        raise UserError(f'split {split!r} is unknown: choose from train, test')
    return split


def starts_from_end(length: int, num_frames: int, stride: int, is_valid: Callable[[int, int], bool]) -> list[int]:
    """Cut a series of frames into sequences, from its end; returns the index of the first frame of each.

    Args:
        length: Number of frames in the series.
        num_frames: Number of frames in a sequence.
        stride: Frames between the ends of two sequences.
        is_valid: Whether the frames from a first to a last index form a sequence. If not, the search continues with
            the last index reduced by one.

    Source: the KTH and KITTI loaders of OpenSTL.
    """
    starts: list[int] = []
    last = length - 1
    while last >= num_frames - 1:
        valid = is_valid(last - num_frames + 1, last)
        starts += [last - num_frames + 1] if valid else []
        last -= stride if valid else 1
    return starts


def read_with_library(path: str | Path, library: str, read: Callable) -> Any:
    """Read a file with an optional library.

    Args:
        path: The file.
        library: Name of the module to import.
        read: Called with the imported module.

    Returns:
        The result of ``read``.

    Raises:
        UserError: If the file is missing or corrupt, or the library is not installed.
    """
    if not Path(path).is_file():
        raise UserError(f'{path} not found: {DATA_HELP}')
    try:
        module = import_module(library)
    except ImportError:
        raise UserError(f'{path} requires the package {library}: run "pip install {library}"') from None
    try:
        return read(module)
    # These libraries may raise any exception for a damaged file.
    except Exception as error:
        reason = ' '.join(str(error).split())[:100]
        raise UserError(f'{path} is truncated or not readable by {library} ({reason}): download it again') from error
