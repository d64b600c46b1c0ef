"""Video prediction: what its data sets share, and those that are read from files of frames.

Every item is ``dict(inputs=(num_inputs, C, H, W), data_samples=...)`` with ``gt_frames`` (num_targets, C, H, W) in the
sample, float32 tensors in the scale of the network: 0..1 for pictures. The meta of a data set has ``mean`` and ``std``,
by which a value v of the network means ``v * std + mean`` in the unit of the data.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from mmengine.structures import BaseDataElement

from mogacore.errors import UserError

DATA_HELP = 'see docs/video_prediction.md for where it comes from and goes'
NOISES = ('missing', 'perceptual')
BLACK_SQUARE = 24  # pixels
MISSING_PROBABILITY = 0.2


def load_array(path: str | Path, num_dims: int | None = None) -> np.ndarray:
    """The array of a ``.npy`` file, not read into memory before it is used; never runs pickled code.

    Args:
        path: The file.
        num_dims: Number of dimensions that it must have; None for any.

    Raises:
        UserError: If the file is missing, cut off, no ``.npy`` file, or has another number of dimensions.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'{path} is missing: {DATA_HELP}')
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = ' '.join(str(error).split())[:100]
        raise UserError(f'{path} is truncated or no array file ({reason}): fetch it again') from None
    if not isinstance(array, np.ndarray) or (num_dims is not None and array.ndim != num_dims):
        found = f'an array of shape {array.shape}' if isinstance(array, np.ndarray) else 'an archive'
        raise UserError(f'{path} holds {found}, not an array of {num_dims} dimensions: give the original file')
    return array


def add_frame_noise(frames: np.ndarray, noise: str, rng: np.random.Generator) -> np.ndarray:
    """Frames of which some are black, or part of each.

    Args:
        frames: (T, H, W, C).
        noise: 'missing' makes each frame black with probability 0.2; 'perceptual' a random 24 x 24 square of each.
        rng: Source of the randomness.

    Returns:
        A copy of the same shape.

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
    """Sequences of frames, of which the first are the input and those after them are to be predicted.

    A subclass gives :meth:`load_data_list`, a dict a sequence, and :meth:`read_frames`.

    Args:
        num_inputs: Frames of the input.
        num_targets: Frames to predict.
        **kwargs: Further settings of mmengine's BaseDataset, e.g. ``data_root`` or ``indices``.

    Raises:
        UserError: If a number of frames is below 1.
    """

    METAINFO: ClassVar = dict(mean=0.0, std=1.0)

    def __init__(self, num_inputs: int = 10, num_targets: int = 10, **kwargs):
        if num_inputs < 1 or num_targets < 1:
            raise UserError(f'num_inputs {num_inputs} and num_targets {num_targets} do not fit: give 1 or more each')
        self.num_inputs, self.num_targets = num_inputs, num_targets
        super().__init__(**kwargs)

    @property
    def num_frames(self) -> int:
        """Frames of a whole sequence."""
        return self.num_inputs + self.num_targets

    def read_frames(self, record: dict) -> np.ndarray:
        """The whole sequence of a record, (num_frames, H, W, C): uint8 0..255, or float in the scale of the network."""
        raise NotImplementedError

    def prepare_data(self, idx: int) -> dict:
        record = self.get_data_info(idx)
        frames = self.read_frames(record)
        scale = 255 if frames.dtype == np.uint8 else 1
        frames = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2), np.float32)) / scale
        sample = BaseDataElement(
            gt_frames=frames[self.num_inputs :], metainfo=dict(sample_idx=record['sample_idx'], **self.describe(record))
        )
        return dict(inputs=frames[: self.num_inputs], data_samples=sample)

    def describe(self, record: dict) -> dict:
        """Meta of a sequence's sample: ``name`` tells people which it is."""
        return dict(name=f'sequence {record["sample_idx"]}')


