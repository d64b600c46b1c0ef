"""Every leaf config loads; those for classification agree with their names and follow the published rules."""

import math
import re
from collections import Counter
from copy import deepcopy

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY_ARCH
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, TRANSFORMS, init_default_scope
from torch import nn

from mogacore.models import MogaNetClassifier
from mogacore.published.archs import ARCHS

LEAVES = sorted(path for path in (ROOT / 'configs').glob('*/**/*.py') if '_base_' not in path.parts)
CLASSIFICATION = [path for path in LEAVES if path.parent.name == 'classification']
IN1K = [path for path in LEAVES if 'in1k' in path.name]
IMAGES_IN1K = 1_281_167


def named(path):
    return path.name


def load(name):
    return Config.fromfile(ROOT / 'configs' / 'classification' / name)


@pytest.mark.parametrize('path', LEAVES, ids=named)
def test_leaf_is_short_and_loads_without_a_task_library(path):
    code = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith('#')]
    # Configs of the digit scenes also shrink neck and heads, those of the synthetic hands the head.
    assert len(code) <= (20 if path.stem.endswith(('_digits', '-synthetic')) else 15)
    cfg = Config.fromfile(path, import_custom_modules=False)
    assert cfg.model.type and cfg.default_scope in ('mmpretrain', 'mmdet', 'mmseg', 'mmpose', 'mmengine')


@pytest.mark.parametrize('path', [path for path in CLASSIFICATION if path.name.startswith('moganet-')], ids=named)
def test_name_agrees_with_arch_head_and_data(path):
    cfg = Config.fromfile(path, import_custom_modules=False)
    size = re.match(r'moganet-(\w+?)_', path.name)[1]
    assert cfg.model.backbone.arch == size
    assert cfg.model.head.in_channels == ARCHS[size]['embed_dims'][3]
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes


@pytest.mark.parametrize('path', IN1K, ids=named)
def test_name_agrees_with_batch_and_resolution(path):
    cfg = Config.fromfile(path, import_custom_modules=False)
    gpus, batch, accumulation = re.search(r'_(\d+)xb(\d+)(?:-accu(\d+))?_', path.name).groups()
    assert cfg.train_dataloader.batch_size == int(batch)
    assert cfg.optim_wrapper.get('accumulative_counts', 1) == int(accumulation or 1)
    assert cfg.auto_scale_lr.base_batch_size == int(gpus) * int(batch)
    resolution = int(re.search(r'in1k-(\d+)\.py', path.name)[1])
    crop = cfg.train_dataloader.dataset.pipeline[1]
    assert {crop.scale for (crop,) in crop.get('transforms', [[crop]])} == {resolution}


@pytest.mark.parametrize('path', IN1K, ids=named)
def test_average_is_updated_once_per_step_and_warms_up_over_whole_epochs(path):
    cfg = Config.fromfile(path, import_custom_modules=False)
    for hook in cfg.custom_hooks:
        if hook.type == 'EMAHook':
            assert hook.get('interval', 1) == cfg.optim_wrapper.get('accumulative_counts', 1)
            iterations_per_epoch = math.ceil(math.ceil(IMAGES_IN1K / 8) / cfg.train_dataloader.batch_size)
            assert hook.get('warmup_iters', 0) in (0, 20 * iterations_per_epoch)


def test_test_resolution_follows_the_crop_ratio():
    for path in IN1K:
        _, resize, crop, *_ = Config.fromfile(path, import_custom_modules=False).test_dataloader.dataset.pipeline
        if crop.type == 'CenterCrop':
            ratio = 0.95 if 'rsb' in path.name else 0.9
            assert resize.scale == pytest.approx(crop.crop_size / ratio, abs=1)


@pytest.fixture
def mmpretrain_scope():
    """mmpretrain imported and set as the default scope."""
    pytest.importorskip('mmpretrain')
    import mogacore.registry  # noqa: F401, registers our classes
    from mogacore.libraries import import_quietly

    import_quietly('mmpretrain')
    init_default_scope('mmpretrain')


# The rule of each recipe for the parameters that do not decay.
OPENMIXUP = r'(bn|ln|gn)(\d+)?.(weight|bias)|norm|bias|layer_scale|scale'  # paramwise_options of its configs


def is_free_of_decay(path, name, param):
    if '_timm-recipe_' in path.name:  # timm 0.6.12
        return param.ndim <= 1 or name.endswith('.bias')
    if '_in1k-' in path.name or '_cifar100-' in path.name:
        return bool(re.search(OPENMIXUP, name))
    return param.ndim <= 1 or 'scale' in name  # our configs for small images


