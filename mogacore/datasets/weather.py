"""WeatherBench: gridded fields of the ERA5 reanalysis, from netCDF files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from mmengine.registry import DATASETS

from mogacore.errors import UserError

from .sequences import DATA_HELP, SequenceDataset, read_with_library

YEARS = (2010, 2015)  # first and last year of training
COORDINATES = ('lat', 'latitude', 'lon', 'longitude', 'time', 'level', 'plev')


@DATASETS.register_module()
class WeatherBench(SequenceDataset):
    """Gridded fields, thinned to every ``step``-th hour and normalized per channel with mean and standard deviation.

    ``mean`` and ``std`` in the metainfo convert back to physical units. The thinned fields are held in memory as
    float32: 70 MB per year and channel at 5.625 degrees and a step of 1. If other years give the statistics, these are
    read once more.

    As in the published loader, the last hour of the years is left out before thinning, and so is the last sequence that
    the remaining hours allow.

    Args:
        data_root: Folder with one subfolder per variable, which has one netCDF file per year with the year between
            underscores: ``2m_temperature/2m_temperature_2010_5.625deg.nc``.
        variables: Folder names of the variables. Each gives one channel, or one per level.
        levels: Pressure levels in hPa to select from variables with levels; None selects the last one.
        years: First and last year of this data set.
        train_years: First and last year used for the mean and standard deviation; None for ``years``.
        step: Hours between two fields of the thinned series.
        input_offsets: Positions of the input frames in the thinned series, ascending, relative to the newest one; None
            for the last ``num_inputs`` fields: -11 to 0.
        target_offsets: Positions of the frames to predict, relative to the newest input; None for the next
            ``num_targets`` fields: 1 to 12.
        num_inputs: Number of input frames without ``input_offsets``.
        num_targets: Number of frames to predict without ``target_offsets``.
        **kwargs: See :class:`mogacore.datasets.sequences.SequenceDataset`.

    Raises:
        UserError: If a setting is invalid, a file is missing or corrupt or lacks a level, or the grids of the years
            differ.

    Source: Rasp et al., WeatherBench, arXiv 2002.00469; the loader of OpenSTL.
    """

    def __init__(
        self,
        data_root: str,
        variables: Sequence[str],
        levels: Sequence[int] | None = None,
        years: tuple[int, int] = YEARS,
        train_years: tuple[int, int] | None = YEARS,
        step: int = 1,
        input_offsets: Sequence[int] | None = None,
        target_offsets: Sequence[int] | None = None,
        num_inputs: int = 12,
        num_targets: int = 12,
        **kwargs,
    ):
        self.years, self.train_years = (years[0], years[1]), train_years and (train_years[0], train_years[1])
        if any(span[0] > span[1] for span in (self.years, self.train_years) if span) or step < 1:
            raise UserError(
                f'years {self.years}, train_years {self.train_years} or step {step} is invalid: give first and last '
                'year in order, and a step of 1 or more'
            )
        inputs = range(1 - num_inputs, 1) if input_offsets is None else input_offsets
        targets = range(1, num_targets + 1) if target_offsets is None else target_offsets
        self.offsets = np.array([*inputs, *targets])
        is_given = input_offsets is not None or target_offsets is not None
        if is_given and ((np.diff(self.offsets) <= 0).any() or 0 not in list(inputs)[-1:] or not len(targets)):
            raise UserError(
                f'input_offsets {tuple(inputs)} and target_offsets {tuple(targets)} are invalid: give ascending '
                'numbers, 0 for the last input and 1 or more for the targets'
            )
        self.variables, self.levels = tuple(variables), None if levels is None else tuple(levels)
        self.step = step
        super().__init__(len(inputs), len(targets), data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        parts = list(thinned_years(self.data_root, self.variables, self.levels, self.years, self.step))
        if len({fields.shape[1:] for fields in parts}) > 1:
            raise UserError(f'{self.data_root}: the years {self.years} have different grids: use files with one grid')
        if self.train_years is None:
            mean, std = channel_statistics(parts)
        else:
            mean, std = statistics_of_years(self.data_root, self.variables, self.levels, self.train_years, self.step)
        if not (np.isfinite(mean) & np.isfinite(std)).all():
            raise UserError(
                f'{self.data_root}: a channel of {", ".join(self.variables)} has values that are not finite in '
                f'{self.train_years or self.years}: download the files again'
            )
        if not (std > 0).all():
            raise UserError(
                f'{self.data_root}: a channel of {", ".join(self.variables)} is constant in '
                f'{self.train_years or self.years}: download the files again'
            )
        self._metainfo.update(mean=mean.tolist(), std=std.tolist())
        self.fields = np.concatenate(parts)
        del parts
        self.fields -= mean.astype(np.float32)
        self.fields /= std.astype(np.float32)
        span = int(self.offsets[-1] - self.offsets[0]) + 1
        if len(self.fields) <= span:
            raise UserError(
                f'{self.data_root} has {len(self.fields)} fields in {self.years} at a step of {self.step} hours, but a '
                f'sequence spans {span} and one more is needed: use more years or fewer frames'
            )
        return [dict(newest=start - int(self.offsets[0])) for start in range(len(self.fields) - span)]

    def read_frames(self, record):
        return self.fields[record['newest'] + self.offsets]

    def describe(self, record):
        return dict(name=f'hour {record["newest"] * self.step} of {self.years[0]}')


def thinned_years(
    data_root: str, variables: Sequence[str], levels: Sequence[int] | None, years: tuple[int, int], step: int
) -> Iterator[np.ndarray]:
    """Every ``step``-th field of consecutive years without their last hour, (hours, H, W, C) float32 year by year.

    Raises:
        UserError: See :class:`WeatherBench`.
    """
    num_hours = 0
    for year in range(years[0], years[1] + 1):
        fields = read_year(data_root, variables, levels, year)
        if year == years[1]:
            fields = fields[:-1]
        # A copy releases the memory of the fields between.
        yield fields[-num_hours % step :: step].copy()
        num_hours += len(fields)


@lru_cache(maxsize=4)
def statistics_of_years(
    data_root: str, variables: tuple[str, ...], levels: tuple[int, ...] | None, years: tuple[int, int], step: int
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`channel_statistics` of years, with only one year in memory at a time."""
    return channel_statistics(thinned_years(data_root, variables, levels, years, step))


