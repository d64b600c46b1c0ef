"""Fixtures that several test files share."""

import gc
import gzip
import socket
from pathlib import Path

import mogacore

mogacore.limit_spinning()  # before the import of torch: tests run beside each other

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from mogacore.analysis.gpu.golden import fill_by_name, golden_input, value_by_name
from mogacore.errors import UserError

__all__ = ['fill_by_name', 'golden_input', 'value_by_name']  # for the tests that import them from here

ROOT = Path(__file__).parents[1]
DATA = Path(__file__).parent / 'data'
TINY_ARCH = dict(embed_dims=(8, 16, 24, 32), depths=(1, 1, 2, 1), ffn_ratios=(2, 2, 2, 2))
NEEDS_EXPORT = pytest.mark.skipif(
    torch.__version__ < '2.5',
    reason='torch.export cannot be told from torch.compile, whose form it exports',
)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """A command may set this variable for its process; other tests must not see that."""
    monkeypatch.setenv('MOGACORE_MAX_PIXELS', '')


@pytest.fixture(autouse=True)
def own_scope():
    """A default scope, which runs and inferencers leave in their process, changes where other tests find names."""
    DefaultScope._instance_dict.clear()
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='module')
def frozen_objects():
    """mmengine calls gc.collect() for every data set, which takes half a second with all libraries imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def fast_runs(monkeypatch):
    """Leave out what takes most of the time: the description of the machine, and formatting the config."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    monkeypatch.setattr(Runner, '_log_env', lambda self, env_cfg: None)
    monkeypatch.setattr(Config, 'pretty_text', property(str))


@pytest.fixture(scope='session')
def digit_data(tmp_path_factory):
    """A folder with the bundled digits in data/digits, few of them; do not change it."""
    from mogacore.datasets.digits import write_digits

    folder = tmp_path_factory.mktemp('digit_data')
    write_digits(folder / 'data' / 'digits', num_train_scenes=12, num_val_scenes=4, num_sequences=4)
    return folder


@pytest.fixture
def hidden_data(monkeypatch):
    """Dry runs find no data, whatever the checkout contains."""

    def missing(cfg, stage):
        raise UserError('hidden by the test')

    monkeypatch.setattr('mogacore.engine.runner.locate_data', missing)


def write_idx(path, array):
    """Write bytes in MNIST's format; gzipped if the suffix says so."""
    content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, '>u4').tobytes() + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == '.gz' else content)


def write_netcdf(path, name, values, levels=()):
    """Write a classic netCDF file in WeatherBench's layout: time, level if any, latitude, longitude."""
    from scipy.io import netcdf_file

    path.parent.mkdir(parents=True, exist_ok=True)
    with netcdf_file(path, 'w') as file:
        dims = ['time', *(['level'] if levels else []), 'lat', 'lon']
        for dim, size in zip(dims, values.shape, strict=True):
            file.createDimension(dim, size)
            file.createVariable(dim, 'f8', (dim,))[:] = levels if dim == 'level' else np.arange(size)
        file.createVariable(name, 'f4', dims)[:] = values


def free_ports(number):
    """Distinct unused ports of the loopback interface."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(('127.0.0.1', 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
