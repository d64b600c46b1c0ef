"""Check of frame sequences, the data sets of video prediction."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from mmengine.registry import DATASETS

from mogacore.datasets.sequences import SequenceDataset
from mogacore.datasets.weather import YEARS, find_year
from mogacore.errors import UserError
from mogacore.text import type_name

from .common import times
from .report import Expected, Faults, Problems, Sample


def check_sequences(dataset: Mapping, expected: Expected, sample: Sample, problems: Problems) -> None:
    """Check a data set of sequences: files, lengths, and the size, channels, and values of the frames.

    WeatherBench, which normalizes its values and takes minutes to read, is only checked for missing files.
    """
    if type_name(dataset['type']) == 'WeatherBench':
        _check_weather(dataset)
        return
    data = DATASETS.build(dict(dataset, lazy_init=False, serialize_data=False))
    with problems.collect():
        _check_lengths(data, expected)
    if not len(data):
        raise UserError(
            f'{dataset.get("data_root")} has no sequences: add some, or correct the settings of the data set'
        )
    faults, frames = Faults(), _Frames(expected)
    records = list(range(len(data)))
    for index in sample.of(records[:1] if data.is_generated else records):
        record = data.get_data_info(index)
        name = data.describe(record)['name']
        try:
            frames.check(
                f'{name} of {dataset.get("data_root") or data.__class__.__name__}',
                data.read_frames(record),
                index,
                faults,
            )
        except UserError as error:
            faults.add('unreadable', index, str(error))
    faults.report(problems)
    if not faults.counts and frames.highest == 1:
        problems.add(
            f'frames of {dataset.get("data_root")} are uint8 with values up to 1, so that all are almost black: store '
            'values of 0 to 255'
        )


def _check_weather(dataset: Mapping) -> None:
    for years in (dataset.get('years', YEARS), dataset.get('train_years', YEARS)):
        for year in range(years[0], years[1] + 1) if years else ():
            for variable in dataset['variables']:
                find_year(dataset['data_root'], variable, year)


def _check_lengths(data: SequenceDataset, expected: Expected) -> None:
    if expected.num_frames is None:
        return
    num_inputs, num_targets = expected.num_frames
    if data.num_inputs != num_inputs:
        raise UserError(
            f'num_inputs of the data set is {data.num_inputs}, but model.num_frames={num_inputs}: set both '
            'to the number of input frames'
        )
    if data.num_targets != num_targets:
        raise UserError(
            f'num_targets of the data set is {data.num_targets}, but the model predicts {num_targets} frames: set '
            f'model.num_targets={data.num_targets}, or change the data set'
        )


class _Frames:
    """The frames of a data set: all must have one size, which the network accepts, its channels, and values in 0..1."""

    def __init__(self, expected: Expected):
        self.channels, self.divisor = expected.in_channels, expected.size_divisor
        self.first: tuple[str, tuple[int, int]] | None = None
        self.highest: int | None = None

    def check(self, name: str, frames: np.ndarray, index: int, faults: Faults) -> None:
        height, width, channels = frames.shape[1:]
        size = times((height, width))
        if self.first is None:
            self.first = name, (height, width)
        if self.channels is not None and channels != self.channels:
            remedy = f'set model.in_channels={channels}, or convert the frames'
            faults.add(
                'channels', index, f'{name} has {channels} channels, but model.in_channels={self.channels}: {remedy}'
            )
        elif not frames.size or height % self.divisor or width % self.divisor:
            problem = f'frames of {name} are {size} px (height x width), but the network needs multiples of'
            faults.add('divisor', index, f'{problem} {self.divisor}: resize or crop them')
        elif (height, width) != self.first[1]:
            problem = f'frames of {name} are {size} px (height x width), but those of {self.first[0]}'
            faults.add('size', index, f'{problem} {times(self.first[1])}: resize all to one size')
        if not frames.size:
            return
        if frames.dtype == np.uint8:
            self.highest = max(self.highest or 0, int(frames.max(initial=0)))
            return
        low, high = float(frames.min()), float(frames.max())
        if not np.isfinite([low, high]).all():
            faults.add('finite', index, f'{name} has values that are not finite: replace them, or remove the sequence')
        elif low < 0 or high > 1:
            problem = f'{name} has values of {low:g} to {high:g} in network scale, which must be 0 to 1'
            faults.add('values', index, f'{problem}: store uint8, or scale them as the data set documents')
