"""The settings of a written config, and its text."""

import ast
import math
import subprocess
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import folder_makers as makers
import pytest
from conftest import ROOT

from mogacore.cli import init_data as command
from mogacore.engine.config import load_config
from mogacore.errors import UserError
from mogacore.init_data import READERS, TASKS, Options, init_data
from mogacore.init_data.config import write_config
from mogacore.init_data.found import Found, LabelledImage, flip_partners
from mogacore.init_data.labels import Labels
from mogacore.init_data.plan import MAX_EPOCHS, make_plan
from mogacore.init_data.recipes import DEFAULTS, find_recipe

LABELS = {'train': Labels('train.json'), 'val': Labels('val.json')}


def found(num, size=(640, 480), side=100.0, num_val=10):
    """Images of one size with one square object each."""
    objects = [dict(category='a', bbox=[0, 0, side, side])]
    images = [LabelledImage(f'{i}.jpg', 'train', size=size, objects=objects) for i in range(num)]
    images += [LabelledImage(f'v{i}.jpg', 'val', size=size, objects=objects) for i in range(num_val)]
    return Found('COCO JSON', Path('data'), images, ['a'])


def plan(num, task='detection', recipe=None, batch_size=None, weights=None, **settings):
    return make_plan(found(num, **settings), task, LABELS, find_recipe(task, recipe), batch_size, weights)


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('num', [2, 10, 200, 5000, 100_000])
def test_small_sets_have_enough_iterations_and_large_ones_enough_epochs(task, num):
    pytest.importorskip(DEFAULTS[task].library)
    chosen, least = plan(num, task), DEFAULTS[task]
    epochs = chosen.iterations / chosen.per_epoch
    assert chosen.per_epoch == math.ceil(num / chosen.batch_size)
    assert epochs == MAX_EPOCHS or chosen.iterations >= least.iterations
    assert least.epochs <= epochs <= MAX_EPOCHS
    assert epochs == least.epochs or chosen.iterations < least.iterations + chosen.per_epoch
    assert 1 <= chosen.warm_up <= min(chosen.iterations / 10, 500)
    length = chosen.epochs or chosen.iterations
    assert 10 <= length // chosen.val_interval <= 39


def test_the_rate_follows_the_root_of_the_batch_size():
    rates = [plan(100, batch_size=batch_size).rate for batch_size in (1, 4, 16, 64)]
    assert rates == pytest.approx([2.5e-5, 5e-5, 1e-4, 2e-4])
    assert plan(3, batch_size=64).batch_size == 3


@pytest.mark.parametrize('size, side, expected', [
    ((640, 480), 100, (640, 480)),
    ((480, 640), 100, (640, 480)),  # whichever way images are held
    ((500, 375), 100, (512, 384)),  # multiples of 32
    ((640, 480), 20, (1024, 768)),  # small objects: 1.6 times
    ((640, 480), 4, (1067, 800)),  # at most twice, and at most the size of the recipe
    ((320, 240), 4, (640, 480)),
    ((4000, 3000), 400, (1067, 800)),
])  # fmt: skip
def test_images_keep_their_size_unless_objects_are_small(size, side, expected):
    assert plan(10, size=size, side=side).size == expected


def test_weights():
    assert plan(10).weights == 'mogacore://moganet_xtiny'
    assert plan(10, weights='none').weights is None and plan(10, weights='a.pth').weights == 'a.pth'
    assert plan(10, recipe='detection/retinanet_moganet-xtiny_fpn_digits').weights is None
    assert plan(10, 'classification').weights == 'mogacore://moganet_xtiny'


@pytest.mark.parametrize('names, expected', [
    (['nose', 'left_eye', 'right_eye'], ['', 'right_eye', 'left_eye']),
    (['Left hand', 'Right hand'], ['Right hand', 'Left hand']),
    (['beak', 'left_wing'], ['', '']),
    (['keypoint_0', 'keypoint_1'], None),
])  # fmt: skip
def test_partners_in_a_mirror_image_by_name(names, expected):
    assert flip_partners(Found('', Path(), keypoints=names)) == expected


