"""Layouts that label tools and web sites write: splits, names, and files that can be used as they are."""

import json
import shutil
from pathlib import Path

import folder_makers as makers
import numpy as np
import pytest
from folder_makers import CLASSES, Drawn, scenes
from PIL import Image

from mogacore.engine.config import load_config, locate_data
from mogacore.errors import UserError
from mogacore.init_data import Options, init_data

for library in ('mmpretrain', 'mmdet', 'mmseg', 'mmpose'):
    pytest.importorskip(library)
pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path('my data')
    path.mkdir()
    return path


def run(folder, task, **options):
    init_data(Options(folder, task, out=Path('own.py'), **options))
    return load_config('own.py')


def files(folder, split):
    """Names of the images in a converted COCO file, without folders."""
    content = json.loads((folder / f'mogacore/{split}.json').read_text())
    return {Path(image['file_name']).name for image in content['images']}


def boxes(folder, split='train'):
    content = json.loads((folder / f'mogacore/{split}.json').read_text())
    return [entry['bbox'] for entry in content['annotations']]


def test_coco_files_with_a_split_are_used_as_they_are(folder):
    drawn = scenes()
    makers.coco(folder, drawn[:6], 'annotations/instances_train2017.json', 'train2017')
    makers.coco(folder, drawn[6:], 'annotations/instances_val2017.json', 'val2017')
    cfg = run(folder, 'detection')
    assert sorted(path.name for path in folder.iterdir()) == ['annotations', 'train2017', 'val2017']
    dataset = cfg.train_dataloader.dataset
    assert (dataset.ann_file, dataset.data_prefix.img) == ('annotations/instances_train2017.json', 'train2017/')
    assert cfg.val_dataloader.dataset.ann_file == 'annotations/instances_val2017.json'
    assert cfg.test_dataloader.dataset.ann_file == cfg.val_dataloader.dataset.ann_file
    assert tuple(dataset.metainfo.classes) == CLASSES


def test_coco_files_with_a_split_become_maps(folder):
    drawn = scenes(is_integer=True)
    makers.coco(folder, drawn[:6], 'train.json', 'train')
    makers.coco(folder, drawn[6:], 'val.json', 'val')
    cfg = run(folder, 'segmentation')
    assert (folder / 'mogacore/val.txt').read_text().splitlines() == [f'val/{image.name}' for image in drawn[6:]]
    values = np.asarray(Image.open(folder / 'mogacore/maps/val/deep/1.png.png'))
    assert np.array_equal(values, makers.class_map(drawn[8])) and list(cfg.classes) == ['background', *CLASSES]


def test_coco_images_are_told_from_maps_of_the_same_names(folder, capsys):
    """As in the digit scenes: names start anew in each split, and maps have them as well."""
    for split, number in (('train', 4), ('val', 2)):
        drawn = [Drawn(f'{index}.png', (64, 48), [(CLASSES[0], (2, 3, 30, 20))]) for index in range(number)]
        makers.coco(folder, drawn, f'annotations/instances_{split}.json', split)
        makers.coco_keypoints(Path('others'), drawn)
        shutil.move('others/annotations.json', folder / f'annotations/keypoints_{split}.json')
        for image in drawn:
            image.save(folder / 'segmentation' / split)
    cfg = run(folder, 'detection')
    assert cfg.val_dataloader.dataset.data_prefix.img == 'val/' and not (folder / 'mogacore').exists()
    shutil.copytree(folder / 'val', folder / 'copy/val')
    with pytest.raises(UserError, match='has 1 problem'):
        run(folder, 'pose', force=True)
    assert 'keypoints_val.json: its images are in several folders (copy/val/, val/): remove' in capsys.readouterr().out


def test_a_test_split_is_kept_for_the_test(folder):
    drawn = scenes()
    for split, part in (('train', drawn[:4]), ('valid', drawn[4:8]), ('test', drawn[8:])):
        makers.coco(folder, part, f'{split}/_annotations.coco.json', split)
    cfg = run(folder, 'detection')
    for stage, split in (('train', 'train'), ('val', 'valid'), ('test', 'test')):
        assert cfg[f'{stage}_dataloader'].dataset.ann_file == f'{split}/_annotations.coco.json'


