import os
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import ROOT, write_netcdf
from mmengine.config import Config

from mogacore.datasets import WeatherBench
from mogacore.datasets.weather import read_field, statistics_of_years
from mogacore.errors import UserError

LEVELS = (150, 500, 850, 1000)


@pytest.fixture
def folder(tmp_path):
    """Folder with two variables, 30 hours in each of 2014 to 2016, on a 4 x 6 grid; and their values."""
    statistics_of_years.cache_clear()
    rng = np.random.default_rng(0)
    values = {}
    for year in (2014, 2015, 2016):
        values['2m_temperature', year] = rng.normal(280, 10, (30, 4, 6)).astype(np.float32)
        values['relative_humidity', year] = rng.normal(60, 20, (30, 4, 4, 6)).astype(np.float32)
        write_netcdf(
            tmp_path / f'2m_temperature/2m_temperature_{year}_5.625deg.nc', 't2m', values['2m_temperature', year]
        )
        write_netcdf(
            tmp_path / f'relative_humidity/relative_humidity_{year}_5.625deg.nc', 'r',
            values['relative_humidity', year], LEVELS,
        )  # fmt: skip
    return tmp_path, values


def build(folder, variables=('2m_temperature',), **settings):
    return WeatherBench(str(folder), variables, **{'train_years': (2014, 2015), 'years': (2016, 2016), **settings})


def frames_of(item):
    return torch.cat([item['inputs'], item['data_samples'].gt_frames]).numpy()


def published_sequences(series, step, idx_in, idx_out):
    """Positions in the thinned series, and hours, of every sequence, by brute force over the series of hours."""
    hours = [hour for hour in range(len(series) - 1) if hour % step == 0]
    found = []
    for newest in range(len(hours)):
        # The last sequence that fits is left out.
        if newest + idx_in[0] >= 0 and newest + idx_out[-1] + 1 < len(hours):
            found.append([hours[newest + offset] for offset in (*idx_in, *idx_out)])
    return hours, found


def test_frames_are_consecutive_hours_normalized_by_the_training_years(folder):
    root, values = folder
    dataset = build(root)
    _, sequences = published_sequences(values['2m_temperature', 2016], 1, range(-11, 1), range(1, 13))
    assert len(dataset) == len(sequences) == 30 - 1 - 24
    training = np.concatenate([values['2m_temperature', year] for year in (2014, 2015)]).astype(np.float64)[:-1]
    np.testing.assert_allclose(dataset.metainfo['mean'], [training.mean()], rtol=1e-6)
    np.testing.assert_allclose(dataset.metainfo['std'], [training.std()], rtol=1e-6)
    expected = (values['2m_temperature', 2016][3:27] - training.mean()) / training.std()
    np.testing.assert_allclose(frames_of(dataset[3])[:, 0], expected, atol=1e-4)
    assert dataset[3]['inputs'].shape == (12, 1, 4, 6)
    assert sequences[3] == list(range(3, 27))


@pytest.mark.parametrize('years', [(2016, 2016), (2014, 2016)])
def test_offsets_count_fields_of_the_series_thinned_by_the_step(years, folder):
    root, values = folder
    idx_in, idx_out = (-5, -2, 0), (1, 4)
    dataset = build(root, years=years, train_years=None, step=4 if years[0] == 2014 else 2, input_offsets=idx_in,
                    target_offsets=idx_out)  # fmt: skip
    series = np.concatenate([values['2m_temperature', year] for year in range(years[0], years[1] + 1)])
    hours, sequences = published_sequences(series, dataset.step, idx_in, idx_out)
    assert len(dataset) == len(sequences) > 3
    thinned = series[hours].astype(np.float64)
    np.testing.assert_allclose(dataset.metainfo['mean'], [thinned.mean()], rtol=1e-6)
    np.testing.assert_allclose(dataset.metainfo['std'], [thinned.std()], rtol=1e-6)
    for index, taken in enumerate(sequences):
        expected = (series[taken] - thinned.mean()) / thinned.std()
        np.testing.assert_allclose(frames_of(dataset[index])[:, 0], expected, atol=1e-4)
        assert len(dataset[index]['inputs']) == 3


def test_config_of_four_variables_has_the_published_hours_and_number_of_sequences(tmp_path):
    dataset = Config.fromfile(
        ROOT / 'configs/video_prediction/simvp_moganet_50e_weather-mv.py', import_custom_modules=False
    ).train_dataloader.dataset
    settings = dict(dataset.to_dict(), data_root=str(tmp_path), years=(1979, 1979), levels=(150,), variables=('t',))
    settings.pop('type')
    # The value of every field is its hour.
    series = np.arange(8760, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 2, 1), np.float32)
    write_netcdf(tmp_path / 't/t_1979_5.625deg.nc', 't', series, (150,))
    built = WeatherBench(**settings)
    mean, std = built.metainfo['mean'][0], built.metainfo['std'][0]
    hours = [(frames_of(built[index])[:, 0, 0, 0] * std + mean).round().astype(int) for index in (0, 1, len(built) - 1)]
    # The published loader: inputs at -102, -66, -30, 0 hours, targets at 6, 42, 78, 114 hours.
    relative = np.array([-102, -66, -30, 0, 6, 42, 78, 114])
    np.testing.assert_array_equal(hours[0] - hours[0][3], relative)
    np.testing.assert_array_equal(hours[1] - hours[0], 6)
    np.testing.assert_array_equal(hours[2] - hours[2][3], relative)
    _, sequences = published_sequences(series, 6, (-17, -11, -5, 0), (1, 7, 13, 19))
    assert len(built) == len(sequences) and list(hours[2]) == sequences[-1]
    # 1979 to 2015 has 13,514 days: about 54 thousand sequences an epoch.
    assert len(sequences) + (13_514 - 365) * 4 == pytest.approx(54_000, rel=0.002)


