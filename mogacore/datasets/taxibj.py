"""TaxiBJ: taxi flow on a grid of Beijing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DATASETS

from mogacore.errors import UserError

from .arrays import NUMBERS
from .sequences import DATA_HELP, SequenceDataset, check_split

MAX_BYTES = 4 << 30  # of an array; the original ones have 0.6 GB


@DATASETS.register_module()
class TaxiBJ(SequenceDataset):
    """Taxi flow into and out of 32 x 32 cells of Beijing, every half hour: four input frames, four target frames.

    Args:
        data_root: Folder of ``dataset.npz`` with inputs ``X_train`` and ``X_test`` and targets ``Y_train`` and
            ``Y_test``, each (N, 4, 2, 32, 32), in -1..1. Items are scaled to 0..1.
        split: 'train' or 'test'.
        **kwargs: See :class:`mogacore.datasets.sequences.SequenceDataset`.

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
                arrays = {name: self._read(archive, name) for name in names if name in archive}
        except UserError as error:
            raise UserError(f'{path}: {error}') from None
        # numpy and zlib raise errors of many types for a damaged file.
        except Exception as error:
            reason = ' '.join(str(error).split())[:100] or type(error).__name__
            raise UserError(f'{path} is truncated or not a .npz file ({reason}): download it again') from None
        if missing := [name for name in names if name not in arrays]:
            raise UserError(f'{path} has no array {missing[0]}: use the original file')
        inputs, targets = arrays.values()
        shapes = [array.shape[:1] + array.shape[2:] for array in (inputs, targets)]
        if inputs.ndim != 5 or targets.ndim != 5 or shapes[0] != shapes[1]:
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

    def _read(self, archive: Any, name: str) -> np.ndarray:
        size = {member.filename: member.file_size for member in archive.zip.infolist()}.get(f'{name}.npy', 0)
        if size > MAX_BYTES:  # a few megabytes may expand to any size
            raise UserError(f'array {name} has {size:,} bytes, more than {MAX_BYTES:,}: use the original file')
        array = archive[name]
        if array.dtype.kind not in NUMBERS:
            raise UserError(f'array {name} contains {array.dtype}, not numbers: use the original file')
        return array.astype(np.float32)

    def read_frames(self, record):
        return (self.frames[record['index']].transpose(0, 2, 3, 1) + 1) / 2
