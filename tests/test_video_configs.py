"""Every config for video prediction: size, recipe, data, and a training step at small width."""

import re
from copy import deepcopy

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, write_idx, write_netcdf
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, METRICS, MODELS, PARAM_SCHEDULERS, init_default_scope

from mogacore.analysis.complexity import complexity
from mogacore.datasets.moving import CIFAR_FILES
from mogacore.models.simvp import TRANSLATOR_BLOCKS
from mogacore.published import published_complexity

LEAVES = sorted((ROOT / 'configs' / 'video_prediction').glob('*.py'))
SMALL_LEAVES = [path for path in LEAVES if re.search(r'moving-(digits|fashion)', path.name)]
PUBLISHED = [path for path in LEAVES if path not in SMALL_LEAVES]


def named(path):
    return path.stem


def data_of(path):
    return re.fullmatch(r'simvp_(?:moganet|gsta)_(?:\d+e_)?(.*)', path.stem)[1]


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmengine')


@pytest.mark.parametrize('path', LEAVES, ids=named)
def test_name_agrees_with_translator_length_and_data(path):
    cfg = Config.fromfile(path, import_custom_modules=False)
    translator = {name.lower(): name for name in TRANSLATOR_BLOCKS}[path.stem.split('_')[1]]
    assert cfg.model.type == 'SimVP' and cfg.model.translator == translator
    assert cfg.model.num_frames == cfg.input_shape[0] and cfg.model.in_channels == cfg.input_shape[1]
    if path in PUBLISHED:
        assert cfg.train_cfg.max_epochs == int(re.search(r'_(\d+)e_', path.stem)[1])
    assert cfg.default_hooks.checkpoint.save_best == 'video/mse'
    assert cfg.train_dataloader.drop_last and cfg.test_dataloader.dataset == cfg.val_dataloader.dataset


def test_baseline_differs_only_in_its_translator():
    peers = [path for path in LEAVES if '_gsta_' in path.name]
    assert len(peers) >= 10
    for path in peers:
        ours, theirs = (Config.fromfile(p, import_custom_modules=False).to_dict() for p in
                        (path.with_name(path.name.replace('gsta', 'moganet')), path))  # fmt: skip
        assert ours['model'].pop('translator') == 'MogaNet' and theirs['model'].pop('translator') == 'gSTA'
        assert ours == theirs


# Exact parameters of the published networks, and multiply-adds of one forward pass in G as counted by fvcore.
MMNIST = (46_777_065, 16.52)
T2M = (12_762_121, 7.00)
SIZES = {
    **dict.fromkeys(('moving-mnist', 'moving-fmnist', 'mmnist-dynamic', 'mmnist-missing', 'mmnist-perceptual'), MMNIST),
    'mmnist-cifar': (46_778_347, 16.57),
    'taxibj': (9_964_426, 2.61),
    'kth': (15_636_327, 76.7),
    'kitticaltech': (15_637_609, 96.2),
    'human36m': (8_618_889, 63.6),
    **dict.fromkeys(('weather-t2m', 'weather-r', 'weather-tcc'), T2M),
    'weather-uv10': (12_762_442, 7.01),
    'weather-t2m-128x256': (12_762_121, 112.0),
    'weather-mv': (9_967_636, 5.25),
}
GSTA_SIZES = {'moving-mnist': (46_769_665, 16.53), 'moving-fmnist': (46_769_665, 16.53)}


@pytest.mark.parametrize('path', PUBLISHED, ids=named)
def test_parameters_and_multiply_adds_are_the_published_ones(path):
    parts = {part.name: part for part in complexity(path)}
    assert list(parts) == ['enc', 'hid', 'dec']
    params, macs = sum(part.params for part in parts.values()), sum(part.macs for part in parts.values())
    name = path.relative_to(ROOT / 'configs').as_posix()
    sizes = SIZES if '_moganet_' in path.name else GSTA_SIZES
    if data_of(path) in sizes:
        assert params == sizes[data_of(path)][0]
        assert macs / 1e9 == pytest.approx(sizes[data_of(path)][1], rel=0.02)
    if name in published_complexity():
        published_params, published_macs = published_complexity()[name]
        assert params / 1e6 == pytest.approx(published_params, abs=0.05)
        assert macs / 1e9 == pytest.approx(published_macs, rel=0.02)


