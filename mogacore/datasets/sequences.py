"""Data sets for video prediction: the base class, and those read from files of frames.

Every item is ``dict(inputs=(num_inputs, C, H, W), data_samples=...)`` with ``gt_frames`` (num_targets, C, H, W) in the
data sample: float32 tensors in network scale, which is 0..1 for images. The metainfo has ``mean`` and ``std``: a
network value v is ``v * std + mean`` in the unit of the data.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from mmengine.structures import BaseDataElement

from mogacore.errors import UserError

DATA_HELP = 'see docs/video_prediction.md for how to download and place the data'
NOISES = ('missing', 'perceptual')
BLACK_SQUARE = 24  # pixels
MISSING_PROBABILITY = 0.2


def load_array(path: str | Path, num_dims: int | None = None) -> np.ndarray:
    """Memory-map the array of a ``.npy`` file; pickled objects are refused.

    Args:
        path: The file.
        num_dims: Required number of dimensions; None for any.

    Raises:
        UserError: If the file is missing, truncated or not a ``.npy`` file, or the number of dimensions differs.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'{path} not found: {DATA_HELP}')
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = ' '.join(str(error).split())[:100]
        raise UserError(f'{path} is truncated or not a .npy file ({reason}): download it again') from None
    if not isinstance(array, np.ndarray) or (num_dims is not None and array.ndim != num_dims):
        found = f'an array of shape {array.shape}' if isinstance(array, np.ndarray) else 'an archive'
        wanted = 'a single array' if num_dims is None else f'an array of {num_dims} dimensions'
        raise UserError(f'{path} contains {found}, not {wanted}: use the original file')
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
        top, left = (rng.integers(length - BLACK_SQUARE + 1) for length in frame.shape[:2])
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
    """Fixed sequences from a file like Moving MNIST's ``mnist_test_seq.npy``: uint8, frame axis first.

    Args:
        data_root: Folder of the file.
        file: File name; the array is (frames, N, H, W), or (frames, N, H, W, C) for color.
        noise: None, 'missing' or 'perceptual', applied to the input frames, see :func:`add_frame_noise`. It is the
            same on every access.
        **kwargs: See :class:`SequenceDataset`.

    Raises:
        UserError: If the file is missing or corrupt, has another type, or has too few frames.
    """

    def __init__(self, data_root: str, file: str = 'mnist_test_seq.npy', noise: str | None = None, **kwargs):
        if noise not in (None, *NOISES):
            raise UserError(f'noise {noise!r} is unknown for fixed sequences: choose from {", ".join(NOISES)}, or None')
        self.file, self.noise = file, noise
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        path = Path(self.data_root) / self.file
        self.sequences = load_array(path)
        if self.sequences.ndim not in (4, 5) or self.sequences.dtype != np.uint8:
            raise UserError(
                f'{path} contains {self.sequences.dtype} of shape {self.sequences.shape}, not uint8 (frames, '
                'sequences, height, width), with or without a channel axis: use the original file'
            )
        if len(self.sequences) < self.num_frames:
            raise UserError(
                f'{path} has {len(self.sequences)} frames per sequence, but num_inputs + num_targets is '
                f'{self.num_frames}: lower one of them'
            )
        return [dict(index=index) for index in range(self.sequences.shape[1])]

    def read_frames(self, record):
        frames = np.array(self.sequences[: self.num_frames, record['index']])
        frames = frames[..., None] if frames.ndim == 3 else frames
        if self.noise:
            rng = np.random.default_rng(record['index'])
            frames[: self.num_inputs] = add_frame_noise(frames[: self.num_inputs], self.noise, rng)
        return frames


