"""Browsing shows what the network gets: pixels, annotations, mixed labels, and each step of the pipeline."""

import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from mogacore.analysis.browse import browse
from mogacore.analysis.browse.batches import Viewer, fit
from mogacore.analysis.browse.pixels import Scale
from mogacore.analysis.browse.run import caption
from mogacore.cli.main import main
from mogacore.coco_eval import mask as masks
from mogacore.engine.dataset_meta import dataset_facts
from mogacore.engine.split import Split
from mogacore.errors import UserError

CONFIGS = {
    'classification': 'classification/moganet-xtiny_digits',
    'detection': 'detection/retinanet_moganet-xtiny_fpn_digits',
    'instances': 'detection/mask-rcnn_moganet-xtiny_fpn_digits',
    'segmentation': 'segmentation/semantic-fpn_moganet-xtiny_digits',
    'pose': 'pose/td-hm_moganet-xtiny_digits',
}
LIBRARIES = dict(classification='mmpretrain', detection='mmdet', instances='mmdet', segmentation='mmseg', pose='mmpose')
MIX = {'model.train_cfg': dict(augments=[dict(type='Mixup', alpha=1.0)])}


@pytest.fixture
def at_data(digit_data, monkeypatch):
    monkeypatch.chdir(digit_data)
    return digit_data


@pytest.fixture
def copied(digit_data, tmp_path, monkeypatch):
    """A copy of the scenes, to corrupt, in the current folder."""
    shutil.copytree(digit_data / 'data' / 'digits' / 'scenes', tmp_path / 'data' / 'digits' / 'scenes')
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'data' / 'digits' / 'scenes'


def viewer(task, split='train', seed=0, **cfg_options):
    pytest.importorskip(LIBRARIES[task])
    return Viewer(Split(CONFIGS[task], split, cfg_options=cfg_options), seed)


def rgb(path):
    return np.asarray(Image.open(path).convert('RGB'))


def steps_of(*steps):
    return {'train_dataloader.dataset.pipeline': list(steps)}


@pytest.mark.parametrize('task', ['classification', 'detection', 'instances', 'segmentation'])
def test_the_image_without_drawing_is_the_file_where_nothing_changes_it(task, at_data):
    found = viewer(task, 'val')
    indices = found.choose(3)
    views = found.views(indices, 1)
    assert len(indices) == 3 and indices == sorted(set(indices))
    for view in views:
        assert abs(view.tensor.numpy()).max() < 5  # normalized by the data preprocessor
        np.testing.assert_array_equal(view.image, rgb(view.meta['img_path']))


LOAD, LABELS, PACK = (dict(type=kind) for kind in ('LoadImageFromFile', 'LoadAnnotations', 'PackSegInputs'))


@pytest.mark.parametrize(
    'steps, preprocessor',
    [
        ([dict(type='Normalize', mean=[120, 110, 100], std=[60, 50, 40], to_rgb=True)], dict(bgr_to_rgb=False)),
        ([dict(type='Normalize', mean=[120, 110, 100], std=[60, 50, 40], to_rgb=False)], dict(bgr_to_rgb=True)),
        ([dict(type='Normalize', mean=[7, 8, 9], std=[2, 3, 4], to_rgb=True)], dict(bgr_to_rgb=True, mean=[1, 2, 3])),
    ],
)
def test_a_pipeline_that_normalizes_is_undone(steps, preprocessor, at_data):
    settings = dict(mean=None, std=None) | preprocessor
    if settings['mean']:
        settings['std'] = [2, 3, 4]
    options = {f'model.data_preprocessor.{key}': value for key, value in settings.items()}
    found = viewer('segmentation', **options, **steps_of(LOAD, LABELS, *steps, PACK))
    for view in found.views([0, 5], 1):
        np.testing.assert_array_equal(view.image, rgb(view.meta['img_path']))
        assert np.ptp(view.tensor.numpy()) < 200