@DATASETS.register_module()
class SequenceFile(SequenceDataset):
    """The fixed sequences of a file like Moving MNIST's ``mnist_test_seq.npy``: uint8, frame axis first.

    Args:
        data_root: Folder of the file.
        file: Its name; (frames, N, H, W), or (frames, N, H, W, C) for colours.
        noise: None, or 'missing' or 'perceptual', see :func:`add_frame_noise`, on the input frames; the same at every
            reading.
        **kwargs: See :class:`SequenceDataset`.

    Raises:
        UserError: If the file is missing or broken, of another type, or has too few frames.
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
                f'{path} holds {self.sequences.dtype} of shape {self.sequences.shape}, not uint8 (frames, sequences, '
                'height, width) with or without channels: give the original file'
            )
        if len(self.sequences) < self.num_frames:
            raise UserError(
                f'{path} has {len(self.sequences)} frames a sequence, num_inputs and num_targets ask for '
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
    """Flow of taxis into and out of 32 x 32 cells of Beijing, every half hour: four frames to four.

    Args:
        data_root: Folder of ``dataset.npz``, whose arrays ``X_train``, ``Y_train``, ``X_test`` and ``Y_test``, each (N,
            4, 2, 32, 32), hold input and target in -1..1; used as 0..1.
        split: 'train' or 'test'.
        **kwargs: See :class:`SequenceDataset`.

    Raises:
        UserError: If the file is missing or broken, or lacks an array, or frames.
    """

    def __init__(self, data_root: str, split: str = 'train', num_inputs: int = 4, num_targets: int = 4, **kwargs):
        self.split = check_split(split)
        super().__init__(num_inputs, num_targets, data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        path = Path(self.data_root) / 'dataset.npz'
        if not path.is_file():
            raise UserError(f'{path} is missing: {DATA_HELP}')
        names = f'X_{self.split}', f'Y_{self.split}'
        try:
            with np.load(path, allow_pickle=False) as archive:
                inputs, targets = (archive[name].astype(np.float32) for name in names)
        except KeyError as error:
            raise UserError(f'{path} has no array {error.args[0].split()[0]}: give the original file') from None
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
            reason = ' '.join(str(error).split())[:100]
            raise UserError(f'{path} is truncated or no archive of arrays ({reason}): fetch it again') from None
        if inputs.ndim != 5 or inputs.shape[0] != targets.shape[0] or inputs.shape[2:] != targets.shape[2:]:
            raise UserError(
                f'{path}: {names[0]} {inputs.shape} and {names[1]} {targets.shape} do not fit each other: give the '
                'original file'
            )
        if inputs.shape[1] < self.num_inputs or targets.shape[1] < self.num_targets:
            raise UserError(
                f'{path} has {inputs.shape[1]} + {targets.shape[1]} frames a sequence, not {self.num_inputs} + '
                f'{self.num_targets}: lower num_inputs or num_targets'
            )
        self.frames = np.concatenate([inputs[:, -self.num_inputs :], targets[:, : self.num_targets]], axis=1)
        return [dict(index=index) for index in range(len(self.frames))]

    def read_frames(self, record):
        return (self.frames[record['index']].transpose(0, 2, 3, 1) + 1) / 2


def check_split(split: str) -> str:
    """``split`` if it is 'train' or 'test'; UserError if not."""
    if split not in ('train', 'test'):
        raise UserError(f'split {split!r} is unknown: choose from train, test')
    return split


def starts_from_end(length: int, num_frames: int, stride: int, is_whole: Callable[[int, int], bool]) -> list[int]:
    """First frames of the sequences that a row of frames is cut into, from its end.

    Args:
        length: Frames in the row.
        num_frames: Frames of a sequence.
        stride: Frames between the ends of two sequences.
        is_whole: Whether there is a sequence from a first frame to a last; where there is none, the frame before is
            tried for the last.

    Source: the KTH and KITTI loaders of OpenSTL.
    """
    starts, last = [], length - 1
    while last >= num_frames - 1:
        first = last - num_frames + 1
        fits = is_whole(first, last)
        starts += [first] if fits else []
        last -= stride if fits else 1
    return starts


def frame_number(path: Path) -> int:
    """The first number in the name of a frame's file, e.g. 12 of ``image-012_120x160.png``."""
    digits = re.search(r'\d+', path.stem)
    if digits is None:
        raise UserError(f'frame {path} has no number in its name: name frames by their number in the clip')
    return int(digits[0])


