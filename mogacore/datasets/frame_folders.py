"""Clips as folders of images, one image per frame: KTH, Human3.6M and any other videos."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from mmengine.registry import DATASETS

from mogacore import images
from mogacore.errors import UserError
from mogacore.runtime.videos import frame_number

from .checks.common import read_lines
from .sequences import DATA_HELP, SequenceDataset, check_split, starts_from_end

INTERPOLATIONS = {
    'nearest': cv2.INTER_NEAREST,
    'bilinear': cv2.INTER_LINEAR,
    'bicubic': cv2.INTER_CUBIC,
    'area': cv2.INTER_AREA,
    'lanczos': cv2.INTER_LANCZOS4,
}


@DATASETS.register_module()
class FrameFolders(SequenceDataset):
    """Clips as folders of images, one image per frame, with the frame number in the file name.

    Without ``ann_file``, every folder with images is a clip, cut from its end into sequences. With ``ann_file``, a text
    file below ``data_root``, each line ``PREFIX,FIRST`` is a sequence: its frames are the images
    ``PREFIX000FIRST.jpg`` below ``data_root``, with a number of six digits that starts at FIRST. Further columns are
    ignored.

    Args:
        data_root: Folder below which the clips are.
        data_prefix: ``dict(img=...)``, a folder below ``data_root`` to which the search for clips is restricted.
        size: (height, width) to which frames are resized.
        color_type: 'color' for three channels, 'grayscale' for the first channel of the file.
        stride: Frames between the starts of two sequences of a clip; None for the length of a sequence. It has no
            effect with ``ann_file``.
        frame_step: Every ``frame_step``-th frame of a clip belongs to a sequence.
        interpolation: Method of resizing, one of 'nearest', 'bilinear', 'bicubic', 'area', 'lanczos'.
        channel_order: 'rgb' or 'bgr', the order of the channels with ``color_type='color'``. The metainfo has it, so
            that frames are drawn in true colors.
        ann_file: List of sequences; '' to cut every clip.
        **kwargs: See :class:`mogacore.datasets.sequences.SequenceDataset`.

    Raises:
        UserError: If a setting is unknown, no clip is long enough, the list is malformed, or an image is missing or
            cannot be read.
    """

    suffixes = ('.png', '.jpg', '.jpeg', '.bmp')
    listed_name = '{prefix}{number:06}.jpg'

    def __init__(
        self,
        data_root: str,
        size: tuple[int, int],
        color_type: str = 'color',
        stride: int | None = None,
        frame_step: int = 1,
        interpolation: str = 'bilinear',
        channel_order: str = 'rgb',
        **kwargs,
    ):
        for name, value, allowed in (
            ('color_type', color_type, ('color', 'grayscale')),
            ('interpolation', interpolation, INTERPOLATIONS),
            ('channel_order', channel_order, ('rgb', 'bgr')),
        ):
            if value not in allowed:
                raise UserError(f'{name} {value!r} is unknown: choose from {", ".join(allowed)}')
        if not isinstance(size, Sequence) or len(size) != 2 or any(not isinstance(n, int) or n < 1 for n in size):
            raise UserError(f'size is {size!r}: use (height, width) in pixels')
        if frame_step < 1:
            raise UserError(f'frame_step is {frame_step}: use 1 or more')
        self.size, self.color_type, self.stride, self.frame_step = tuple(size), color_type, stride, frame_step
        self.interpolation, self.channel_order = INTERPOLATIONS[interpolation], channel_order
        super().__init__(data_root=data_root, **{'data_prefix': dict(img=''), **kwargs})
        self._metainfo['channel_order'] = channel_order

    @property
    def num_spanned(self) -> int:
        """Number of frames of the clip from the first to the last frame of a sequence."""
        return (self.num_frames - 1) * self.frame_step + 1

    def takes(self, clip: Path) -> bool:
        """Whether a clip's folder belongs to this data set."""
        return True

    def stride_of(self, clip: Path) -> int:
        """Frames between the ends of two sequences of a clip."""
        return self.stride or self.num_spanned

    def load_data_list(self) -> list[dict]:
        return self._listed_sequences() if self.ann_file else self._cut_clips()

    def _listed_sequences(self) -> list[dict]:
        path = Path(self.ann_file)
        if not path.is_file():
            raise UserError(f'list of sequences {path} not found: {DATA_HELP}')
        records = []
        for number, line in enumerate(read_lines(path), 1):
            if not line.strip():
                continue
            prefix, first = (part.strip() for part in [*line.split(','), ''][:2])
            if not prefix or not first.isdecimal():
                raise UserError(f'{path}, line {number}: {line[:60]!r} is not PREFIX,FIRST: use the original file')
            numbers = range(int(first), int(first) + self.num_spanned, self.frame_step)
            names = [self.listed_name.format(prefix=prefix, number=number) for number in numbers]
            records.append(dict(frames=[str(Path(self.data_root) / name) for name in names]))
        if not records:
            raise UserError(f'{path} is empty: use the original file')
        return records

    def _cut_clips(self) -> list[dict]:
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
            for start in starts_from_end(len(frames), self.num_spanned, self.stride_of(clip), is_valid):
                taken = frames[start : start + self.num_spanned : self.frame_step]
                records.append(dict(frames=[str(path) for path in taken]))
        if not records:
            raise UserError(
                f'{root} has no clip of {self.num_spanned} consecutive frames in {len(clips)} folders of images: '
                f'{DATA_HELP}'
            )
        return records

    def read_frames(self, record):
        return np.stack([self._read_frame(Path(path)) for path in record['frames']])

    def _read_frame(self, path: Path) -> np.ndarray:
        if not path.is_file():
            raise UserError(f'image {path} not found: {DATA_HELP}')
        image = images.read(path)
        if image is None:
            raise UserError(f'image {path} is corrupt: replace it, or remove its clip from the data set')
        if self.color_type == 'grayscale':
            image = image[..., 2:]  # OpenCV stores red, the first channel, last
        image = cv2.resize(image, self.size[::-1], interpolation=self.interpolation)
        if image.ndim == 2:
            return image[..., None]
        return image if self.channel_order == 'bgr' else image[..., ::-1]

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
        kwargs = {'color_type': 'grayscale', **kwargs}
        super().__init__(data_root, size, num_inputs=num_inputs, num_targets=num_targets, **kwargs)

    def takes(self, clip):
        person = re.match(r'person(\d+)', clip.name)
        return person is not None and (int(person[1]) <= self.last_training_person) == (self.split == 'train')

    def stride_of(self, clip):
        is_overlapping = any(action in clip.name for action in self.overlapping_actions)
        return 3 if is_overlapping else super().stride_of(clip)
