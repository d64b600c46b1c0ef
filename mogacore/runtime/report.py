"""The file ``predictions.json``: written a record at a time, and read in the same way."""

from __future__ import annotations

import json
import os
import re
import weakref
from array import array
from collections.abc import Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np

from mogacore.files import make_folder, open_atomic

FILE = 'predictions.json'
EMPTY = '\n  "predictions": []'


class Records(Sequence):
    """The records of a report, each read from the file when it is used.

    They stay readable if the file is replaced.

    Args:
        path: The report.
        spans: (N, 2) int64, the first byte of each record and the one after its last.
    """

    def __init__(self, path: str | Path, spans: np.ndarray):
        self._path, self._spans = path, spans
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        start, stop = self._spans[number].tolist()
        return json.loads(os.pread(self._descriptor, stop - start, start))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(own == theirs for own, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self)} records of {self._path})'

    def subset(self, numbers: Sequence[int]) -> Records:
        """The records with these numbers."""
        return Records(self._path, self._spans[np.asarray(numbers, int)])


def write_report(out_dir: str | Path, report: dict[str, Any]) -> Records:
    """Write ``predictions.json`` with each list of numbers on one line.

    Args:
        out_dir: Folder of the file.
        report: Its fields. ``predictions`` may be any iterable of records, of which one is in memory at a time.

    Returns:
        The records of the file.
    """
    path = make_folder(out_dir) / FILE
    before, empty, after = _to_text({**report, 'predictions': []}).partition(EMPTY)
    spans = array('q')
    with open_atomic(path) as file:
        file.write((before + empty[:-1]).encode())
        for record in report['predictions']:
            file.write(b',\n' if spans else b'\n')
            text = indent(_to_text(record), '    ').encode()
            spans.extend((file.tell(), file.tell() + len(text)))
            file.write(text)
        file.write(((f'\n  {empty[-1]}' if spans else empty[-1]) + after + '\n').encode())
    return Records(path, np.array(spans, np.int64).reshape(-1, 2))


def _to_text(value: Any) -> str:
    return re.sub(
        r'\[\n([\s\d.eE,+-]+)\]', lambda match: f'[{" ".join(match[1].split())}]', json.dumps(value, indent=2)
    )
