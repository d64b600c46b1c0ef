"""The file of the features of a run: pooled maps of the backbone, a row per record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np

from mogacore.files import open_atomic, write_json

from .journal import Done, Journal


class FeatureFile:
    """``features.npy`` (records, C) float32, and ``features.json`` with the ``names`` of the rows.

    Without features, neither is written.

    Args:
        out_dir: Output folder.
    """

    def __init__(self, out_dir: Path):
        self.out_dir = out_dir
        self.names: list[str] = []
        self._stack = ExitStack()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(self, *error) -> bool | None:
        if error[0] is None and self._file is not None:
            write_json(self.out_dir / 'features.json', {'names': self.names})
        return self._stack.__exit__(*error)

    def collect(self, entries: Iterable[Done], journal: Journal) -> Iterator[dict]:
        """The records of all inputs; their features are written on the way."""
        entries = list(entries)
        total = sum(entry.records for entry in entries)
        for entry in entries:
            for record, features in journal.read(entry):
                if features is not None:
                    self._add(record, features, total)
                yield record

    def _add(self, record: dict, features: np.ndarray, total: int) -> None:
        if self._file is None:
            self._file = self._stack.enter_context(open_atomic(self.out_dir / 'features.npy'))
            header = {'descr': '<f4', 'fortran_order': False, 'shape': (total, len(features))}
            np.lib.format.write_array_header_1_0(self._file, header)
        self._file.write(features.tobytes())
        frame = f', frame {record["frame"]}' if 'frame' in record else ''
        self.names.append(record.get('image') or f'{record["video"]}{frame}')