@pytest.mark.parametrize('name', [
    'detection/cascade-mask-rcnn_moganet-small_fpn_ms-3x_coco', 'detection/mask-rcnn_moganet-xtiny_fpn_digits',
    'segmentation/upernet_moganet-xtiny_digits', 'classification/moganet-small_8xb128_in1k-224',
    'pose/td-hm_moganet-xtiny_digits',
])  # fmt: skip
@pytest.mark.filterwarnings('ignore')
def test_other_recipes(name, tmp_path, monkeypatch):
    """init-data itself makes a dry run of the config, which compares all heads with the data."""
    library = dict(detection='mmdet', segmentation='mmseg', classification='mmpretrain', pose='mmpose')
    kind = name.partition('/')[0]
    pytest.importorskip(library[kind])
    monkeypatch.chdir(tmp_path)
    makers_of = dict(detection=makers.coco, segmentation=makers.masks, classification=makers.class_folders)
    makers_of.get(kind, makers.coco_keypoints)(Path('data'))
    init_data(Options(Path('data'), 'instance' if kind == 'detection' else kind, config=name, out=Path('own.py')))
    cfg = load_config('own.py')
    assert cfg.train_dataloader.dataset.data_root == 'data'
    for stage in ('train', 'val', 'test'):
        metainfo = cfg[f'{stage}_dataloader'].dataset.metainfo
        assert '_delete_' not in metainfo
        assert len(metainfo.get('keypoint_info', 'abc')) == 3


def test_a_recipe_of_gray_images_is_refused():
    with pytest.raises(UserError, match='takes gray images, but own images are read in color: choose one such as'):
        find_recipe('classification', 'classification/moganet-xtiny_digits')


def test_averages_of_the_recipe_are_left_out(tmp_path):
    path = tmp_path / 'recipe.py'
    path.write_text(
        "_base_ = 'detection/retinanet_moganet-xtiny_fpn_1x_coco'\n"
        "custom_hooks = [dict(type='EMAHook'), dict(type='CheckInvalidLossHook')]\n"
    )
    chosen = plan(10, recipe=str(path))
    text = write_config(found(10), 'detection', chosen, 'data', 'mogacore init-data')
    assert 'custom_hooks = [_base_.custom_hooks[1]]  # without EMAHook' in text
    (tmp_path / 'own.py').write_text(text)
    assert [hook.type for hook in load_config(tmp_path / 'own.py').custom_hooks] == ['CheckInvalidLossHook']


def test_a_recipe_that_repeats_its_data_is_replaced(tmp_path):
    path = tmp_path / 'recipe.py'
    path.write_text(
        "_base_ = 'detection/retinanet_moganet-xtiny_fpn_1x_coco'\n"
        'train_dataloader = dict(dataset=dict(_delete_=True, type="RepeatDataset", times=3, '
        'dataset=_base_.train_dataloader.dataset))\n'
    )
    text = write_config(found(10), 'detection', plan(10, recipe=str(path)), 'data', 'mogacore init-data')
    (tmp_path / 'own.py').write_text(text)
    dataset = load_config(tmp_path / 'own.py').train_dataloader.dataset
    assert dataset.type == 'CocoDataset' and 'times' not in dataset and 'dataset' not in dataset


@pytest.mark.parametrize('task', TASKS)
def test_the_text_is_formatted_and_long_lists_of_names_are_broken(task, tmp_path):
    pytest.importorskip(DEFAULTS[task].library)
    data = found(100)
    data.classes = [f'class of objects {number}' for number in range(40)]
    data.keypoints = ["dog's nose", 'left ear', 'right ear']
    text = write_config(data, task, plan(100, task), 'data', 'mogacore init-data')
    ast.parse(text)
    assert max(map(len, text.splitlines())) <= 120 and len(text.splitlines()) < 130
    path = tmp_path / 'own.py'
    path.write_text(text)
    if find_spec('ruff'):
        call = ['python', '-m', 'ruff', 'format', '--diff', '--config', str(ROOT / 'pyproject.toml'), str(path)]
        assert subprocess.run(call, capture_output=True, text=True).stdout == ''


@pytest.mark.parametrize('name', ['semantic-fpn_moganet-xtiny_digits', 'upernet_moganet-xtiny_digits'])
def test_colors_of_maps_are_in_the_config_of_every_recipe(name, tmp_path):
    pytest.importorskip('mmseg')
    data = found(10)
    data.palette = [(0, 0, 0), (1, 2, 3)]
    chosen = plan(10, 'segmentation', f'segmentation/{name}')
    labels = {split: Labels(f'{split}.txt', 'images', 'maps', '.png') for split in LABELS}
    path = tmp_path / 'own.py'
    path.write_text(write_config(data, 'segmentation', replace(chosen, labels=labels), 'data', 'mogacore init-data'))
    assert load_config(path).train_dataloader.dataset.metainfo.palette == [[0, 0, 0], [1, 2, 3]]