@DATASETS.register_module()
class TaxiBJ(SequenceDataset):
    """Taxi flow into and out of 32 x 32 cells of Beijing, every half hour: four input frames, four target frames.

    Args:
        data_root: Folder of ``dataset.npz`` with inputs ``X_train`` and ``X_test`` and targets ``Y_train`` and
            ``Y_test``, each (N, 4, 2, 32, 32), in -1..1. Items are scaled to 0..1.
        split: 'train' or 'test'.
        **kwargs: See :class:`SequenceDataset`.

    Raises:
        UserError: If the file is missing or corrupt, lacks an array, or has too few frames.
    """

    def __init__(self, data_root: str, split: str = 'train', num_inputs: int = 4, num_targets: int = 4, **kwargs):
        self.split = check_split(split)
        super().__init__(num_inputs, num_targets, data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        path = Path(self.data_root) / 'dataset.npz'
        if not path.is_file():
            raise UserError(f'{path} not found: {DATA_HELP}')
        names = f'X_{self.split}', f'Y_{self.split}'
        try:
            with np.load(path, allow_pickle=False) as archive:
                inputs, targets = (archive[name].astype(np.float32) for name in names)
        except KeyError as error:
            raise UserError(f'{path} has no array {error.args[0].split()[0]}: use the original file') from None
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
            reason = ' '.join(str(error).split())[:100]
            raise UserError(f'{path} is truncated or not a .npz file ({reason}): download it again') from None
        if inputs.ndim != 5 or inputs.shape[0] != targets.shape[0] or inputs.shape[2:] != targets.shape[2:]:
            raise UserError(
                f'{path}: the shapes of {names[0]} {inputs.shape} and {names[1]} {targets.shape} do not match: use '
                'the original file'
            )
        if inputs.shape[1] < self.num_inputs or targets.shape[1] < self.num_targets:
            raise UserError(
                f'{path} has {inputs.shape[1]} + {targets.shape[1]} frames per sequence, not {self.num_inputs} + '
                f'{self.num_targets}: lower num_inputs or num_targets'
            )
        self.frames = np.concatenate([inputs[:, -self.num_inputs :], targets[:, : self.num_targets]], axis=1)
        return [dict(index=index) for index in range(len(self.frames))]

    def read_frames(self, record):
        return (self.frames[record['index']].transpose(0, 2, 3, 1) + 1) / 2


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


def frame_number(path: Path) -> int:
    """The first number in the file name of a frame, e.g. 12 for ``image-012_120x160.png``."""
    digits = re.search(r'\d+', path.stem)
    if digits is None:
        raise UserError(f'frame {path} has no number in its name: put its index within the clip into the name')
    return int(digits[0])


@DATASETS.register_module()
class FrameFolders(SequenceDataset):
    """Clips as folders of images, one image per frame, with the frame number in the file name.

    Args:
        data_root: Folder below which every folder with images is a clip.
        data_prefix: ``dict(img=...)``, a folder below ``data_root`` to which the search is restricted.
        size: (height, width) to which frames are resized.
        color_type: 'color' for RGB, 'grayscale' for the first channel of the file.
        stride: Frames between the starts of two sequences of a clip; None for the length of a sequence.
        **kwargs: See :class:`SequenceDataset`.

    Raises:
        UserError: If no clip is long enough, or an image cannot be read.
    """

    suffixes = ('.png', '.jpg', '.jpeg', '.bmp')

    def __init__(
        self, data_root: str, size: tuple[int, int], color_type: str = 'color', stride: int | None = None, **kwargs
    ):
        if color_type not in ('color', 'grayscale'):
            raise UserError(f'color_type {color_type!r} is unknown: choose from color, grayscale')
        self.size, self.color_type, self.stride = tuple(size), color_type, stride
        super().__init__(data_root=data_root, **{'data_prefix': dict(img=''), **kwargs})

    def takes(self, clip: Path) -> bool:
        """Whether a clip's folder belongs to this data set."""
        return True

    def stride_of(self, clip: Path) -> int:
        """Frames between the ends of two sequences of a clip."""
        return self.stride or self.num_frames

    def load_data_list(self) -> list[dict]:
        root = Path(self.data_prefix['img'] or self.data_root)
        if not root.is_dir():
            raise UserError(f'data folder {root} not found: {DATA_HELP}')
        clips: dict[Path, list[Path]] = {}
        for path in root.rglob('*'):
            if path.suffix.lower() in self.suffixes and self.takes(path.parent):
                clips.setdefault(path.parent, []).append(path)
        records = []
        for clip, frames in sorted(clips.items()):
            frames = sorted(frames, key=lambda path: (frame_number(path), path.name))
            numbers = [frame_number(path) for path in frames]
            is_valid = partial(_are_consecutive, numbers)
            for start in starts_from_end(len(frames), self.num_frames, self.stride_of(clip), is_valid):
                records.append(dict(frames=[str(path) for path in frames[start : start + self.num_frames]]))
        if not records:
            raise UserError(
                f'{root} has no clip of {self.num_frames} consecutive frames in {len(clips)} folders of images: '
                f'{DATA_HELP}'
            )
        return records

    def read_frames(self, record):
        return np.stack([self._read_frame(path) for path in record['frames']])

    def _read_frame(self, path: str) -> np.ndarray:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) if Path(path).stat().st_size else None
        if image is None:
            raise UserError(f'image {path} is corrupt: replace it, or remove its clip from the data set')
        if self.color_type == 'grayscale':
            image = image[..., 2:]  # OpenCV stores red, the first channel, last
        image = cv2.resize(image, self.size[::-1])
        return image[..., None] if image.ndim == 2 else image[..., ::-1]

    def describe(self, record):
        return dict(name='/'.join(Path(record['frames'][0]).parts[-2:]))