def test_transforms_of_torchvision_are_undone():
    mmpretrain = pytest.importorskip('mmpretrain')
    assert mmpretrain
    from mmengine.registry import TRANSFORMS, DefaultScope

    image = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)  # BGR
    results, scale = dict(img=image), Scale.of_files('bgr')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        for step in (
            dict(type='NumpyToPIL', to_rgb=True),
            dict(type='torchvision/ToTensor'),
            dict(type='torchvision/Normalize', mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7]),
        ):
            transform = TRANSFORMS.build(step)
            results, scale = transform(results), scale.after(transform)
    assert results['img'].max() < 2
    np.testing.assert_array_equal(scale.to_image(results['img']), image[..., ::-1])


def test_channels_other_than_three_and_wide_values_are_shown():
    import torch

    values = torch.arange(24).reshape(1, 4, 6)
    gray = Scale.of_files('gray').to_image(values)
    assert (gray == values.numpy()[0][..., None]).all() and gray.shape == (4, 6, 3)
    assert (Scale.of_files('bgr').to_image(values.repeat(2, 1, 1)) == gray).all()
    wide = Scale.of_files('gray').to_image(torch.tensor([[[0.0, 30000.0, 60000.0]]]))
    assert wide[0, :, 0].tolist() == [0, 128, 255]
    bright = Scale.of_files('gray').to_image(torch.tensor([[[-20.0, 100.0, 400.0]]]))  # of PhotoMetricDistortion
    assert bright[0, :, 0].tolist() == [0, 100, 255]


def test_boxes_and_masks_are_those_of_the_file(at_data):
    found = viewer('instances')
    content = json.loads((at_data / 'data/digits/scenes/annotations/instances_train.json').read_text())
    names = {category['id']: category['name'] for category in content['categories']}
    for view in found.views(found.choose(4), 1):
        objects = [entry for entry in content['annotations'] if entry['image_id'] == view.meta['img_id']]
        corners = [[x, y, x + width, y + height] for x, y, width, height in (entry['bbox'] for entry in objects)]
        np.testing.assert_allclose(view.truth['boxes'], corners)
        classes = [found.dataset.metainfo['classes'][label] for label in view.truth['labels']]
        assert classes == [names[entry['category_id']] for entry in objects]
        for mask, entry in zip(view.truth['masks'], objects, strict=True):
            encoded = entry['segmentation']
            if isinstance(encoded['counts'], list):
                encoded = masks.frPyObjects(encoded, *encoded['size'])
            np.testing.assert_array_equal(mask, masks.decode(encoded))


def test_class_maps_are_those_of_the_file_and_ignored_pixels_are_apart(at_data):
    path = at_data / 'data/digits/scenes/segmentation/train'
    for zero in (False, True):
        labels = dict(LABELS, reduce_zero_label=zero)
        found = viewer(
            'segmentation', **steps_of(LOAD, labels, PACK),
            **{'train_dataloader.dataset.reduce_zero_label': zero, 'model.decode_head.ignore_index': 255},
        )  # fmt: skip
        (view,) = found.views([3], 1)
        values = np.asarray(Image.open(path / '0003.png')).astype(int)
        assert (view.truth['ignored'] == (zero & (values == 0))).all()
        np.testing.assert_array_equal(view.truth['class_map'], (values - zero).clip(0))
        drawn = found.samples.task(dataset_facts(found.samples.meta), 0).draw(view.image, view.truth)
        same = (drawn == cv2.resize(view.image, drawn.shape[1::-1], interpolation=cv2.INTER_CUBIC)).all(2)
        assert same.mean() > 0.5 if zero else same.mean() < 0.05  # ignored pixels stay as they are


def test_annotations_that_a_test_loads_after_resizing_fit_the_image(at_data):
    options = {
        'val_dataloader.dataset.pipeline': [
            LOAD, dict(type='Resize', scale=(64, 64), keep_ratio=True), dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs'),
        ]
    }  # fmt: skip
    (small,), (full,) = viewer('detection', 'val', **options).views([1], 1), viewer('detection', 'val').views([1], 1)
    assert small.image.shape == (64, 64, 3)
    np.testing.assert_allclose(small.truth['boxes'], full.truth['boxes'] / 2)


