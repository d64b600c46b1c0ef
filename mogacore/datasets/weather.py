"""WeatherBench: fields of the ERA5 reanalysis on a grid, hour by hour, from its netCDF files."""

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
    """Hourly fields, as their difference from the training mean in training standard deviations, by channel.

    ``mean`` and ``std`` of the meta lead back to physical units. All years are held in memory as float32: 70 MB a year
    and channel at 5.625 degrees. The statistics cost one reading of the training years, also in a test.

    Args:
        data_root: Folder with a folder for each variable, of a netCDF file a year whose name has the year between
            underscores: ``2m_temperature/2m_temperature_2010_5.625deg.nc``.
        variables: Folders of the variables, each one or, with levels, several channels.
        levels: Pressure levels in hPa to take of a variable that has levels; None takes the last one.
        years: First and last year of this data set.
        train_years: First and last year that mean and deviation are of.
        step: Hours between two frames of a sequence.
        **kwargs: See :class:`mogacore.datasets.sequences.SequenceDataset`.

    Raises:
        UserError: If a file is missing or broken, lacks a level, or the years differ in their grid.

    Source: Rasp et al., WeatherBench, arXiv 2002.00469; years and normalisation as in OpenSTL.
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
                f'years {tuple(years)}, train_years {tuple(train_years)} and step {step} do not fit: give the first '
                'and the last year each, and a step of 1 or more'
            )
        self.variables, self.levels = tuple(variables), None if levels is None else tuple(levels)
        self.years, self.train_years, self.step = tuple(years), tuple(train_years), step
        super().__init__(num_inputs, num_targets, data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        mean, std = channel_statistics(self.data_root, self.variables, self.levels, self.train_years)
        self._metainfo.update(mean=mean.tolist(), std=std.tolist())
        years = [read_year(self.data_root, self.variables, self.levels, year) for year in _span(self.years)]
        if len({fields.shape[1:] for fields in years}) > 1:
            raise UserError(f'{self.data_root}: the years {self.years} have different grids: give files of one grid')
        self.fields = np.concatenate(years)
        self.fields -= mean.astype(np.float32)
        self.fields /= std.astype(np.float32)
        reach = (self.num_frames - 1) * self.step
        if len(self.fields) <= reach:
            raise UserError(
                f'{self.data_root} has {len(self.fields)} hours in {self.years}, too few for sequences of {reach + 1}: '
                'give more years'
            )
        return [dict(start=start) for start in range(len(self.fields) - reach)]

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
    """Mean and standard deviation of each channel over hours and grid, (C,) float64 each; one year in memory at a time.

    Args:
        data_root: See :class:`WeatherBench`, as are the others.
        variables: Folders of the variables.
        levels: Levels of each.
        years: First and last year.
    """
    count, total, squares, centre = 0, 0.0, 0.0, None
    for year in _span(years):
        fields = read_year(data_root, variables, levels, year).astype(np.float64)
        if centre is None:
            centre = fields[0].mean((0, 1))  # against cancellation in the squares
        fields -= centre
        count += fields[..., 0].size
        total = total + fields.sum((0, 1, 2))
        squares = squares + (fields**2).sum((0, 1, 2))
    mean = total / count
    std = np.sqrt(squares / count - mean**2)
    if not (std > 0).all():
        raise UserError(f'{data_root}: a channel of {", ".join(variables)} is constant in {years}: fetch it again')
    return centre + mean, std


def read_year(data_root: str, variables: Sequence[str], levels: Sequence[int] | None, year: int) -> np.ndarray:
    """Fields of a year, (hours, H, W, C) float32 in physical units, the variables' channels in order.

    Raises:
        UserError: See :class:`WeatherBench`.
    """
    fields = []
    for variable in variables:
        folder = Path(data_root) / variable
        files = sorted(folder.glob(f'*_{year}_*.nc'))
        if len(files) != 1:
            found = 'is missing' if not files else f'is one of {len(files)}, of which one must be chosen'
            raise UserError(f'{folder}/{variable}_{year}_*.nc {found}: {DATA_HELP}')
        fields.append(read_field(files[0], levels))
        if fields[-1].shape[:3] != fields[0].shape[:3]:
            raise UserError(
                f'{files[0]} has (hours, height, width) {fields[-1].shape[:3]}, {variables[0]} has '
                f'{fields[0].shape[:3]}: give files of one grid'
            )
    return np.concatenate(fields, axis=-1)


def read_field(path: Path, levels: Sequence[int] | None) -> np.ndarray:
    """The one field of a netCDF file, (hours, H, W, number of levels) float32.

    Args:
        path: netCDF file, of version 4 (read by netCDF4) or classic (read by scipy).
        levels: See :class:`WeatherBench`; of no effect on a variable without levels.

    Raises:
        UserError: If the file is broken or its reader not installed, or it lacks a level.
    """
    with path.open('rb') as file:
        is_classic = file.read(3) == b'CDF'
    library, read = ('scipy', _read_classic) if is_classic else ('netCDF4', _read_netcdf4)
    variables = read_with_library(path, library, lambda _: read(path))
    names = [name for name, field in variables.items() if name not in COORDINATES and field.ndim in (3, 4)]
    if len(names) != 1:
        raise UserError(
            f'{path} has {len(names)} fields over time ({", ".join(names)}), not one: give the original file'
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