def _are_consecutive(numbers: list[int], first: int, last: int) -> bool:
    return numbers[last] - numbers[first] == last - first


@DATASETS.register_module()
class KTH(FrameFolders):
    """People walking, jogging, running, boxing, waving and clapping: ``ACTION/personNN_ACTION_dN/FRAME.png``.

    Persons 1 to 16 are for training, 17 to 25 for testing. In running and jogging, where the person is only visible
    for a short time, a sequence starts every 3 frames; sequences of the other actions do not overlap.

    Args:
        data_root: Folder of the six actions.
        split: 'train' or 'test'.
        **kwargs: See :class:`FrameFolders`.
    """

    last_training_person = 16
    overlapping_actions = ('jogging', 'running')

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        num_inputs: int = 10,
        num_targets: int = 20,
        size: tuple[int, int] = (128, 128),
        **kwargs,
    ):
        self.split = check_split(split)
        super().__init__(data_root, size, 'grayscale', num_inputs=num_inputs, num_targets=num_targets, **kwargs)

    def takes(self, clip):
        person = re.match(r'person(\d+)', clip.name)
        return person is not None and (int(person[1]) <= self.last_training_person) == (self.split == 'train')

    def stride_of(self, clip):
        is_overlapping = any(action in clip.name for action in self.overlapping_actions)
        return 3 if is_overlapping else super().stride_of(clip)


@DATASETS.register_module()
class KittiCaltech(SequenceDataset):
    """Driving videos: KITTI for training, Caltech Pedestrian for testing, 128 x 160 RGB; ten input frames, one target.

    Args:
        data_root: Folder with ``{train,test}_data.npy`` (N, 128, 160, 3), uint8 or 0..1, and ``{train,test}_idx.npy``,
            the indices of the first frames of the sequences; or, for training, with ``X_train.hkl`` and
            ``sources_train.hkl``, where each source is cut from its end into sequences without overlap.
        split: 'train' or 'test'.
        **kwargs: See :class:`SequenceDataset`.

    Raises:
        UserError: If the files are missing, corrupt or inconsistent.
    """

    def __init__(self, data_root: str, split: str = 'train', num_inputs: int = 10, num_targets: int = 1, **kwargs):
        self.split = check_split(split)
        super().__init__(num_inputs, num_targets, data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        root = Path(self.data_root)
        hickle = root / 'X_train.hkl'
        if self.split == 'train' and hickle.is_file() and not (root / 'train_data.npy').is_file():
            self.frames, sources = (read_hickle(path) for path in (hickle, root / 'sources_train.hkl'))
            if len(self.frames) != len(sources):
                counts = f'{len(self.frames)} frames, but sources_train.hkl has {len(sources)} sources'
                raise UserError(f'{hickle} has {counts}: download both files again')
            length = self.num_frames
            starts = starts_from_end(len(sources), length, length, lambda a, b: sources[a] == sources[b])
        else:
            path = root / f'{self.split}_data.npy'
            self.frames = load_array(path, num_dims=4)
            starts = np.array(load_array(root / f'{self.split}_idx.npy', num_dims=1)).tolist()
            if starts and not 0 <= min(starts) <= max(starts) <= len(self.frames) - self.num_frames:
                raise UserError(
                    f'{path} has {len(self.frames)} frames, too few for sequences of {self.num_frames} that start at '
                    f'{min(starts)} to {max(starts)} ({self.split}_idx.npy): lower num_targets or download both again'
                )
        if not starts:
            raise UserError(f'{root} has no {self.split} sequence of {self.num_frames} frames: {DATA_HELP}')
        return [dict(start=int(start)) for start in starts]

    def read_frames(self, record):
        return np.array(self.frames[record['start'] : record['start'] + self.num_frames])


def read_hickle(path: str | Path) -> np.ndarray | list:
    """Read the content of a hickle file (``.hkl``).

    Raises:
        UserError: If the file is missing or corrupt, or hickle is not installed.
    """
    return read_with_library(path, 'hickle', lambda hickle: hickle.load(str(path)))


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
