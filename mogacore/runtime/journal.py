"""The journal of a run: what is predicted so far, so that a stopped run can be resumed."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from mogacore.errors import UserError
from mogacore.files import PARTIAL_SUFFIX, make_folder, write_json

FOLDER = 'unfinished'


@dataclass(frozen=True)
class Team:
    """The processes that share the inputs of a run.

    Args:
        rank: Number of this process.
        size: Number of processes.
        wait: Waits until all processes have called it.
    """

    rank: int = 0
    size: int = 1
    wait: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Run:
    """How a run is shared and resumed.

    Args:
        settings: All that the results depend on besides the inputs, as JSON values, by the name that a user knows.
        resume: Continue a stopped run in the output folder; without one, start.
        team: The processes that share the inputs.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    team: Team = field(default_factory=Team)


@dataclass(frozen=True, slots=True)
class Done:
    """An input that is done.

    Args:
        input: Its path.
        name: Its output name.
        stamp: Size and time of the last change of the file, see :func:`stamp`.
        records: Number of its records; 0 if it cannot be read.
        truncated: Its entry in the list of truncated videos.
        part: File with its records.
        start: Position of the first of them.
    """

    input: str
    name: str
    stamp: list[int] | None
    records: int
    truncated: dict | None
    part: Path
    start: int


def stamp(path: Path) -> list[int] | None:
    """Size and time of the last change of a file; None if it does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


class Journal:
    """The journal in the folder ``unfinished`` of an output folder.

    It has a file per process and start. Each line is JSON: a list with a record of the next input, or a dict that says
    that this input is done. Lines after the last dict, of an input that was interrupted, have no effect.

    Args:
        out_dir: Output folder.
        run: What the run depends on; every process of its team must create a journal.

    Raises:
        UserError: If the folder has a stopped run that is not to be resumed, or has other settings.
    """

    def __init__(self, out_dir: Path, run: Run):
        self.folder, self.team = out_dir / FOLDER, run.team
        settings = json.loads(json.dumps(run.settings))
        has_done = bool(self.done())
        if has_done:
            self._check(out_dir, settings, run.resume)
        self.team.wait()
        if self.team.rank == 0:
            if not has_done:
                self.remove()
            write_json(make_folder(self.folder) / 'settings.json', settings)
            for partial in out_dir.rglob(f'*{PARTIAL_SUFFIX}'):  # of a process that was killed
                partial.unlink(missing_ok=True)
        self.team.wait()
        self.known = self.done()
        starts = [int(part.name.split('-')[1]) for part in self._parts()]
        path = self.folder / f'part-{max(starts, default=0) + 1:05}-{self.team.rank:05}.jsonl'
        self.team.wait()
        self._file: IO[bytes] = path.open('wb')

    def _check(self, out_dir: Path, settings: dict, resume: bool) -> None:
        remedy = f'choose another --out-dir, or remove {self.folder} to start again'
        if not resume:
            raise UserError(f'--out-dir {out_dir} has a run that was stopped: resume it with --resume, {remedy}')
        try:
            before = json.loads((self.folder / 'settings.json').read_text())
        except (OSError, ValueError):
            before = {}
        differing = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
        if differing:
            raise UserError(
                f'--out-dir {out_dir} has a run that was stopped, with another {", ".join(differing)}: resume it with '
                f'the same, {remedy}'
            )

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob('part-*.jsonl'))

    def done(self) -> dict[str, Done]:
        """The inputs that are done, by path; the latest entry of each."""
        return {entry.input: entry for part in self._parts() for entry in _read_part(part)}

    def has(self, path: Path, name: str) -> bool:
        """Whether an input was done at the start, with this output name, and has not changed since."""
        entry = self.known.get(str(path))
        return entry is not None and (entry.name, entry.stamp) == (name, stamp(path))

    def add(self, record: dict, features: np.ndarray | None = None) -> None:
        """Add a record of the input that is predicted, and its features (C,) float32."""
        encoded = [] if features is None else [base64.b64encode(features.astype('<f4').tobytes()).decode()]
        self._write([record, *encoded])

    def finish(
        self, path: Path, name: str, before: list[int] | None, records: int, truncated: dict | None = None
    ) -> None:
        """Mark an input as done.

        Args:
            path: The input.
            name: Its output name.
            before: Its :func:`stamp` before it was read.
            records: Number of records that were added for it; 0 for an unreadable one.
            truncated: Its entry in the list of truncated videos.
        """
        entry = {'input': str(path), 'name': name, 'stamp': before, 'records': records, 'truncated': truncated}
        self._write(entry)
        self._file.flush()

    def _write(self, entry: list | dict) -> None:
        self._file.write(json.dumps(entry, separators=(',', ':')).encode() + b'\n')

    def read(self, entry: Done) -> Iterator[tuple[dict, np.ndarray | None]]:
        """The records of an input, and their features."""
        with entry.part.open('rb') as file:
            file.seek(entry.start)
            for _ in range(entry.records):
                record, *encoded = json.loads(file.readline())
                yield record, np.frombuffer(base64.b64decode(encoded[0]), '<f4') if encoded else None

    def close(self) -> None:
        """Close the file of this process; without an input that is done, remove the journal."""
        self._file.close()
        if self.team.size == 1 and not self.done():
            self.remove()

    def remove(self) -> None:
        """Remove the journal."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _read_part(path: Path) -> Iterator[Done]:
    """The inputs that are done according to a file, up to the first line that is not intact."""
    start = position = 0
    with path.open('rb') as file:
        for line in file:
            position += len(line)
            try:
                entry = json.loads(line) if line.endswith(b'\n') else None
            except ValueError:
                return
            if isinstance(entry, dict):
                yield Done(**entry, part=path, start=start)
                start = position
            elif not isinstance(entry, list):
                return