def test_every_data_set_of_the_paper_has_a_config():
    assert {data_of(path) for path in PUBLISHED} == set(SIZES)


# Data set -> learning rate, batch size, drop path, schedule, frames to predict.
RECIPES = {
    'moving-mnist': (1e-3, 16, 0.0, 'onecycle', 10),
    'moving-fmnist': (1e-3, 16, 0.0, 'onecycle', 10),
    'mmnist-cifar': (5e-3, 16, 0.0, 'onecycle', 10),
    'mmnist-dynamic': (5e-3, 16, 0.0, 'onecycle', 10),
    'mmnist-missing': (5e-3, 16, 0.0, 'onecycle', 10),
    'mmnist-perceptual': (5e-3, 16, 0.0, 'onecycle', 10),
    'taxibj': (1e-3, 16, 0.1, 'warmup', 4),
    'kth': (5e-3, 16, 0.2, 'onecycle', 20),
    'kitticaltech': (5e-3, 16, 0.1, 'onecycle', 1),
    'human36m': (1e-3, 16, 0.1, 'cosine', 4),
    'weather-t2m': (5e-3, 16, 0.2, 'cosine', 12),
    'weather-r': (1e-2, 16, 0.2, 'cosine', 12),
    'weather-uv10': (1e-3, 16, 0.2, 'cosine', 12),
    'weather-tcc': (1e-2, 16, 0.1, 'cosine', 12),
    'weather-t2m-128x256': (1e-2, 4, 0.1, 'cosine', 12),
    'weather-mv': (5e-3, 16, 0.1, 'warmup', 4),
}


@pytest.mark.parametrize('path', PUBLISHED, ids=named)
def test_recipe_is_the_published_one(path):
    cfg = Config.fromfile(path, import_custom_modules=False)
    lr, batch, drop_path, schedule, num_targets = RECIPES[data_of(path)]
    assert cfg.optim_wrapper == dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=lr))
    assert cfg.train_dataloader.batch_size == batch and cfg.model.drop_path_rate == drop_path
    assert cfg.model.get('num_targets', cfg.model.num_frames) == num_targets
    schedulers = {scheduler.pop('type'): scheduler for scheduler in deepcopy(cfg.param_scheduler)}
    if schedule == 'onecycle':
        settings = dict(by_epoch=True, convert_to_iter_based=True)
        assert schedulers == {'OneCycleLR': dict(eta_max=lr, **settings), 'OneCycleMomentum': settings}
    elif schedule == 'warmup':
        assert schedulers == {'WarmupCosineLR': dict(warmup=5, by_epoch=True)}
    else:
        assert schedulers == {'CosineAnnealingLR': dict(eta_min=1e-6, by_epoch=True)}
    weather = data_of(path).startswith('weather')
    assert cfg.test_evaluator.get('spatial_norm', False) == weather
    assert tuple(cfg.test_evaluator.metric) == (('mse', 'mae', 'rmse') if weather else ('mse', 'mae', 'ssim', 'psnr'))
    if data_of(path) == 'weather-mv':
        years, groups = cfg.train_dataloader.dataset.years, cfg.test_evaluator.groups
        assert tuple(years) == tuple(cfg.test_dataloader.dataset.train_years) == (1979, 2015)
        assert list(groups.items()) == [('r', 3), ('t', 3), ('u', 3), ('v', 3)]


WEATHER = {
    '2m_temperature': 't2m', 'relative_humidity': 'r', 'total_cloud_cover': 'tcc', '10m_u_component_of_wind': 'u10',
    '10m_v_component_of_wind': 'v10', 'temperature': 't', 'u_component_of_wind': 'u', 'v_component_of_wind': 'v',
}  # fmt: skip
WITH_LEVELS = ('relative_humidity', 'temperature', 'u_component_of_wind', 'v_component_of_wind')