def test_keypoints_are_in_pixels_of_the_crop(at_data):
    found = viewer('pose')
    content = json.loads((at_data / 'data/digits/scenes/annotations/keypoints_train.json').read_text())
    by_id = {entry['id']: np.array(entry['keypoints'], float).reshape(-1, 3) for entry in content['annotations']}
    flips = []
    for view in found.views(found.choose(6), 1):
        center, scale = np.array(view.meta['input_center']), np.array(view.meta['input_scale'])
        points = by_id[view.meta['id']]
        if view.meta.get('flip'):
            points = points[[0, 1, 3, 2, 4]]  # left and right change places
            points[:, 0] = 128 - 1 - points[:, 0]
        expected = (points[:, :2] - center + scale / 2) / scale * 64
        np.testing.assert_allclose(view.truth['keypoints'][0], expected, atol=0.6)
        assert 'boxes' not in view.truth and (view.truth['scores'] == 1).all()
        flips.append(bool(view.meta.get('flip')))
    assert len(set(flips)) == 2


@pytest.mark.parametrize('augment', ['Mixup', 'CutMix'])
def test_mixed_images_have_the_classes_of_both_partners(augment, at_data):
    options = {'model.train_cfg': dict(augments=[dict(type=augment, alpha=1.0)])}
    found = viewer('classification', **options)
    batches = []
    found.preprocessor.batch_augments, mix = None, found.preprocessor.batch_augments
    found.preprocessor.batch_augments = lambda images, scores: batches.append((images, scores)) or mix(images, scores)
    views = found.views(found.choose(4), 2)
    images, scores = (values.numpy() for values in batches[0])
    task = found.samples.task(dataset_facts(found.samples.meta), 0)
    assert len(views) == 4 and len(images) == 16  # filled with other samples
    num_mixed = 0
    for number, view in enumerate(views):
        weights = view.truth['probabilities']
        np.testing.assert_allclose(weights.sum(), 1, atol=1e-6)
        own = int(scores[number].argmax())
        others = [label for label in np.flatnonzero(weights) if label != own]
        if not others:
            continue
        num_mixed += 1
        share, (other,) = float(weights[own]), others
        partners = images[scores[:, other] == 1]
        tensor = view.tensor.numpy()
        if augment == 'Mixup':
            errors = [abs(share * images[number] + (1 - share) * one - tensor).max() for one in partners]
        else:  # every pixel is that of one of both
            errors = [np.minimum(abs(images[number] - tensor), abs(one - tensor)).max() for one in partners]
        assert min(errors) < 1e-5
        text = caption(task, view.truth)
        assert f'{task.class_name(own)} {share:.2f}' in text and f'{task.class_name(other)} {1 - share:.2f}' in text
    assert num_mixed >= 2


def test_several_labels_are_all_in_the_caption(at_data, tmp_path):
    pytest.importorskip('mmpretrain')
    files = sorted((at_data / 'data/digits/classification/train/3').iterdir())[:4]
    entries = [
        dict(img_path=str(file), gt_label=labels) for file, labels in zip(files, ([0, 2], [1], [], [2]), strict=True)
    ]
    names = ['round', 'thin', 'left']
    (tmp_path / 'labels.json').write_text(json.dumps(dict(metainfo=dict(classes=names), data_list=entries)))
    (tmp_path / 'several.py').write_text(f"""
_base_ = '{CONFIGS['classification']}'
model = dict(head=dict(_delete_=True, type='MultiLabelLinearClsHead', num_classes=3, in_channels=192))
data_preprocessor = dict(num_classes=3, to_onehot=True)
train_dataloader = dict(dataset=dict(
    _delete_=True, type='MultiLabelDataset', ann_file='{tmp_path}/labels.json', metainfo=dict(classes={names}),
    pipeline=[dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='PackInputs')]))
""")
    found = Viewer(Split(str(tmp_path / 'several.py'), 'train'), 0)
    task = found.samples.task(dataset_facts(found.samples.meta), 0)
    captions = [caption(task, view.truth) for view in found.views([0, 1, 2, 3], 1)]
    assert captions == ['round, left', 'thin', 'no label', 'left']


