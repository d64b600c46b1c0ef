"""KITTI and Caltech Pedestrian: driving videos as arrays of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mmengine.registry import DATASETS

from mogacore.errors import UserError

from .sequences import DATA_HELP, SequenceDataset, check_split, load_array, read_with_library, starts_from_end


@DATASETS.register_module()
class KittiCaltech(SequenceDataset):
    """Driving videos: KITTI for training, Caltech Pedestrian for testing, 128 x 160 RGB; ten input frames, one target.

    Args:
        data_root: Folder with ``{train,test}_data.npy`` (N, 128, 160, 3), uint8 or 0..1, and ``{train,test}_idx.npy``,
            the indices of the first frames of the sequences; or, for training, with ``X_train.hkl`` and
            ``sources_train.hkl``, where each source is cut from its end into sequences without overlap.
        split: 'train' or 'test'.
        **kwargs: See :class:`mogacore.datasets.sequences.SequenceDataset`.

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
            starts = np.array(load_array(root / f'{self.split}_idx.npy', num_dims=1, kinds='iu')).tolist()
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