def test_train_and_test_without_val_draws_val_from_train(folder, capsys):
    drawn = scenes()
    makers.coco(folder, drawn[:6], 'train.json', 'train')
    makers.coco(folder, drawn[6:], 'test.json', 'test')
    run(folder, 'detection', val_fraction=0.5)
    assert '3 train, 3 val, 4 test (drawn: --val-fraction 0.5 --seed 0)' in capsys.readouterr().out
    assert files(folder, 'test') == {Path(image.name).name for image in drawn[6:]}
    assert not files(folder, 'train') & files(folder, 'val')


def test_coco_boxes_outside_and_without_area_are_reported_and_left_out(folder, capsys):
    makers.coco(folder)
    path = folder / 'annotations.json'
    content = json.loads(path.read_text())
    content['annotations'][0]['bbox'] = [50, 4, 30, 30]  # 16 px too wide
    content['annotations'][1]['bbox'] = [5, 5, 0, 10]
    content['annotations'][2] |= dict(content['annotations'][3], id=content['annotations'][2]['id'])
    path.write_text(json.dumps(content))
    run(folder, 'detection')
    screen = capsys.readouterr().out
    assert 'note: my data/annotations.json: object blå leaves image images/one.jpg by 16 px and is clipped' in screen
    assert 'object red thing has no area in the image and is left out' in screen
    assert 'is there twice and is left out once' in screen
    found = boxes(folder, 'train') + boxes(folder, 'val')
    assert [50, 4, 14, 30] in found and len(found) == 12


def test_classes_select_and_order(folder, capsys):
    makers.coco(folder)
    cfg = run(folder, 'detection', classes=['red thing'])
    assert 'class blå is left out, since --classes does not have it' in capsys.readouterr().out
    assert cfg.model.bbox_head.num_classes == 1 and len(boxes(folder, 'train') + boxes(folder, 'val')) == 8


def test_masks_of_coco_and_labelme_stay_run_lengths(folder):
    makers.labelme(folder)
    run(folder, 'instance')
    masks = {}
    for split in ('train', 'val'):
        content = json.loads((folder / f'mogacore/{split}.json').read_text())
        names = {image['id']: image['file_name'] for image in content['images']}
        masks |= {
            (names[e['image_id']], tuple(e['bbox'])): (e['segmentation'], e['area']) for e in content['annotations']
        }
    encoded, area = masks['alpha.png', (32, 32, 32, 32)]
    assert encoded['size'] == [64, 64] and area == 32 * 32
    assert masks['one.jpg', (2, 4, 20, 30)] == ([[2, 4, 22, 4, 22, 34, 2, 34]], 600)


def test_labelme_groups_are_one_object_and_lines_are_left_out(folder, capsys):
    Drawn('a.png', (64, 48)).save(folder)
    Drawn('b.png', (64, 48)).save(folder)
    square = [[0, 0], [10, 0], [10, 10]]
    shapes = [
        dict(label='x', points=[[x + dx, y] for x, y in square], group_id=1, shape_type='polygon') for dx in (0, 30)
    ]
    shapes += [dict(label='x', points=[[20, 20], [25, 20]], group_id=None, shape_type='circle')]
    shapes += [dict(label='x', points=[[1, 2], [3, 4]], group_id=None, shape_type='line')]
    for name in 'ab':
        content = dict(shapes=shapes, imagePath=f'..\\{name}.png', imageWidth=64, imageHeight=48)
        makers.write_json(folder / f'{name}.json', content)
    run(folder, 'instance')
    assert 'shape 4 (x) is a line, which has no area, and is left out (1 more such file)' in capsys.readouterr().out
    group, circle = json.loads((folder / 'mogacore/train.json').read_text())['annotations']
    assert group['bbox'] == [0, 0, 40, 10] and len(group['segmentation']) == 2
    assert circle['bbox'] == pytest.approx([15, 15, 10, 10])


@pytest.mark.parametrize('layout', ['images/{}', '{}/images'])
def test_yolo_folders_of_splits(layout, folder):
    drawn = scenes()
    parts = dict(train=drawn[:5], val=drawn[5:])
    for split, part in parts.items():
        makers.yolo(Path('one'), part)
        target = folder / layout.format(split)
        for kind in ('images', 'labels'):
            shutil.copytree(Path('one', kind), Path(str(target).replace('images', kind)))
        shutil.rmtree('one')
    text = f'train: ../{layout.format("train")}\nval: ../{layout.format("val")}\nnames: [a, b]\n'
    (folder / 'data.yaml').write_text(text)
    run(folder, 'detection')
    for split, part in parts.items():
        assert files(folder, split) == {Path(image.name).name for image in part}


