"""ImageNet-V2, -A, -R and -C in tiny folders of their layouts, tested with a tiny network, against brute force."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, TINY_ARCH, fill_by_name
from mmengine.config import Config

from mogacore.engine.config import build_model, load_config, replace_sync_bn
from mogacore.engine.runner import test as run_test
from mogacore.errors import UserError
from mogacore.evaluation.robustness import corruption_scores, subset_predictions
from mogacore.published.corruptions import ALEXNET_ERRORS

pytest.importorskip('mmpretrain')

CONFIGS = ROOT / 'configs' / 'classification'
WORDNET_IDS = [f'n{number:08}' for number in (15, 7, 301, 22, 4, 9000, 120, 33, 1, 56, 8, 2)]  # not sorted
ORDER = sorted(WORDNET_IDS)
SUBSET = [ORDER[label] for label in (1, 4, 5, 10)]
RNG = np.random.default_rng(0)


def write_images(folder, number):
    folder.mkdir(parents=True)
    for index in range(number):
        image = RNG.integers(0, 256, 3) + RNG.integers(-60, 60, (40, 36, 3))
        cv2.imwrite(str(folder / f'{index}.jpeg'), image.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """The five data sets, with twelve classes in place of 1,000."""
    data = tmp_path_factory.mktemp('robustness') / 'data'
    for name in WORDNET_IDS:
        (data / 'imagenet' / 'val' / name).mkdir(parents=True)
    for label in range(12):
        write_images(data / 'imagenetv2-matched-frequency-format-val' / str(label), 2)
    for name in SUBSET:
        write_images(data / 'imagenet-a' / name, 3)
        write_images(data / 'imagenet-r' / name, 3)
    for corruption in ALEXNET_ERRORS:  # some as the archives extract, some within the folder of their kind
        kind = 'noise' if 'noise' in corruption else ''
        for severity in range(1, 6):
            for name in ORDER:
                folder = data / 'imagenet-c' / kind / corruption / str(severity) / name
                write_images(folder, name in SUBSET[:3])
    write_images(data / 'imagenet-c' / 'speckle_noise' / '1' / ORDER[0], 1)
    write_images(data / 'imagenet-c' / 'snow' / '4' / SUBSET[0] / 'more', 1)
    return data


@pytest.fixture(scope='module')
def network(data):
    """Function that writes a small config for a data set, and its weight file."""

    def make(name):
        config = data.parent / f'{name}.py'
        model = f'backbone=dict(arch={dict(TINY_ARCH, _delete_=True)}), head=dict(in_channels=32, num_classes=12)'
        steps = (
            "test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=32), dict(type='PackInputs')]\n"
            'test_dataloader = dict(batch_size=7, num_workers=0, persistent_workers=False, '
            'dataset=dict(pipeline=test_pipeline))\n'
        )
        config.write_text(
            f"_base_ = '{CONFIGS / 'robustness' / f'moganet-tiny_imagenet-{name}.py'}'\nmodel = dict({model})\n"
            f'data_preprocessor = dict(num_classes=12)\n{steps}'
        )
        cfg = load_config(config)
        replace_sync_bn(cfg.model)
        weights = data.parent / 'tiny.pth'
        with torch.no_grad():
            model = fill_by_name(build_model(cfg)).eval()
            inputs = torch.randn(64, 3, 32, 32) / 2 + 2 * torch.randn(64, 3, 1, 1)
            model.head.fc.bias.sub_(model(inputs, mode='tensor').mean(0))  # else all images have the same class
        torch.save(model.state_dict(), weights)
        return str(config), str(weights), model

    return make


def scores_of(model, path):
    """Scores (classes,) of an image file, without pipeline, data set and evaluator."""
    image = cv2.resize(cv2.imread(str(path)), (32, 32))[..., ::-1].astype(np.float32)
    normed = (image - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    with torch.no_grad():
        return model(torch.from_numpy(normed.transpose(2, 0, 1)[None]).float(), mode='tensor')[0].numpy()


@pytest.fixture
def run(network, data, tmp_path, monkeypatch):
    monkeypatch.chdir(data.parent)

    def run(name, **options):
        config, weights, model = network(name)
        return run_test(config, weights, str(tmp_path), **options), model

    return run


def test_the_folders_of_imagenet_v2_are_labels(run, data):
    """Not sorted as text, where 10 and 11 come before 2."""
    metrics, model = run('v2')
    files = sorted((data / 'imagenetv2-matched-frequency-format-val').glob('*/*'))
    ranks = [scores_of(model, path).argsort()[::-1].tolist().index(int(path.parent.name)) for path in files]
    assert metrics['accuracy/top1'] == pytest.approx(100 * np.mean([rank < 1 for rank in ranks]), abs=1e-3)
    assert metrics['accuracy/top5'] == pytest.approx(100 * np.mean([rank < 5 for rank in ranks]), abs=1e-3)
    assert len({rank for rank in ranks}) > 4


@pytest.mark.parametrize('name', ['a', 'r'])
def test_a_subset_is_scored_among_its_classes_with_the_labels_of_all(name, run, data):
    metrics, model = run(name)
    right, right_among_all = [], []
    for path in sorted((data / f'imagenet-{name}').glob('*/*')):
        scores = dict(zip(ORDER, scores_of(model, path), strict=True))
        right.append(max(SUBSET, key=scores.get) == path.parent.name)
        right_among_all.append(max(ORDER, key=scores.get) == path.parent.name)
    assert metrics == {'accuracy/top1': pytest.approx(100 * np.mean(right))}
    assert sum(right) > sum(right_among_all)


def test_corruption_errors_are_means_over_severities_and_ratios_to_alexnet(run, data):
    metrics, model = run('c')
    expected = {}
    for corruption in ALEXNET_ERRORS:
        (folder,) = (path for path in (data / 'imagenet-c').rglob(corruption))
        errors = [
            np.mean(
                [
                    ORDER[scores_of(model, path).argmax()] != path.relative_to(level).parts[0]
                    for path in level.rglob('*.jpeg')
                ]
            )
            for level in folder.iterdir()
        ]
        assert len(errors) == 5
        expected[corruption] = np.mean(errors)
        assert metrics[f'corruption/{corruption}'] == pytest.approx(100 * expected[corruption])
    assert metrics['corruption/mean_error'] == pytest.approx(100 * np.mean(list(expected.values())))
    ratios = [expected[name] / ALEXNET_ERRORS[name] for name in ALEXNET_ERRORS]
    assert metrics['corruption/mCE'] == pytest.approx(100 * np.mean(ratios))


def test_alexnet_has_an_mce_of_100():
    scores = corruption_scores({name: dict.fromkeys(range(1, 6), error) for name, error in ALEXNET_ERRORS.items()})
    assert scores['mCE'] == pytest.approx(100) and len(ALEXNET_ERRORS) == 15


def test_predictions_of_a_subset_are_labels_among_all():
    scores = np.array([[9, 1, 2, 3], [0, 5, 4, 9]])
    assert subset_predictions(scores, (1, 2)).tolist() == [2, 1]


@pytest.mark.parametrize(
    'name, breaks, message',
    [
        ('a', lambda data: shutil.rmtree(data / 'imagenet'), 'folder of all classes data/imagenet/val is missing'),
        ('a', lambda data: (data / 'imagenet' / 'val' / SUBSET[0]).rmdir(), rf'has the class folder .{SUBSET[0]}.'),
        ('a', lambda data: (data / 'imagenet' / 'val' / 'n99').mkdir(), 'the model has 12 classes, but .* are 13'),
        ('r', lambda data: shutil.rmtree(data / 'imagenet-r'), 'imagenet-r is missing: see docs/data.md'),
        ('v2', lambda data: (data / 'imagenetv2-matched-frequency-format-val' / 'n1').mkdir(), "class folder 'n1'"),
        ('c', lambda data: shutil.rmtree(data / 'imagenet-c' / 'fog'), 'no folder fog: extract the archive'),
        ('c', lambda data: shutil.rmtree(data / 'imagenet-c' / 'fog' / '3'), r'fog/3 is missing: extract'),
        ('c', lambda data: shutil.rmtree(data / 'imagenet-c' / 'snow' / '2' / ORDER[0]), '11 class folders, which'),
        ('c', lambda data: [path.unlink() for path in (data / 'imagenet-c' / 'fog' / '3').glob('*/*')], 'no images'),
    ],
)  # fmt: skip
def test_incomplete_data_is_one_line(name, breaks, message, network, data, tmp_path, monkeypatch):
    config, weights, _ = network(name)
    shutil.copytree(data, tmp_path / 'data')
    breaks(tmp_path / 'data')
    shutil.copy(config, tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as raised:
        run_test(str(tmp_path / Path(config).name), weights, str(tmp_path / 'work'))
    assert '\n' not in str(raised.value)


SIZES = ('xtiny', 'tiny', 'small', 'base', 'large', 'xlarge')


@pytest.mark.parametrize('name', ['v2', 'a', 'r', 'c'])
def test_each_size_has_a_config_with_model_and_preparation_of_its_recipe(name):
    for size in SIZES:
        cfg = Config.fromfile(
            CONFIGS / 'robustness' / f'moganet-{size}_imagenet-{name}.py', import_custom_modules=False
        )
        (recipe,) = CONFIGS.glob(f'moganet-{size}_timm-recipe_*_in1k-224.py')
        published = Config.fromfile(recipe, import_custom_modules=False)
        assert (cfg.model.backbone, cfg.model.head.in_channels) == (
            published.model.backbone, published.model.head.in_channels,
        )  # fmt: skip
        assert cfg.data_preprocessor == published.data_preprocessor
        assert cfg.test_dataloader.dataset.pipeline == published.test_dataloader.dataset.pipeline
        assert cfg.test_dataloader.dataset.data_root.startswith('data/imagenet')