def channel_statistics(parts: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel over hours and grid, (C,) float64 each.

    Args:
        parts: Fields (hours, H, W, C) in physical units.
    """
    count, total, squares = 0, np.zeros(()), np.zeros(())
    shift: np.ndarray | None = None
    for part in parts:
        fields = part.astype(np.float64)
        if shift is None:
            shift = fields[0].mean((0, 1))  # limits cancellation in the sum of squares
        fields -= shift
        count += fields[..., 0].size
        total = total + fields.sum((0, 1, 2))
        squares = squares + (fields**2).sum((0, 1, 2))
    assert shift is not None
    mean = total / count
    return shift + mean, np.sqrt(squares / count - mean**2)


def read_year(data_root: str, variables: Sequence[str], levels: Sequence[int] | None, year: int) -> np.ndarray:
    """Fields of a year, (hours, H, W, C) float32 in physical units; channels in the order of the variables.

    Raises:
        UserError: See :class:`WeatherBench`.
    """
    fields: list[np.ndarray] = []
    for variable in variables:
        path = find_year(data_root, variable, year)
        fields.append(read_field(path, levels))
        if fields[-1].shape[:3] != fields[0].shape[:3]:
            raise UserError(
                f'{path} has (hours, height, width) {fields[-1].shape[:3]}, but {variables[0]} has '
                f'{fields[0].shape[:3]}: use files with one grid'
            )
    return np.concatenate(fields, axis=-1)


def find_year(data_root: str, variable: str, year: int) -> Path:
    """The file of a variable and year.

    Raises:
        UserError: If there is none, or several.
    """
    folder = Path(data_root) / variable
    files = sorted(path for path in folder.glob(f'*_{year}_*.nc') if path.is_file())
    if len(files) == 1:
        return files[0]
    pattern = f'{folder}/{variable}_{year}_*.nc'
    if files:
        raise UserError(f'{len(files)} files match {pattern}: keep one of them')
    raise UserError(f'{pattern} not found: {DATA_HELP}')


def read_field(path: Path, levels: Sequence[int] | None) -> np.ndarray:
    """The only field of a netCDF file, (hours, H, W, number of levels) float32.

    Args:
        path: netCDF file, version 4 (read by netCDF4) or classic (read by scipy).
        levels: See :class:`WeatherBench`; ignored for variables without levels.

    Raises:
        UserError: If the file is corrupt or lacks a level, or its reader is not installed.
    """
    with path.open('rb') as file:
        is_classic = file.read(3) == b'CDF'
    library, read = ('scipy', _read_classic) if is_classic else ('netCDF4', _read_netcdf4)
    variables: dict[str, np.ndarray] = read_with_library(path, library, lambda _: read(path))
    names = [name for name, field in variables.items() if name not in COORDINATES and field.ndim in (3, 4)]
    if len(names) != 1:
        raise UserError(
            f'{path} has {len(names)} time-dependent fields ({", ".join(names)}), not one: use the original file'
        )
    field = np.asarray(variables[names[0]], np.float32)
    if not field.size:
        raise UserError(f'{path} has no values, its shape is {field.shape}: download it again')
    if field.ndim == 3:
        return field[..., None]
    if levels is None:
        return field[:, -1, ..., None]
    file_levels = np.asarray(variables.get('level', variables.get('plev', ()))).tolist()
    lacking = [level for level in levels if level not in file_levels]
    if lacking:
        raise UserError(f'{path} has no level {lacking[0]} hPa: choose from {", ".join(f"{v:g}" for v in file_levels)}')
    return np.moveaxis(field[:, [file_levels.index(level) for level in levels]], 1, -1)


def _read_classic(path: Path) -> dict[str, np.ndarray]:
    from scipy.io import netcdf_file

    with netcdf_file(str(path), mmap=False, maskandscale=True) as file:
        return {name: np.array(variable[:]) for name, variable in file.variables.items()}


def _read_netcdf4(path: Path) -> dict[str, np.ndarray]:
    from netCDF4 import Dataset

    with Dataset(path) as file:
        return {name: np.array(variable[:]) for name, variable in file.variables.items()}