@DATASETS.register_module()
class FrameFolders(SequenceDataset):
    """Clips as folders of pictures, one picture a frame, whose names begin with or contain the frame's number.

    Args:
        data_root: Folder below which every folder with pictures is a clip.
        data_prefix: ``dict(img=...)``, a folder below ``data_root`` to take alone.
        size: (height, width) to which frames are resized.
        color_type: 'color' gives RGB, 'grayscale' the first channel of the file.
        stride: Frames between the starts of two sequences of a clip; None is a whole sequence.
        **kwargs: See :class:`SequenceDataset`.

    Raises:
        UserError: If there is no clip long enough, or when a picture cannot be read.
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
            raise UserError(f'data folder {root} is missing: {DATA_HELP}')
        clips: dict[Path, list[Path]] = {}
        for path in root.rglob('*'):
            if path.suffix.lower() in self.suffixes and self.takes(path.parent):
                clips.setdefault(path.parent, []).append(path)
        records = []
        for clip, frames in sorted(clips.items()):
            frames = sorted(frames, key=lambda path: (frame_number(path), path.name))
            numbers = [frame_number(path) for path in frames]
            records += [
                dict(frames=[str(path) for path in frames[start : start + self.num_frames]])
                for start in starts_from_end(
                    len(frames), self.num_frames, self.stride_of(clip), lambda a, b, n=numbers: n[b] - n[a] == b - a
                )
            ]
        if not records:
            raise UserError(
                f'{root} has no clip of {self.num_frames} consecutive frames in {len(clips)} folders of pictures: '
                f'{DATA_HELP}'
            )
        return records

    def read_frames(self, record):
        return np.stack([self._read_frame(path) for path in record['frames']])

    def _read_frame(self, path: str) -> np.ndarray:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) if Path(path).stat().st_size else None
        if image is None:
            raise UserError(f'picture {path} is broken: put it there anew, or take its clip out of the data set')
        if self.color_type == 'grayscale':
            image = image[..., 2:]  # OpenCV has red, the first channel, last
        image = cv2.resize(image, self.size[::-1])
        return image[..., None] if image.ndim == 2 else image[..., ::-1]

    def describe(self, record):
        return dict(name='/'.join(Path(record['frames'][0]).parts[-2:]))


@DATASETS.register_module()
class KTH(FrameFolders):
    """People walking, jogging, running, boxing, waving and clapping: ``ACTION/personNN_ACTION_dN/FRAME.png``.

    Persons 1 to 16 are for training, 17 to 25 for the test. Sequences of running and jogging, where a person is seen
    for a short time alone, start every 3 frames; those of the other actions follow each other.

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
        super().__init__(
            data_root, size, 'grayscale', num_inputs=num_inputs, num_targets=num_targets, **kwargs
        )  # fmt: skip

    def takes(self, clip):
        person = re.match(r'person(\d+)', clip.name)
        return person is not None and (int(person[1]) <= self.last_training_person) == (self.split == 'train')

    def stride_of(self, clip):
        is_overlapping = any(action in clip.name for action in self.overlapping_actions)
        return 3 if is_overlapping else super().stride_of(clip)


@DATASETS.register_module()
class KittiCaltech(SequenceDataset):
    """Drives: KITTI for training, Caltech Pedestrian for the test, 128 x 160 RGB; ten frames to one.

    Args:
        data_root: Folder of ``{train,test}_data.npy`` (N, 128, 160, 3), uint8 or 0..1, and ``{train,test}_idx.npy``,
            the first frames of the sequences; or, for training, of ``X_train.hkl`` and ``sources_train.hkl``, of which
            every whole sequence of one source is taken, from its end and without overlap.
        split: 'train' or 'test'.
        **kwargs: See :class:`SequenceDataset`.

    Raises:
        UserError: If the files are missing, broken, or do not fit each other.
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
                raise UserError(f'{hickle} has {len(self.frames)} frames but {len(sources)} sources: fetch both again')
            starts = starts_from_end(
                len(sources), self.num_frames, self.num_frames, lambda a, b: sources[a] == sources[b]
            )  # fmt: skip
        else:
            path = root / f'{self.split}_data.npy'
            self.frames = load_array(path, num_dims=4)
            starts = np.array(load_array(root / f'{self.split}_idx.npy', num_dims=1)).tolist()
            if starts and not 0 <= min(starts) <= max(starts) <= len(self.frames) - self.num_frames:
                raise UserError(
                    f'{path} has {len(self.frames)} frames, too few for sequences of {self.num_frames} that begin at '
                    f'{min(starts)} to {max(starts)} of {self.split}_idx.npy: lower num_targets, or fetch both again'
                )
        if not starts:
            raise UserError(f'{root} has no sequence of {self.num_frames} frames for the {self.split}: {DATA_HELP}')
        return [dict(start=int(start)) for start in starts]

    def read_frames(self, record):
        return np.array(self.frames[record['start'] : record['start'] + self.num_frames])


def read_hickle(path: str | Path) -> np.ndarray | list:
    """What a hickle file (``.hkl``) holds.

    Raises:
        UserError: If the file is missing or broken, or hickle is not installed.
    """
    return read_with_library(path, 'hickle', lambda hickle: hickle.load(str(path)))


def read_with_library(path: str | Path, library: str, read: Callable) -> object:
    """What ``read`` makes of a library that not everybody has.

    Args:
        path: The file that is read.
        library: Name of the module.
        read: Function of the imported module.

    Raises:
        UserError: If the file is missing or broken, or the library is not installed.
    """
    if not Path(path).is_file():
        raise UserError(f'{path} is missing: {DATA_HELP}')
    try:
        module = import_module(library)
    except ImportError:
        raise UserError(f'{path} needs the package {library}: run "pip install {library}"') from None
    try:
        return read(module)
    # Of a damaged file any error may come from these libraries.
    except Exception as error:
        reason = ' '.join(str(error).split())[:100]
        raise UserError(f'{path} is truncated or no file for {library} ({reason}): fetch it again') from error