def test_yolo_lists_of_images_beside_their_labels_without_names(folder, capsys):
    drawn = scenes()[6:]
    makers.yolo(Path('one'), drawn)
    for image in drawn:
        for kind, suffix in (('images', '.png'), ('labels', '.txt')):
            path = Path('one', kind, image.name).with_suffix(suffix)
            shutil.copy(path, folder / f'{image.name.replace("/", "_")[:-4]}{suffix}')
    run(folder, 'detection')
    assert 'classes    class_0 2, class_1 3' in capsys.readouterr().out


def test_yolo_class_numbers_without_names_may_be_any(folder, capsys):
    drawn = makers.yolo(folder)
    (folder / 'data.yaml').unlink()
    path = folder / 'labels/one.txt'
    path.write_text(path.read_text() + '4000000000 0.5 0.5 0.1 0.1\n')
    cfg = run(folder, 'detection')
    counts = [sum(name == own for image in drawn for name, _ in image.objects) for own in CLASSES]
    assert f'class_0 {counts[0]}, class_1 {counts[1]}, class_4000000000 1' in capsys.readouterr().out
    assert tuple(cfg.train_dataloader.dataset.metainfo.classes) == ('class_0', 'class_1', 'class_4000000000')


def test_yolo_keypoints_without_names_are_not_flipped(folder, capsys):
    makers.yolo_keypoints(folder)
    path = folder / 'data.yaml'
    path.write_text(path.read_text().partition('flip_idx')[0])
    cfg = run(folder, 'pose')
    assert 'mirrored   unknown, no flips' in capsys.readouterr().out
    assert cfg.model.test_cfg.flip_test is False
    assert all(step['type'] != 'RandomFlip' for step in cfg.train_dataloader.dataset.pipeline)


def test_voc_lists_and_coordinates_from_0(folder, capsys):
    drawn = makers.voc(folder, first=0)
    stems = [Path(image.name).stem for image in drawn if image.name not in ('deep/1.png', 'deep/2.png')]
    sets = folder / 'ImageSets/Main'
    sets.mkdir(parents=True)
    names = list(dict.fromkeys(stems))
    (sets / 'train.txt').write_text('\n'.join(names[:4]))
    (sets / 'val.txt').write_text('\n'.join(names[4:6]))
    (sets / 'trainval.txt').write_text('\n'.join(names))
    run(folder, 'detection')
    screen = capsys.readouterr().out
    assert 'corners of boxes are taken as coordinates from 0' in screen
    assert files(folder, 'val') == {f'{name}.{"jpg" if name in ("turned", "empty") else "png"}' for name in names[4:6]}
    assert [2.5, 4.25, 20.5, 24] in boxes(folder)


def test_voc_difficult_objects_are_crowds(folder, capsys):
    makers.voc(folder)
    path = folder / 'Annotations/one.xml'
    path.write_text(path.read_text().replace('<difficult>0', '<difficult>1', 1))
    run(folder, 'detection')
    assert 'one.xml: a difficult object becomes iscrowd' in capsys.readouterr().out


def test_class_folders_with_splits_are_used_as_they_are(folder):
    makers.class_folders(folder, ('Training', 'validation'))
    cfg = run(folder, 'classification')
    assert not (folder / 'mogacore').exists()
    assert (
        cfg.train_dataloader.dataset.data_prefix == 'Training'
        and cfg.val_dataloader.dataset.data_prefix == 'validation'
    )


def test_class_folders_of_two_names_of_a_split_are_all_used(folder):
    labels = makers.class_folders(folder, ('train', 'val', 'validation'))
    cfg = run(folder, 'classification')
    listed = [line.rpartition(' ')[0] for line in (folder / 'mogacore/val.txt').read_text().splitlines()]
    assert sorted(listed) == sorted(name for name in labels if name.startswith('val'))
    assert cfg.val_dataloader.dataset.ann_file == 'mogacore/val.txt'


def test_class_folders_without_split_become_lists_of_every_class(folder):
    labels = makers.class_folders(folder)
    cfg = run(folder, 'classification', val_fraction=0.33)
    listed = {}
    for split in ('train', 'val'):
        for line in (folder / f'mogacore/{split}.txt').read_text().splitlines():
            name, _, number = line.rpartition(' ')
            listed[name] = CLASSES[int(number)], split
    assert {name: label for name, (label, _) in listed.items()} == labels
    assert [value for value in listed.values() if value[1] == 'val'].count((CLASSES[0], 'val')) == 2
    assert tuple(cfg.train_dataloader.dataset.metainfo.classes) == CLASSES


