"""Every config for video prediction: size, recipe, data, and a training step at small width."""

import math
import re

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
from mogacore.checkpoint import load_into
from mogacore.datasets.moving import CIFAR_FILES
from mogacore.models.simvp import TRANSLATOR_BLOCKS
from mogacore.published import published_complexity

LEAVES = sorted((ROOT / 'configs' / 'video_prediction').glob('*.py'))
SMALL_LEAVES = [path for path in LEAVES if re.search(r'moving-(digits|fashion)', path.name)]
PUBLISHED = [path for path in LEAVES if path not in SMALL_LEAVES]


def named(path):
    return path.stem


def load(path):
    return Config.fromfile(path, import_custom_modules=False)


def data_of(path):
    return re.fullmatch(r'simvp_(?:moganet|gsta)_(?:\d+e_)?(.*)', path.stem)[1]


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmengine')


@pytest.mark.parametrize('path', LEAVES, ids=named)
def test_name_agrees_with_translator_length_and_data(path):
    cfg = load(path)
    translator = {name.lower(): name for name in TRANSLATOR_BLOCKS}[path.stem.split('_')[1]]
    assert cfg.model.type == 'SimVP' and cfg.model.translator == translator
    assert cfg.model.num_frames == cfg.input_shape[0] and cfg.model.in_channels == cfg.input_shape[1]
    if path in PUBLISHED:
        assert cfg.train_cfg.max_epochs == int(re.search(r'_(\d+)e_', path.stem)[1])
    assert cfg.default_hooks.checkpoint.save_best == 'video/mse'
    assert cfg.train_dataloader.drop_last and cfg.test_dataloader.dataset == cfg.val_dataloader.dataset


@pytest.mark.parametrize('data', ['digits', 'fashion'])
def test_equal_settings_differ_only_in_the_translator(data):
    folder = ROOT / 'configs' / 'video_prediction'
    ours, theirs, short = (
        load(folder / f'simvp_{name}_moving-{data}.py').to_dict() for name in ('moganet', 'gsta_equal-settings', 'gsta')
    )
    assert theirs == short
    assert ours['model'].pop('translator') == 'MogaNet' and theirs['model'].pop('translator') == 'gSTA'
    assert ours == theirs


def test_both_translators_have_the_same_data_and_metrics():
    peers = [path for path in PUBLISHED if '_gsta_' in path.name]
    assert len(peers) == 14
    for path in peers:
        ours, theirs = load(path.with_name(path.name.replace('gsta', 'moganet'))), load(path)
        for key in ('train_dataloader', 'test_dataloader', 'test_evaluator', 'train_cfg'):
            assert ours[key] == theirs[key], path.name


@pytest.mark.parametrize('kind', ['missing', 'perceptual', 'dynamic'])
def test_only_the_training_sequences_are_noisy(kind):
    noisy = load(ROOT / f'configs/video_prediction/simvp_moganet_200e_mmnist-{kind}.py')
    clean = load(ROOT / 'configs/video_prediction/simvp_moganet_200e_moving-mnist.py')
    assert noisy.train_dataloader.dataset.pop('noise') == kind
    assert noisy.train_dataloader == clean.train_dataloader
    assert noisy.test_dataloader == noisy.val_dataloader == clean.test_dataloader


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
    **dict.fromkeys(('weather-mv', 'weather-mv-6h'), (9_967_636, 5.25)),
}
GSTA_SIZES = {
    **dict.fromkeys(('moving-mnist', 'moving-fmnist'), (46_769_665, 16.53)),
    'human36m': (11_327_235, 74.6),
    'weather-mv': (9_964_268, 5.25),
}