def test_joints_of_a_recipe_with_two_classifications_have_the_size_of_the_objects(tmp_path):
    """The width of the targets is that of RTMPose: 4.9 and 5.66 px for 192 x 256."""
    pytest.importorskip('mmpose')
    recipe = 'pose/rtmpose_moganet-tiny_420e_coco-256x192'
    data = found(10)
    data.keypoints = ['nose', 'left ear', 'right ear']
    path = tmp_path / 'own.py'
    for size, sigma, maps in (((192, 256), (4.9, 5.66), (6, 8)), ((192, 192), (4.9, 4.9), (6, 6))):
        chosen = replace(plan(10, 'pose', recipe), size=size)
        path.write_text(write_config(data, 'pose', chosen, 'data', 'mogacore init-data'))
        cfg = load_config(path)
        head = cfg.model.head
        assert (head.input_size, head.in_featuremap_size, head.out_channels) == (size, maps, 3)
        assert head.decoder == cfg.codec == cfg.train_pipeline[-2].encoder
        assert (cfg.codec.input_size, cfg.codec.sigma) == (size, sigma) and cfg.input_shape == (3, size[1], size[0])


def test_images_are_padded_for_necks_that_join_maps(tmp_path):
    path = tmp_path / 'own.py'
    for name in ('rtmdet_moganet-xtiny_digits', 'retinanet_moganet-xtiny_fpn_digits'):
        chosen = plan(10, recipe=f'detection/{name}')
        path.write_text(write_config(found(10), 'detection', chosen, 'data', 'mogacore init-data'))
        assert load_config(path).model.data_preprocessor.pad_size_divisor == 32


@pytest.mark.parametrize('task, name, reason', [
    ('classification', 'classification/moganet-xtiny_multi-label_digits-scenes', 'predicts any number of classes per'),
    ('detection', 'video_prediction/simvp_moganet_moving-digits', 'is one of another task, but --task detection needs'),
    ('pose', 'detection/rtmdet_moganet-xtiny_digits', 'is one of mmdet, but --task pose needs mmpose'),
])  # fmt: skip
def test_recipes_that_do_not_fit_are_refused_and_those_that_do_are_named(task, name, reason):
    with pytest.raises(
        UserError, match=f'recipe {name} {reason}.*: choose one such as {DEFAULTS[task].recipe}'
    ) as error:
        find_recipe(task, name)
    named = str(error.value).partition(', or another of ')[2]
    folder, kinds = named.split('/')[0], named.split('/')[1].split(', ')
    assert {'detection': 'dino-4scale_*', 'pose': 'rtmpose_*', 'classification': 'moganet-tiny_*'}[task] in kinds
    for kind in kinds:
        paths = sorted((ROOT / 'configs' / folder).glob(f'{kind}.py'))
        assert any(fits(task, path) for path in paths), kind


def fits(task, path):
    try:
        return bool(find_recipe(task, str(path)))
    except UserError:
        return False


def test_a_recipe_with_more_queries_than_points_is_refused():
    name = 'detection/dino-4scale_moganet-tiny_1x_coco'
    with pytest.raises(UserError, match='has 900 queries, but the smallest image only 85 points at strides 8 to 64'):
        plan(10, recipe=name, size=(64, 64), side=40.0)
    assert plan(10, recipe=name, size=(640, 480)).recipe.name == name


def test_a_recipe_of_another_type_of_data_set_is_replaced(tmp_path):
    """CIFAR100 has settings that a list of images does not take."""
    chosen = plan(10, 'classification', 'classification/moganet-small_1xb100_cifar100-32')
    labels = {split: Labels(f'{split}.txt') for split in LABELS}
    path = tmp_path / 'own.py'
    path.write_text(write_config(found(10), 'classification', replace(chosen, labels=labels), 'data', 'mogacore'))
    dataset = load_config(path).train_dataloader.dataset
    assert dataset.type == 'CustomDataset' and not {'split', 'download'} & dataset.keys()


def test_the_command_has_the_choices_of_the_package():
    assert command.TASKS == TASKS and tuple(READERS) == command.FORMATS
