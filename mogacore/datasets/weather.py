"""WeatherBench: hourly gridded fields of the ERA5 reanalysis, from netCDF files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from mmengine.registry import DATASETS

from mogacore.errors import UserError

from .sequences import DATA_HELP, SequenceDataset, read_with_library

COORDINATES = ('lat', 'latitude', 'lon', 'longitude', 'time', 'level', 'plev')


@DATASETS.register_module()
class WeatherBench(SequenceDataset):
    """Hourly fields, normalized per channel with the mean and standard deviation of the training years.

    ``mean`` and ``std`` in the metainfo convert back to physical units. All years are held in memory as float32: 70 MB
    per year and channel at 5.625 degrees. The training years are read once for the statistics, also in a test run.

    Args:
        data_root: Folder with one subfolder per variable, which has one netCDF file per year with the year between
            underscores: ``2m_temperature/2m_temperature_2010_5.625deg.nc``.
        variables: Folder names of the variables. Each gives one channel, or one per level.
        levels: Pressure levels in hPa to select from variables with levels; None selects the last one.
        years: First and last year of this data set.
        train_years: First and last year used for the mean and standard deviation.
        step: Hours between two frames of a sequence.
        **kwargs: See :class:`mogacore.datasets.sequences.SequenceDataset`.

    Raises:
        UserError: If a file is missing or corrupt or lacks a level, or the grids of the years differ.

    Source: Rasp et al., WeatherBench, arXiv 2002.00469; years and normalization as in OpenSTL.
    """

    def __init__(
        self,
        data_root: str,
        variables: Sequence[str],
        levels: Sequence[int] | None = None,
        years: tuple[int, int] = (2010, 2015),
        train_years: tuple[int, int] = (2010, 2015),
        step: int = 1,
        num_inputs: int = 12,
        num_targets: int = 12,
        **kwargs,
    ):
        if years[0] > years[1] or train_years[0] > train_years[1] or step < 1:
            raise UserError(
                f'years {tuple(years)}, train_years {tuple(train_years)} or step {step} is invalid: give first and '
                'last year in order, and a step of 1 or more'
            )
        self.variables, self.levels = tuple(variables), None if levels is None else tuple(levels)
        self.years, self.train_years, self.step = (years[0], years[1]), (train_years[0], train_years[1]), step
        super().__init__(num_inputs, num_targets, data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        mean, std = channel_statistics(self.data_root, self.variables, self.levels, self.train_years)
        self._metainfo.update(mean=mean.tolist(), std=std.tolist())
        years = [read_year(self.data_root, self.variables, self.levels, year) for year in _span(self.years)]
        if len({fields.shape[1:] for fields in years}) > 1:
            raise UserError(f'{self.data_root}: the years {self.years} have different grids: use files with one grid')
        self.fields = np.concatenate(years)
        self.fields -= mean.astype(np.float32)
        self.fields /= std.astype(np.float32)
        span = (self.num_frames - 1) * self.step
        if len(self.fields) <= span:
            raise UserError(
                f'{self.data_root} has {len(self.fields)} hours in {self.years}, but a sequence spans {span + 1}: '
                'use more years or fewer frames'
            )
        return [dict(start=start) for start in range(len(self.fields) - span)]

    def read_frames(self, record):
        return self.fields[record['start'] :: self.step][: self.num_frames]

    def describe(self, record):
        return dict(name=f'hour {record["start"]} of {self.years[0]}')


def _span(years: tuple[int, int]) -> range:
    return range(years[0], years[1] + 1)


@lru_cache(maxsize=4)
def channel_statistics(
    data_root: str, variables: tuple[str, ...], levels: tuple[int, ...] | None, years: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel over hours and grid, (C,) float64 each.

    Only one year is in memory at a time.

    Args:
        data_root: See :class:`WeatherBench`.
        variables: See :class:`WeatherBench`.
        levels: See :class:`WeatherBench`.
        years: First and last year.

    Raises:
        UserError: See :class:`WeatherBench`; also if a channel is constant.
    """
    count, total, squares = 0, np.zeros(()), np.zeros(())
    shift: np.ndarray | None = None
    for year in _span(years):
        fields = read_year(data_root, variables, levels, year).astype(np.float64)
        if shift is None:
            shift = fields[0].mean((0, 1))  # limits cancellation in the sum of squares
        fields -= shift
        count += fields[..., 0].size
        total = total + fields.sum((0, 1, 2))
        squares = squares + (fields**2).sum((0, 1, 2))
    assert shift is not None
    mean = total / count
    std = np.sqrt(squares / count - mean**2)
    if not (std > 0).all():
        raise UserError(
            f'{data_root}: a channel of {", ".join(variables)} is constant in {years}: download the files again'
        )
    return shift + mean, std


def read_year(data_root: str, variables: Sequence[str], levels: Sequence[int] | None, year: int) -> np.ndarray:
    """Fields of a year, (hours, H, W, C) float32 in physical units; channels in the order of the variables.

    Raises:
        UserError: See :class:`WeatherBench`.
    """
    fields: list[np.ndarray] = []
    for variable in variables:
        folder = Path(data_root) / variable
        files = sorted(folder.glob(f'*_{year}_*.nc'))
        if len(files) != 1:
            pattern = f'{folder}/{variable}_{year}_*.nc'
            if files:
                raise UserError(f'{len(files)} files match {pattern}: keep one of them')
            raise UserError(f'{pattern} not found: {DATA_HELP}')
        fields.append(read_field(files[0], levels))
        if fields[-1].shape[:3] != fields[0].shape[:3]:
            raise UserError(
                f'{files[0]} has (hours, height, width) {fields[-1].shape[:3]}, but {variables[0]} has '
                f'{fields[0].shape[:3]}: use files with one grid'
            )
    return np.concatenate(fields, axis=-1)


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