def test_steps_show_each_change_and_end_with_the_first_version(at_data):
    pipeline = [
        LOAD, dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0),
        dict(type='Pad', size_divisor=48), dict(type='PackDetInputs'),
    ]  # fmt: skip
    found = viewer('instances', **steps_of(*pipeline))
    from mogacore.analysis.browse.steps import changes

    (view,) = found.views([2], 1)
    walked = found.steps(2, 1)
    assert [step.name for step in walked] == [step['type'] for step in pipeline[:-1]]
    loaded, flipped, padded = changes(walked)
    assert [loaded.name, flipped.name, padded.name] == ['LoadAnnotations', 'RandomFlip', 'Pad']
    np.testing.assert_array_equal(flipped.image, loaded.image[:, ::-1])
    np.testing.assert_allclose(flipped.truth['boxes'][:, [0, 2]], 128 - loaded.truth['boxes'][:, [2, 0]])
    np.testing.assert_array_equal(flipped.truth['masks'], loaded.truth['masks'][..., ::-1])
    assert padded.image.shape == (144, 144, 3) and padded.truth['masks'].shape[1:] == (144, 144)
    height, width = padded.image.shape[:2]
    np.testing.assert_array_equal(view.image[:height, :width], padded.image)  # mmdet pads to a multiple of 32


def test_steps_see_through_wrappers_of_data_sets(at_data):
    found = viewer('classification')
    size = len(found.dataset)
    assert size == 3 * 1442  # repeated three times
    for index in (0, size - 1):
        (view,) = found.views([index], 1)
        np.testing.assert_array_equal(found.steps(index, 1)[-1].image, view.image)