@pytest.fixture(scope='module')
def sets(tmp_path_factory):
    """Small copies of all data sets in their original format, in the layout of ``data``."""
    root = tmp_path_factory.mktemp('sets')
    rng = np.random.default_rng(0)
    for name, prefix in (('moving_mnist', 'mnist'), ('moving_fmnist', 'fmnist'), ('fashion-mnist', None)):
        (root / name).mkdir()
        for split in ('train', 't10k'):
            write_idx(root / name / f'{split}-images-idx3-ubyte.gz', rng.integers(0, 256, (9, 28, 28)))
        if prefix:
            sequences = rng.integers(0, 256, (20, 2, 64, 64), dtype=np.uint8)
            np.save(root / name / f'{prefix}_test_seq.npy', sequences)
    sequences = rng.integers(0, 256, (20, 2, 64, 64, 3), dtype=np.uint8)
    np.save(root / 'moving_mnist' / 'mnist_cifar_test_seq.npy', sequences)
    (root / 'digits' / 'moving').mkdir(parents=True)
    np.save(root / 'digits' / 'moving' / 'mnist_test_seq.npy', sequences[..., 0])
    (root / 'moving_mnist' / 'cifar-10-batches-bin').mkdir()
    for name in CIFAR_FILES:
        rng.integers(0, 256, (1, 3073), dtype=np.uint8).tofile(root / 'moving_mnist' / 'cifar-10-batches-bin' / name)
    (root / 'taxibj').mkdir()
    flow = {f'{part}_{split}': rng.uniform(-1, 1, (2, 4, 2, 32, 32)) for part in 'XY' for split in ('train', 'test')}
    np.savez(root / 'taxibj' / 'dataset.npz', **flow)
    clips = {'kth/boxing/person01_boxing_d1': 60, 'kth/boxing/person17_boxing_d1': 60, 'human36m/train/walk': 16,
             'human36m/test/walk': 16}  # fmt: skip
    for clip, num_frames in clips.items():
        (root / clip).mkdir(parents=True)
        for number in range(num_frames):
            image = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            cv2.imwrite(str(root / clip / f'image_{number:04}.png'), image)
    (root / 'kitticaltech').mkdir()
    for split in ('train', 'test'):
        np.save(root / 'kitticaltech' / f'{split}_data.npy', rng.integers(0, 256, (22, 128, 160, 3), dtype=np.uint8))
        np.save(root / 'kitticaltech' / f'{split}_idx.npy', np.array([0, 11]))
    for degrees, size in (('5.625deg', (32, 64)), ('1.40625deg', (128, 256))):
        for variable, name in WEATHER.items():
            levels = (150, 500, 850) if variable in WITH_LEVELS else ()
            if degrees == '1.40625deg' and name != 't2m':
                continue
            for year in (2015, 2017):
                path = root / 'weather' / degrees / variable / f'{variable}_{year}_{degrees}.nc'
                write_netcdf(path, name, rng.normal(280, 10, (44, *([3] if levels else []), *size)), levels)
    return root


def first_two(cfg, loader, sets):
    """A batch of a loader's first two samples, and its data set; weather data is cut to one year per split."""
    dataset = cfg[loader].dataset.to_dict()
    if dataset.get('data_root'):
        dataset['data_root'] = str(sets / dataset['data_root'].removeprefix('data/'))
    if dataset['type'] == 'WeatherBench':
        year = {'train_dataloader': 2015, 'val_dataloader': 2017}[loader]
        dataset.update(years=(year, year), train_years=(2015, 2015))
    built = DATASETS.build(dataset)
    return default_collate([built[0], built[1]]), built


@pytest.mark.parametrize('path', LEAVES, ids=named)
def test_config_trains_a_step_on_its_data_and_is_evaluated(path, sets):
    cfg = Config.fromfile(path)
    cfg.model.update(spatial_dims=4, temporal_dims=8, temporal_depth=2)
    model = MODELS.build(cfg.model).train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    for scheduler in cfg.param_scheduler:
        settings = dict(scheduler, end=cfg.train_cfg.max_epochs)
        PARAM_SCHEDULERS.build(settings, default_args=dict(optimizer=wrapper, epoch_length=625))
    batch, _ = first_two(cfg, 'train_dataloader', sets)
    assert tuple(batch['inputs'].shape[1:]) == tuple(cfg.input_shape)
    before = model.dec.readout.weight.detach().clone()
    losses = model.train_step(batch, wrapper)
    assert torch.isfinite(losses['loss']) and not torch.equal(model.dec.readout.weight, before)
    batch, dataset = first_two(cfg, 'val_dataloader', sets)
    with torch.no_grad():
        samples = model.eval().test_step(batch)
    metric = METRICS.build(cfg.test_evaluator)
    metric.dataset_meta = dataset.metainfo
    metric.process(batch, [sample.to_dict() for sample in samples])
    metrics = metric.evaluate(2)
    assert metrics['video/mse'] > 0 and all(np.isfinite(value) for value in metrics.values())