def test_images_of_other_kinds_are_reported(folder, capsys):
    makers.class_folders(folder)
    (folder / CLASSES[0] / 'x.heic').write_bytes(b'')
    run(folder, 'classification')
    assert f'images that cannot be read: 1, the first is {CLASSES[0]}/x.heic' in capsys.readouterr().out


@pytest.mark.parametrize('layout', ['{kind}/{split}', '{split}/{kind}'])
def test_maps_with_splits_are_used_where_they_are(layout, folder):
    for split in ('train', 'val'):
        for index in range(2):
            image = Drawn(f'{index}.png', (64, 48), [(CLASSES[0], (4, 4, 20, 20))])
            image.save(folder / layout.format(split=split, kind='images'))
            path = folder / layout.format(split=split, kind='masks') / f'{index}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(makers.class_map(image)).save(path)
    cfg = run(folder, 'segmentation')
    assert sorted(path.name for path in (folder / 'mogacore').iterdir()) == ['init-data.json', 'train.txt', 'val.txt']
    dataset = cfg.val_dataloader.dataset
    assert dataset.data_prefix.seg_map_path == ('masks/' if layout.startswith('{kind}') else 'val/masks/')
    assert dataset.img_suffix == '.png'


@pytest.mark.parametrize('kind, names', [('colors', True), ('palette', True), ('binary', False)])
def test_maps_are_converted_to_class_indices(kind, names, folder):
    drawn = makers.masks(folder, kind, ending='_mask')
    cfg = run(folder, 'segmentation')
    assert list(cfg.metainfo.classes if 'metainfo' in cfg else cfg.classes)[:1] == ['background']
    for image in drawn:
        values = np.asarray(Image.open(folder / f'mogacore/maps/images/{image.name}.png'))
        true = makers.class_map(image)
        assert np.array_equal(values, true if names else np.minimum(true, 1))


def test_polygons_become_maps_with_small_objects_on_top(folder):
    shapes = [('small', (20, 20, 8, 8)), ('large', (10, 10, 30, 30))]
    for name in 'ab':
        Drawn(f'{name}.png', (64, 48)).save(folder)
        entries = [
            dict(label=label, points=[[x, y], [x + w, y + h]], shape_type='rectangle') for label, (x, y, w, h) in shapes
        ]
        content = dict(shapes=entries, imagePath=f'{name}.png', imageWidth=64, imageHeight=48)
        makers.write_json(folder / f'{name}.json', content)
    run(folder, 'segmentation')
    values = np.asarray(Image.open(folder / 'mogacore/maps/a.png.png'))
    expected = np.zeros((48, 64), np.uint8)
    expected[10:40, 10:40], expected[20:28, 20:28] = 1, 2
    assert np.array_equal(values, expected)


def test_labels_go_to_another_folder(folder, tmp_path):
    makers.coco(folder)
    cfg = run(folder, 'detection', data_out=tmp_path / 'labels')
    assert not (folder / 'mogacore').exists()
    assert cfg.train_dataloader.dataset.ann_file == str(tmp_path / 'labels/train.json')


@pytest.mark.parametrize('out', ['of mine/own.py', 'configs/own.py', 'my data/own.py'])
def test_the_config_stands_in_any_folder_and_finds_its_data_from_any(out, folder, tmp_path, monkeypatch):
    makers.coco(folder)
    init_data(Options(folder, 'detection', out=Path(out)))
    config = Path(out).resolve()
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    cfg = load_config(config)
    locate_data(cfg, 'train')
    assert cfg.train_dataloader.dataset.data_root == str((tmp_path / folder).resolve())


def test_sources_are_not_changed_and_a_second_call_gives_the_same(folder):
    makers.yolo(folder)
    before = {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}
    run(folder, 'detection')
    assert all(path.read_bytes() == content for path, content in before.items())
    first = {path.name: path.read_bytes() for path in (folder / 'mogacore').iterdir()} | {
        'own': Path('own.py').read_bytes()
    }
    run(folder, 'detection', force=True)
    second = {path.name: path.read_bytes() for path in (folder / 'mogacore').iterdir()} | {
        'own': Path('own.py').read_bytes()
    }
    assert first == second
    run(folder, 'detection', force=True, seed=1)
    assert (folder / 'mogacore/val.json').read_bytes() != first['val.json']
