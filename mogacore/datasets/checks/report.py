"""What the checks of every kind of data share: what a model expects, how long to look, and what was found."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mogacore.errors import UserError, one_line
from mogacore.text import type_name

MAX_REPORTED = 10
MIN_SAMPLE = 100  # files that are read even if the time is over
# Parts of a model whose num_classes does not count the classes of the data.
OTHER_PARTS = ('backbone', 'data_preprocessor', 'rpn_head', 'semantic_head')


@dataclass(frozen=True)
class Expected:
    """What a model expects of its data.

    Args:
        num_classes: Path of every head or other part in the config to its number of classes.
        num_keypoints: Number of keypoints of the pose head.
        in_channels: Number of channels of the images.
        num_frames: Numbers of input frames and of predicted frames of a video predictor.
        size_divisor: Number whose multiples the height and width of frames must be.
        builtin_classes: Class names of the data set's type, used where its config has no ``metainfo.classes``.
        labels_from: Where the labels of class folders come from, if not from the folders of this data set.
        for_training: The data are the training set.
        may_be_empty: Annotations may be absent: other data sets are read together with this one, or nothing is scored.
    """

    num_classes: Mapping[str, int] = field(default_factory=dict)
    num_keypoints: int | None = None
    in_channels: int | None = None
    num_frames: tuple[int, int] | None = None
    size_divisor: int = 1
    builtin_classes: Sequence[str] | None = None
    labels_from: str | None = None
    for_training: bool = False
    may_be_empty: bool = False

    @classmethod
    def of(cls, model: Mapping) -> Expected:
        """Read it from the config of a model."""
        model = model.get('module', model)  # of a wrapper for test-time augmentation
        if type_name(model.get('type')) == 'SimVP':
            num_inputs = model.get('num_frames', 10)
            num_targets = model.get('num_targets') or num_inputs
            divisor = 2 ** (model.get('spatial_depth', 4) // 2)
            return cls({}, None, model.get('in_channels', 1), (num_inputs, num_targets), divisor)
        counts = dict(_find_counts(model, 'model'))
        backbone = model.get('backbone') or {}
        channels = backbone.get('in_channels', 3 if backbone.get('type') == 'MogaNet' else None)
        head = model.get('head') or {}
        num_keypoints = head.get('out_channels') if isinstance(head, Mapping) else None
        return cls(counts, num_keypoints, channels if isinstance(channels, int) else None)


def _find_counts(part: Any, path: str) -> Iterator[tuple[str, int]]:
    if isinstance(part, Mapping):
        if isinstance(part.get('num_classes'), int):
            yield path, part['num_classes']
        for key, value in part.items():
            if key not in OTHER_PARTS:
                yield from _find_counts(value, f'{path}.{key}')
    elif isinstance(part, list | tuple):
        for index, value in enumerate(part):
            yield from _find_counts(value, f'{path}.{index}')


class Problems(list[str]):
    """The lines of the problems found in one or more data sets."""

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Add the line of a UserError that is raised inside."""
        try:
            yield
        except UserError as error:
            self.add(str(error))

    def add(self, line: str) -> None:
        line = one_line(line)
        if line not in self:  # the validation and test data are often the same
            self.append(line)

    def refuse(self) -> None:
        """Raise a UserError with up to ten of the problems in one line, if there are any."""
        if self:
            more = f'; and {len(self) - MAX_REPORTED} more problems' if len(self) > MAX_REPORTED else ''
            raise UserError('; '.join(self[:MAX_REPORTED]) + more)


class Sample:
    """Chooses the files to read: evenly spread ones first, and more until the time is over.

    Args:
        seconds: Time from now on, which reading the annotations uses too; infinity for all files.
    """

    def __init__(self, seconds: float = math.inf):
        self.end = time.monotonic() + seconds

    def of(self, items: Sequence) -> Iterator:
        """Yield items of a sequence, each once."""
        for count, index in enumerate(_spread_order(len(items))):
            if count >= MIN_SAMPLE and time.monotonic() > self.end:
                return
            yield items[index]


def _spread_order(number: int) -> Iterator[int]:
    """All of 0 to ``number - 1``, counted with reversed bits, so that any first few of them are evenly spread."""
    num_bits = max(1, (number - 1).bit_length())
    for count in range(1 << num_bits):
        index = int(f'{count:0{num_bits}b}'[::-1], 2)
        if index < number:
            yield index


class Faults:
    """Faults of single files, grouped by kind: each kind becomes one line that names the first file."""

    def __init__(self) -> None:
        self.first: dict[str, tuple[Any, str]] = {}
        self.counts: dict[str, int] = {}

    def add(self, kind: str, key: Any, line: str) -> None:
        """Add a fault of the file with sort key ``key``."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if kind not in self.first or key < self.first[kind][0]:
            self.first[kind] = key, line

    def report(self, problems: Problems) -> None:
        for kind, (_, line) in self.first.items():
            others = self.counts[kind] - 1
            problems.add(line + (f' ({others} more such {"files" if others > 1 else "file"})' if others else ''))