def test_the_default_is_the_last_level(folder):
    root, values = folder
    dataset = build(root, ('relative_humidity',))
    mean, std = dataset.metainfo['mean'][0], dataset.metainfo['std'][0]
    np.testing.assert_allclose(
        frames_of(dataset[0])[:, 0] * std + mean, values['relative_humidity', 2016][:24, 3], rtol=1e-4, atol=1e-3
    )


def test_variables_and_levels_become_channels_in_order(folder):
    root, values = folder
    dataset = build(
        root, ('relative_humidity', '2m_temperature'), levels=(850, 150), step=6, num_inputs=1, num_targets=2
    )  # fmt: skip
    assert len(dataset) == 5 - 3 and len(dataset.metainfo['std']) == 3
    frames = frames_of(dataset[1])
    scale = np.array([dataset.metainfo[key] for key in ('std', 'mean')])[..., None, None]
    physical = frames * scale[0] + scale[1]
    humidity, temperature = (values[name, 2016][6:19:6] for name in ('relative_humidity', '2m_temperature'))
    np.testing.assert_allclose(physical[:, 0], humidity[:, 2], atol=1e-3)
    np.testing.assert_allclose(physical[:, 1], humidity[:, 0], atol=1e-3)
    np.testing.assert_allclose(physical[:, 2], temperature, atol=2e-3)


def test_years_are_concatenated(folder):
    root, _ = folder
    assert len(build(root, years=(2014, 2016))) == 90 - 1 - 24


def test_files_of_version_4_are_read_by_netcdf4(folder, monkeypatch):
    root, values = folder
    path = root / '2m_temperature' / '2m_temperature_2016_5.625deg.nc'
    path.write_bytes(b'\x89HDF\r\n\x1a\n')

    class Dataset:
        def __init__(self, path):
            self.variables = {'time': np.arange(30), 'lat': np.arange(4), 't2m': values['2m_temperature', 2016]}

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            return False

    library = ModuleType('netCDF4')
    library.Dataset = Dataset
    monkeypatch.setitem(sys.modules, 'netCDF4', library)
    np.testing.assert_array_equal(read_field(path, None)[..., 0], values['2m_temperature', 2016])


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(years=(2016, 2017)), r'2m_temperature_2017_\*\.nc not found: see docs/video_prediction\.md'),
        (dict(variables=('snow',)), r'snow_2016_\*\.nc not found'),
        (
            dict(variables=('relative_humidity',), levels=(300,)),
            r'has no level 300 hPa: choose from 150, 500, 850, 1000',
        ),
        (dict(num_targets=40), 'has 29 fields in .* at a step of 1 hours, but a sequence spans 52'),
        (dict(input_offsets=(-2, -1)), r'input_offsets \(-2, -1\) and target_offsets \(1, 2, .* are invalid'),
        (dict(target_offsets=(0, 1)), r'target_offsets \(0, 1\) are invalid: give ascending'),
        (dict(num_inputs=0), 'num_inputs is 0'),
        (dict(years=(2016, 2015)), r'years \(2016, 2015\)'),
        (dict(step=0), 'step 0'),
    ],
)
def test_user_errors_are_reported_in_one_line(settings, message, folder):
    with pytest.raises(UserError, match=message) as raised:
        build(folder[0], **settings)
    assert '\n' not in str(raised.value)


def test_corrupt_files_are_reported(folder):
    root, _ = folder
    path = root / '2m_temperature' / '2m_temperature_2016_5.625deg.nc'
    whole = path.read_bytes()
    for content, message in (
        (whole[:200], r'2016_5\.625deg\.nc is truncated or not readable by scipy'),
        (
            b'\x89HDF\r\n\x1a\n',
            r'2016_5\.625deg\.nc (requires the package netCDF4|is truncated or not readable by netCDF4)',
        ),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message) as raised:
            build(root)
        assert '\n' not in str(raised.value)
    write_netcdf(path, 't2m', np.zeros((30, 5, 6), np.float32))
    with pytest.raises(UserError, match='different grids'):
        build(root, years=(2015, 2016))
    write_netcdf(path, 't2m', np.zeros((30, 4, 6), np.float32))
    with pytest.raises(UserError, match='is constant'):
        build(root, train_years=(2016, 2016))
    for values, message in (
        (np.full((30, 4, 6), np.nan), 'has values that are not finite'),
        (np.zeros((0, 4, 6)), r'2016_5\.625deg\.nc has no values'),
    ):
        write_netcdf(path, 't2m', values.astype(np.float32))
        statistics_of_years.cache_clear()
        with pytest.raises(UserError, match=message):
            build(root, train_years=(2016, 2016))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match='not found'):
        build(root)