def test_the_same_seed_gives_the_same_files_and_another_one_others(at_data, tmp_path):
    pytest.importorskip('mmpose')
    written = {}
    for name, seed in (('a', 5), ('b', 5), ('c', 6)):
        browse(CONFIGS['pose'], tmp_path / name, num=2, versions=2, seed=seed)
        written[name] = {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
    assert written['a'] == written['b'] and written['a']['sheet.png'] != written['c']['sheet.png']


@pytest.mark.parametrize('task', CONFIGS)
def test_the_command_writes_files_and_a_sheet_with_one_row_per_sample(task, at_data, tmp_path, capsys):
    pytest.importorskip(LIBRARIES[task])
    out = tmp_path / 'shown'
    with pytest.raises(SystemExit) as end:
        main(['browse', CONFIGS[task], '--out', str(out), '--num', '2', '--steps'])
    assert not end.value.code and 'sheet.png' in capsys.readouterr().out
    report = json.loads((out / 'browse.json').read_text())
    for record in report['samples']:
        name = f'{record["index"]:05}'
        number = len(record['versions'])
        assert record['files'] == [f'{name}_{part}.png' for part in ('source', *range(1, number + 1), 'steps')]
        assert number == (4 if task in ('classification', 'pose') else 1)  # nothing is random in the others
        assert all((out / file).is_file() for file in record['files'])
    files = {file for record in report['samples'] for file in record['files']}
    assert files | {'sheet.png', 'browse.json'} == {path.name for path in out.iterdir()}
    sheet = rgb(out / 'sheet.png')
    assert sheet.shape[0] > sheet.shape[1] * 2 / (number + 1) * 0.8


def test_sequences_are_strips_of_input_and_target(at_data, tmp_path):
    (record,) = browse('video_prediction/simvp_moganet_moving-digits', tmp_path, 'test', num=1)
    strip = rgb(tmp_path / record['files'][0])
    frames = np.load(at_data / 'data/digits/moving/mnist_test_seq.npy')[:, record['index']]
    for start, row in ((0, strip[:64]), (10, strip[66:130])):
        shown = [row[:, 96 + 66 * number :][:, :64] for number in range(10)]
        np.testing.assert_array_equal(np.stack(shown)[..., 0], frames[start : start + 10])
    with pytest.raises(UserError, match='--steps needs a pipeline'):
        browse('video_prediction/simvp_moganet_moving-digits', tmp_path, 'test', steps=True)


def test_3d_hands_are_drawn_with_their_skeletons(tmp_path, monkeypatch):
    pytest.importorskip('mmpose')
    from mogacore.datasets.hands import write_hands

    monkeypatch.chdir(tmp_path)
    write_hands(tmp_path / 'data' / 'hands', num_train=4, num_test=3)
    for name in ('heatmap3d_moganet-xtiny_freihand-synthetic', 'internet_moganet-xtiny_interhand3d-synthetic'):
        split = Split(f'pose/hand3d/{name}', 'train')
        found = Viewer(split, 0)
        (view,) = found.views([0], 1)
        scale = np.array(view.meta['input_scale'])
        depths = found.dataset.get_data_info(0)['keypoints'][..., 2]
        assert view.truth['keypoints'].shape[-1] == 3 and scale.shape == (2,)
        mirrored = 'internet' in name and view.meta.get('flip')
        joints = np.r_[21:42, 0:21] if mirrored else np.arange(depths.shape[1])
        np.testing.assert_allclose(view.truth['keypoints'][..., 2], depths[:, joints], atol=1e-3)
        drawn = found.samples.task(dataset_facts(found.samples.meta), 0.5).draw(view.image, view.truth)
        assert drawn.shape[1] == drawn.shape[0] * 3 // 2 and (drawn[:, drawn.shape[0] :] != 255).any()
    assert view.truth['hands'].shape == (1, 2) and view.truth['root_depth'].shape == (1,)


def test_maps_and_masks_are_padded_like_the_image():
    truth = dict(masks=np.ones((2, 3, 4), bool), class_map=np.full((3, 4), 7), ignored=np.zeros((3, 4), bool))
    fitted = fit(truth | dict(boxes=np.zeros((2, 4))), (5, 6))
    assert fitted['masks'].sum() == 24 and fitted['masks'].shape == (2, 5, 6)
    assert fitted['class_map'].sum() == 84 and fitted['ignored'].sum() == 30 - 12
    assert fit(truth, (2, 3))['class_map'].shape == (2, 3)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


BREAKING = {
    'missing': ('instances', lambda scenes: (scenes / 'train' / '0004.png').unlink(), '0004.png'),
    'unreadable': ('instances', lambda scenes: (scenes / 'train' / '0004.png').write_bytes(b'no image'), '0004.png'),
    'category': (
        'instances',
        lambda scenes: edit(
            scenes / 'annotations' / 'instances_train.json', lambda c: c['annotations'][3].update(category_id=77)
        ),
        'category_id',
    ),
    'map': (
        'segmentation',
        lambda scenes: Image.fromarray(np.full((128, 128), 77, np.uint8)).save(scenes / 'segmentation/train/0004.png'),
        'value 77',
    ),
}


@pytest.mark.parametrize('name', BREAKING)
def test_broken_data_is_one_line_and_writes_nothing(name, copied, tmp_path, capsys):
    task, damage, message = BREAKING[name]
    pytest.importorskip(LIBRARIES[task])
    damage(copied)
    with pytest.raises(SystemExit) as end:
        main(['browse', CONFIGS[task], '--out', str(tmp_path / 'out')])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert end.value.code == 2 and error.startswith('error: ') and message in error
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--num', '0'], '--num is 0'),
        (['--versions', '0'], '--versions is 0'),
        (['--seed', '-1'], '--seed is -1'),
        (['--cfg-options', 'train_dataloader=None'], 'has no train_dataloader: choose from val, test'),
        (['--cfg-options', 'train_dataloader.dataset.data_root=nowhere'], 'data folder nowhere is missing'),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message, at_data, tmp_path, capsys):
    pytest.importorskip('mmdet')
    with pytest.raises(SystemExit) as end:
        main(['browse', CONFIGS['detection'], '--out', str(tmp_path / 'out'), *arguments])
    assert end.value.code == 2 and message in capsys.readouterr().err