@pytest.mark.parametrize('path', CLASSIFICATION, ids=named)
def test_weight_decay_follows_the_rule_of_the_recipe(path, mmpretrain_scope):
    cfg = Config.fromfile(path)
    wrapper = deepcopy(cfg.optim_wrapper)
    wrapper.type = 'OptimWrapper'
    for key in ('dtype', 'loss_scale'):
        wrapper.pop(key, None)
    model = MogaNetClassifier(10, arch=TINY_ARCH)
    groups = build_optim_wrapper(model, wrapper).optimizer.param_groups
    free = {id(p) for group in groups if group['weight_decay'] == 0 for p in group['params']}
    for name, param in model.named_parameters():
        assert (id(param) in free) is is_free_of_decay(path, name, param), name
    assert {group['weight_decay'] for group in groups} == {0.0, cfg.optim_wrapper.optimizer.weight_decay}


def learning_rates(cfg, steps_per_epoch):
    """Learning rate of every iteration, from mmengine's schedulers."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    defaults = dict(optimizer=optimizer, epoch_length=steps_per_epoch)
    schedulers = [PARAM_SCHEDULERS.build(deepcopy(s), default_args=defaults) for s in cfg.param_scheduler]
    rates = []
    for step in range(cfg.train_cfg.max_epochs * steps_per_epoch):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            if not scheduler.by_epoch or (step + 1) % steps_per_epoch == 0:
                scheduler.step()
    return rates


@pytest.mark.parametrize(
    'name, rate, start_factor, warmup, cosine_begin, least_rate, epochs',
    [
        ('moganet-xtiny_8xb128_in1k-224.py', 1e-3, 1e-6, 5, 0, 1e-6, 300),
        ('moganet-small_8xb128_in1k-224.py', 1e-3, 1e-6, 5, 0, 1e-5, 300),
        ('moganet-xlarge_8xb32-accu4_in1k-224.py', 1e-3, 1e-6, 5, 0, 1e-4, 300),
        ('moganet-tiny_3aug_8xb128_in1k-256.py', 2e-3, 1e-6, 20, 0, 1e-6, 300),
        ('moganet-small_rsb-a3_8xb256_in1k-160.py', 6e-3, 1e-5, 5, 0, 1e-6, 100),
        ('moganet-xlarge_finetune_8xb16-accu4_in1k-384.py', 5e-5, None, 0, 0, 1e-6, 30),
        ('moganet-xtiny_digits.py', 2e-3, 1e-2, 1, 1, 0.0, 5),
    ],
)
def test_learning_rate_warms_up_linearly_and_decays_as_a_cosine(
    name, rate, start_factor, warmup, cosine_begin, least_rate, epochs
):
    steps = 11
    cfg = load(name)
    expected = []
    for step in range(epochs * steps):
        progress = max(step - cosine_begin * steps, 0) / ((epochs - cosine_begin) * steps)
        cosine = least_rate + (rate - least_rate) * (1 + math.cos(math.pi * progress)) / 2
        if step < warmup * steps:
            cosine *= start_factor + (1 - start_factor) * step / (warmup * steps - 1)
        expected.append(cosine)
    # mmengine chains its schedulers, which equals the product up to about least_rate / rate in the warm-up.
    np.testing.assert_allclose(learning_rates(cfg, steps), expected, rtol=2e-4, atol=1e-12)


@pytest.mark.parametrize(
    'name, least_rate',
    [
        ('moganet-tiny_timm-recipe_8xb128_in1k-224.py', 1e-6),
        ('moganet-xlarge_timm-recipe_8xb64_in1k-224.py', 1e-5),
    ],
)
def test_learning_rate_of_the_timm_recipe_is_constant_during_each_epoch(name, least_rate):
    expected = []
    for epoch in range(310):
        rate = 1e-5 + epoch * (1e-3 - 1e-5) / 5
        if epoch >= 5:
            rate = least_rate + (1e-3 - least_rate) * (1 + math.cos(math.pi * min(epoch, 300) / 300)) / 2
        expected += [rate] * 3
    np.testing.assert_allclose(learning_rates(load(name), 3), expected, rtol=1e-9)


def test_learning_rate_for_cifar_is_a_cosine_by_epoch_times_a_warm_up_by_iteration():
    steps, expected = 5, []
    for step in range(200 * steps):
        warmup = min(1e-5 + (1 - 1e-5) * step / (5 * steps - 1), 1)
        expected.append(1e-3 * warmup * (1 + math.cos(math.pi * (step // steps) / 200)) / 2)
    rates = learning_rates(load('moganet-small_1xb100_cifar100-32.py'), steps)
    np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-15)


TIMM_OPERATIONS = ['AutoContrast', 'Equalize', 'Invert', 'Rotate', 'Posterize', 'Solarize', 'SolarizeAdd',
                   'ColorTransform', 'Contrast', 'Brightness', 'Sharpness', 'Shear horizontal', 'Shear vertical',
                   'Translate horizontal', 'Translate vertical']  # fmt: skip


@pytest.mark.parametrize('name', ['moganet-small_8xb128_in1k-224.py', 'moganet-small_timm-recipe_8xb128_in1k-224.py'])
def test_each_operation_of_randaugment_is_as_likely_as_in_timm_and_applied_half_of_the_time(name, mmpretrain_scope):
    (settings,) = [step for step in load(name).train_pipeline if step.type == 'RandAugment']
    transform = TRANSFORMS.build(settings)
    assert {operation.prob for operation in transform.transforms} == {0.5}
    counts = Counter(
        ' '.join([type(operation).__name__, getattr(operation, 'direction', '')]).strip()
        for operation in transform.transforms
    )
    repeats = 2 if 'timm' in name else 1
    assert counts == dict.fromkeys(TIMM_OPERATIONS, repeats)
    interpolations = Counter(op.interpolation for op in transform.transforms if hasattr(op, 'interpolation'))
    assert interpolations == ({'bilinear': 5, 'bicubic': 5} if 'timm' in name else {'bicubic': 5})


def test_crops_of_the_timm_recipe_differ_in_interpolation_alone():
    (_, crop, *_) = load('moganet-tiny_timm-recipe_8xb128_in1k-256.py').train_pipeline
    assert crop.type == 'RandomChoice' and 'prob' not in crop
    (bilinear,), (bicubic,) = (list(map(dict, transforms)) for transforms in crop.transforms)
    assert bilinear.pop('interpolation') == 'bilinear' and bicubic.pop('interpolation') == 'bicubic'
    assert bilinear == bicubic == dict(type='RandomResizedCrop', scale=256, backend='pillow')


@pytest.fixture(scope='module')
def image_path(tmp_path_factory):
    pil_image = pytest.importorskip('PIL.Image')
    path = tmp_path_factory.mktemp('image') / 'image.JPEG'
    pil_image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    'path',
    [path for path in IN1K if re.match('moganet-(tiny|small|xlarge)_(?!ablation)', path.name)],
    ids=named,
)
def test_pipelines_and_batch_augmentation_run(path, image_path, mmpretrain_scope):
    cfg = Config.fromfile(path)
    resolution = int(re.search(r'in1k-(\d+)\.py', path.name)[1])
    tested = 224 if resolution == 160 else resolution
    for pipeline, size in ((cfg.train_pipeline, resolution), (cfg.test_pipeline, tested)):
        transform = Compose(pipeline)
        items = [transform(dict(img_path=str(image_path), gt_label=label)) for label in (1, 2)]
        assert all(item['inputs'].shape == (3, size, size) for item in items)
    assert cfg.train_dataloader.dataset.pipeline == cfg.train_pipeline
    assert cfg.test_dataloader.dataset.pipeline == cfg.val_dataloader.dataset.pipeline == cfg.test_pipeline

    train_cfg = cfg.model.get('train_cfg') or {}
    preprocessor = MODELS.build(
        dict(type='ClsDataPreprocessor', **cfg.data_preprocessor)
        | (dict(batch_augments=train_cfg) if train_cfg.get('augments') else {})
    )
    out = preprocessor(pseudo_collate(items), training=True)
    assert out['inputs'].abs().max() < (6 if '_timm-recipe_' in path.name else 3)  # noise is not cut off
    if train_cfg.get('augments'):
        scores = torch.stack([sample.gt_score for sample in out['data_samples']])
        torch.testing.assert_close(scores.sum(1), torch.ones(2))


def test_pipelines_for_cifar_run_on_images_of_its_data_set(mmpretrain_scope):
    cfg = load('moganet-small_1xb100_cifar100-32.py')
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for pipeline in (cfg.train_dataloader.dataset.pipeline, cfg.test_dataloader.dataset.pipeline):
        transform = Compose(pipeline)
        for _ in range(20):  # each operation of RandAugment is likely drawn
            assert transform(dict(img=image.copy(), gt_label=1))['inputs'].shape == (3, 32, 32)


@pytest.mark.parametrize('path', CLASSIFICATION, ids=named)
def test_model_builds_and_returns_a_loss_and_a_prediction(path, mmpretrain_scope):
    from mmpretrain.structures import DataSample

    cfg = Config.fromfile(path)
    if cfg.model.backbone.get('arch') in ('base', 'large', 'xlarge'):
        pytest.skip('same code as small at many times the cost; trained in test_tools.py')
    model = MODELS.build(cfg.model).train()
    channels = cfg.model.backbone.get('in_channels', 3)
    one_hot = torch.eye(cfg.model.head.num_classes)
    samples = [DataSample().set_gt_label(label).set_gt_score(one_hot[label]) for label in (0, 1)]
    side = 32 if 'cifar100' in path.name else 64
    inputs = torch.randn(2, channels, side, side)
    assert torch.isfinite(model(inputs, samples, mode='loss')['loss'])
    prediction = model.eval()(inputs, samples, mode='predict')[0]
    assert prediction.pred_score.shape == (cfg.model.head.num_classes,)