def published_gsta_shapes(model):
    """Names and shapes of OpenSTL's weights with gSTA blocks, from the definition of its network."""
    shapes, width, depth = {}, model.spatial_dims, model.spatial_depth

    def conv(name, in_channels, out_channels, kernel_size, groups=1):
        shapes[f'{name}.weight'] = (out_channels, in_channels // groups, kernel_size, kernel_size)
        shapes[f'{name}.bias'] = (out_channels,)

    def norm(name, channels, has_statistics=True):
        shapes.update(dict.fromkeys((f'{name}.weight', f'{name}.bias'), (channels,)))
        if has_statistics:
            shapes.update(dict.fromkeys((f'{name}.running_mean', f'{name}.running_var'), (channels,)))
            shapes[f'{name}.num_batches_tracked'] = ()

    for i in range(depth):
        conv(f'enc.enc.{i}.conv.conv', width if i else model.in_channels, width, 3)
        # The decoder starts with an enlarging unit, whose convolution is followed by a pixel shuffle.
        conv(f'dec.dec.{i}.conv.conv' + ('' if i % 2 else '.0'), width, width if i % 2 else 4 * width, 3)
        norm(f'enc.enc.{i}.conv.norm', width, has_statistics=False)
        norm(f'dec.dec.{i}.conv.norm', width, has_statistics=False)
    conv('dec.readout', width, model.in_channels, 1)
    stacked, hidden = model.num_frames * width, model.temporal_dims
    for i in range(model.temporal_depth):
        block, dims = f'hid.enc.{i}.block', hidden if i else stacked
        norm(f'{block}.norm1', dims)
        norm(f'{block}.norm2', dims)
        conv(f'{block}.attn.proj_1', dims, dims, 1)
        conv(f'{block}.attn.spatial_gating_unit.conv0', dims, dims, 5, groups=dims)
        conv(f'{block}.attn.spatial_gating_unit.conv_spatial', dims, dims, 7, groups=dims)
        conv(f'{block}.attn.spatial_gating_unit.conv1', dims, 2 * dims, 1)
        conv(f'{block}.attn.proj_2', dims, dims, 1)
        conv(f'{block}.mlp.fc1', dims, 8 * dims, 1)
        conv(f'{block}.mlp.dwconv.dwconv', 8 * dims, 8 * dims, 3, groups=8 * dims)
        conv(f'{block}.mlp.fc2', 8 * dims, dims, 1)
        shapes.update(dict.fromkeys((f'{block}.layer_scale_1', f'{block}.layer_scale_2'), (dims,)))
        out = stacked if i == model.temporal_depth - 1 else hidden
        if out != dims:
            conv(f'hid.enc.{i}.reduction', dims, out, 1)
    return shapes


# Parameters in M as printed in OpenSTL's docs/en/model_zoos.
@pytest.mark.parametrize('name, params', [('50e_human36m', 11.3), ('100e_kth', 15.6), ('50e_taxibj', 9.96)])
def test_published_weights_of_gsta_load(name, params):
    model = load(ROOT / f'configs/video_prediction/simvp_gsta_{name}.py').model
    weights = {key: torch.zeros(shape) for key, shape in published_gsta_shapes(model).items()}
    trained = [value for key, value in weights.items() if 'running_' not in key and 'num_batches' not in key]
    assert sum(value.numel() for value in trained) / 1e6 == pytest.approx(params, abs=0.05)
    built = MODELS.build(model)
    assert set(load_into(built, weights).loaded) == set(built.state_dict())
    assert not any(parameter.any() for parameter in built.parameters())


@pytest.mark.parametrize('path', PUBLISHED, ids=named)
def test_parameters_and_multiply_adds_are_the_published_ones(path):
    parts = {part.name: part for part in complexity(path)}
    assert list(parts) == ['enc', 'hid', 'dec']
    params, macs = sum(part.params for part in parts.values()), sum(part.macs for part in parts.values())
    name = path.relative_to(ROOT / 'configs').as_posix()
    sizes = SIZES if '_moganet_' in path.name else GSTA_SIZES
    if '_gsta_' in path.name:
        shapes = published_gsta_shapes(load(path).model)
        assert params == sum(math.prod(v) for k, v in shapes.items() if 'running_' not in k and 'num_batches' not in k)
    if data_of(path) in sizes:
        assert params == sizes[data_of(path)][0]
        assert macs / 1e9 == pytest.approx(sizes[data_of(path)][1], rel=0.02)
    if name in published_complexity():
        published_params, published_macs = published_complexity()[name]
        assert params / 1e6 == pytest.approx(published_params, abs=0.05)
        assert macs / 1e9 == pytest.approx(published_macs, rel=0.02)


def test_every_data_set_of_the_paper_has_a_config():
    assert {data_of(path) for path in PUBLISHED} == set(SIZES)


@pytest.mark.parametrize('path', PUBLISHED, ids=named)
def test_metrics_are_the_published_ones(path):
    cfg = load(path)
    weather = data_of(path).startswith('weather')
    assert tuple(cfg.test_evaluator.metric) == (('mse', 'mae', 'rmse') if weather else ('mse', 'mae', 'ssim', 'psnr'))
    if data_of(path).startswith('weather-mv'):
        assert list(cfg.test_evaluator.groups) == ['r', 't', 'u', 'v']


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
    clips = {'kth/boxing/person01_boxing_d1/image_{:04}.png': 60, 'kth/boxing/person17_boxing_d1/image_{:04}.png': 60,
             'human36m/images/S1_Walking.60457274_{:06}.jpg': 42}  # fmt: skip
    for clip, num_frames in clips.items():
        (root / clip).parent.mkdir(parents=True)
        for number in range(num_frames):
            cv2.imwrite(str(root / clip.format(number)), rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    for split in ('train', 'test'):
        lines = [f'images/S1_Walking.60457274_,{first},{first + 70}\n' for first in (1, 6)]
        (root / 'human36m' / f'{split}.txt').write_text(''.join(lines))
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
                # Every sixth hour of 232 makes the 39 fields that two sequences of four variables need.
                shape = (232, len(levels), *size) if levels else (44, *size)
                write_netcdf(path, name, rng.normal(280, 10, shape), levels)
    return root


def first_two(cfg, loader, sets):
    """A batch of a loader's first two samples, and its data set; weather data is cut to one year per split."""
    dataset = cfg[loader].dataset.to_dict()
    if dataset.get('data_root'):
        dataset['data_root'] = str(sets / dataset['data_root'].removeprefix('data/'))
    if dataset['type'] == 'WeatherBench':
        year = {'train_dataloader': 2015, 'val_dataloader': 2017}[loader]
        dataset.update(years=(year, year), train_years=dataset['train_years'] and (2015, 2015))
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
