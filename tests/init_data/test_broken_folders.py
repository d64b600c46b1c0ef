"""Faulty folders: one line for each problem, exit code 2, and nothing is written."""

import json
import os
from pathlib import Path

import folder_makers as makers
import numpy as np
import pytest
from folder_makers import Drawn, scenes
from PIL import Image

from mogacore.cli.main import main
from mogacore.errors import UserError
from mogacore.init_data.masks import read_map

for library in ('mmpretrain', 'mmdet', 'mmseg', 'mmpose'):
    pytest.importorskip(library)

CASES = {}


def case(name, maker, task, *parts, flags=()):
    """Add a row: the change of a valid folder, and parts of the lines on the screen."""

    def add(change):
        assert name not in CASES
        CASES[name] = maker, task, change, parts, flags
        return change

    return add


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def replace_text(path, old, new):
    text = path.read_text(encoding='utf-8')
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding='utf-8')


# Every format

WRONG_SIZE = 'is 48 x 64 px (width x height) as it is shown (EXIF orientation 6), but 64 x 48 in'


@case('no image', makers.coco, 'detection', 'has no images with .jpg')
def _(folder):
    for path in [*folder.rglob('*.jpg'), *folder.rglob('*.png')]:
        path.unlink()


@case('no labels', makers.coco, 'detection', 'data has 10 images, but no labels for --task detection in a known format')
def _(folder):
    (folder / 'annotations.json').unlink()


@case('two formats', makers.coco, 'detection', 'labels in several formats (coco, yolo): choose one with --format')
def _(folder):
    makers.yolo(folder)


@case('truncated image', makers.coco, 'detection', 'problem: image data/images/one.jpg is empty, truncated or not an')
def _(folder):
    (folder / 'images/one.jpg').write_bytes(b'')


@case('unknown class', makers.yolo, 'detection', '--classes has cat, but the data have blå, red thing: correct it',
      flags=['--classes', 'cat', 'blå'])  # fmt: skip
def _(folder):
    pass


@case(
    'one image', lambda folder: makers.coco(folder, scenes()[:1]), 'detection', 'has 1 images to train on: at least 2'
)
def _(folder):
    pass


@case('recipe of another task', makers.coco, 'detection', 'is one of mmseg, but --task detection needs mmdet',
      flags=['--config', 'segmentation/semantic-fpn_moganet-xtiny_digits'])  # fmt: skip
def _(folder):
    pass


@case('recipe with masks', makers.coco, 'detection', 'also predicts masks, which --task instance has: choose one',
      flags=['--config', 'detection/mask-rcnn_moganet-xtiny_fpn_digits'])  # fmt: skip
def _(folder):
    pass


@case('recipe without masks', makers.coco, 'instance', 'predicts no masks: choose one such as detection/mask-rcnn',
      flags=['--config', 'detection/retinanet_moganet-xtiny_fpn_digits'])  # fmt: skip
def _(folder):
    pass


@case(
    'fraction', makers.coco, 'detection', '--val-fraction 1.5 is not between 0 and 1', flags=['--val-fraction', '1.5']
)
def _(folder):
    pass


@case('format of another task', makers.coco, 'detection', '--format masks has no labels for --task detection: choose',
      flags=['--format', 'masks'])  # fmt: skip
def _(folder):
    pass


@case('no batch', makers.coco, 'detection', '--batch-size 0 is not positive', flags=['--batch-size', '0'])
def _(folder):
    pass


@case('no Python config', makers.coco, 'detection', '--out own.json is not a Python', flags=['--out', 'own.json'])
def _(folder):
    pass


@case('output folder of others', makers.coco, 'detection', 'data/images exists and was not written by init-data',
      flags=['--data-out', 'data/images', '--force'])  # fmt: skip
def _(folder):
    pass


# COCO


@case('COCO: no JSON', makers.coco, 'detection', 'annotations.json cannot be read as JSON')
def _(folder):
    path = folder / 'annotations.json'
    path.write_text(path.read_text()[:-20])


@case('COCO: two corners', makers.coco, 'detection', 'that ends outside the image', 'it looks like x1, y1, x2, y2')
def _(folder):
    def change(content):
        for entry in content['annotations']:
            x, y, width, height = entry['bbox']
            entry['bbox'] = [x, y, x + width, y + height]

    edit_json(folder / 'annotations.json', change)


@case(
    'COCO: no image file', makers.coco, 'detection', 'problem: data/annotations.json: image one.jpg is not below data'
)
def _(folder):
    (folder / 'images/one.jpg').unlink()


@case('COCO: same name twice', makers.coco, 'detection', 'image 1.png is not below data, or several have this name')
def _(folder):
    edit_json(folder / 'annotations.json', lambda content: content['images'][6].update(file_name='1.png'))


@case(
    'COCO: size of the stored image', makers.coco, 'detection', WRONG_SIZE, 'annotations.json: label it as it is shown'
)
def _(folder):
    edit_json(folder / 'annotations.json', lambda content: content['images'][4].update(width=64, height=48))


@case(
    'COCO: wrong size', makers.coco, 'detection', 'one.jpg is 64 x 48 px (width x height), but 100 x 48 in', 'correct'
)
def _(folder):
    edit_json(folder / 'annotations.json', lambda content: content['images'][0].update(width=100))


@case('COCO: not a number', makers.coco, 'detection', 'have a bbox that is not 4 numbers')
def _(folder):
    edit_json(
        folder / 'annotations.json', lambda content: content['annotations'][0].update(bbox=[1, 2, float('nan'), 4])
    )


@case('COCO: unknown category', makers.coco, 'detection', 'have a category_id that is not among the categories')
def _(folder):
    edit_json(folder / 'annotations.json', lambda content: content['annotations'][0].update(category_id=1))


@case('COCO: a category twice', makers.coco, 'detection', 'several categories have the name blå')
def _(folder):
    edit_json(folder / 'annotations.json', lambda content: content['categories'][1].update(name='blå'))


@case(
    'COCO: two files', makers.coco, 'detection', 'has 2 COCO files for no split in their names (annotations.json, more.'
)
def _(folder):
    (folder / 'more.json').write_text((folder / 'annotations.json').read_text())


@case('COCO: no keypoints', makers.coco, 'pose', 'have no keypoints, which --task pose needs')
def _(folder):
    pass


@case('COCO: no masks', makers.coco, 'instance', 'lack the segmentation')
def _(folder):
    edit_json(folder / 'annotations.json', lambda content: content['annotations'][0].pop('segmentation'))


# YOLO


@case('YOLO: pixels', makers.yolo, 'detection', 'problem: data/labels/one.txt line 2 has the value 30, not a fraction')
def _(folder):
    replace_text(folder / 'labels/one.txt', '\n', '\n0 30 20 10 10\n')


@case('YOLO: words', makers.yolo, 'detection', "labels/one.txt line 1 is 'cat 0.1', not a class number and numbers")
def _(folder):
    (folder / 'labels/one.txt').write_text('cat 0.1\n')


@case('YOLO: too few values', makers.yolo, 'detection', 'line 1 has 3 values, not 4 of a box or pairs of a polygon')
def _(folder):
    (folder / 'labels/one.txt').write_text('0 0.1 0.2 0.3\n')


@case('YOLO: not finite', makers.yolo, 'detection', 'line 1 has a value that is not finite')
def _(folder):
    (folder / 'labels/one.txt').write_text('0 0.1 0.2 nan 0.1\n')


@case('YOLO: class out of range, each line', makers.yolo, 'detection', 'line 1 has class 5, but the classes are 0',
      'one.txt line 2 has class 7', 'data has 2 problems: correct the lines above; nothing was')  # fmt: skip
def _(folder):
    (folder / 'labels/one.txt').write_text('5 0.5 0.5 0.1 0.1\n7 0.5 0.5 0.1 0.1\n')


@case('YOLO: boxes for masks', makers.yolo, 'instance', 'has a box, but --task instance needs polygons')
def _(folder):
    pass


@case('YOLO: nc', makers.yolo, 'detection', 'data.yaml has 2 names, but nc: 3: correct one of them')
def _(folder):
    replace_text(folder / 'data.yaml', 'nc: 2', 'nc: 3')


@case('YOLO: no YAML', makers.yolo, 'detection', 'data.yaml cannot be read as YAML')
def _(folder):
    replace_text(folder / 'data.yaml', 'nc: 2', 'nc: [2')


@case('YOLO: YAML in UTF-16', makers.yolo, 'detection', 'data.yaml cannot be read as YAML')
def _(folder):
    (folder / 'data.yaml').write_text((folder / 'data.yaml').read_text(encoding='utf-8'), encoding='utf-16')


@case('YOLO: YAML that expands to billions of values', makers.yolo, 'detection', 'has more than 1,000,000 values, by')
def _(folder):
    lists = [f'{new}: &{new} [{",".join([f"*{old}"] * 9)}]' for old, new in zip('abcdefghi', 'bcdefghij', strict=True)]
    (folder / 'data.yaml').write_text('\n'.join(['a: &a [x]', *lists, 'names: *j']))


@case('YOLO: a FIFO for labels', makers.yolo, 'detection', 'labels/one.txt cannot be read as text')
def _(folder):
    (folder / 'labels/one.txt').unlink()
    os.mkfifo(folder / 'labels/one.txt')


@case('VOC: a FIFO', makers.voc, 'detection', 'Annotations/one.xml cannot be read as XML')
def _(folder):
    (folder / 'Annotations/one.xml').unlink()
    os.mkfifo(folder / 'Annotations/one.xml')


@case('COCO: a line break in a name', makers.coco, 'detection', 'image a b.jpg is not below data')
def _(folder):
    edit_json(folder / 'annotations.json', lambda content: content['images'][0].update(file_name='a\nb.jpg'))


@case('YOLO: YAML that runs code', makers.yolo, 'detection', 'data.yaml cannot be read as YAML')
def _(folder):
    replace_text(folder / 'data.yaml', 'nc: 2', "nc: !!python/object/apply:os.system ['touch hacked']")


@case('YOLO: no folder of a split', makers.yolo, 'detection', 'data.yaml: train train/images does not exist')
def _(folder):
    replace_text(folder / 'data.yaml', 'train: images', 'train: train/images')


@case('YOLO: number of keypoints', makers.yolo_keypoints, 'pose', 'has 13 values, but kpt_shape [4, 3] needs 16')
def _(folder):
    replace_text(folder / 'data.yaml', '[3, 3]', '[4, 3]')
    replace_text(folder / 'data.yaml', '[0, 2, 1]', '[0, 2, 1, 3]')


@case('YOLO: flips', makers.yolo_keypoints, 'pose', 'flip_idx [0, 0, 1] does not pair the 3 keypoints')
def _(folder):
    replace_text(folder / 'data.yaml', '[0, 2, 1]', '[0, 0, 1]')


@case('YOLO: flips by name', makers.yolo_keypoints, 'pose', "flip_idx [0, 'b', 'a'] does not pair the 3 keypoints")
def _(folder):
    replace_text(folder / 'data.yaml', '[0, 2, 1]', '[0, b, a]')


@case('YOLO: flips by number', makers.yolo_keypoints, 'pose', 'flip_idx {0: 0, 1: 2, 2: 1} does not pair the 3')
def _(folder):
    replace_text(folder / 'data.yaml', '[0, 2, 1]', '{0: 0, 1: 2, 2: 1}')


@case('YOLO: negative class', makers.yolo, 'detection', 'line 1 has class -1, but the classes are numbered from 0')
def _(folder):
    (folder / 'data.yaml').unlink()
    (folder / 'labels/one.txt').write_text('-1 0.5 0.5 0.1 0.1\n')


@case('YOLO: a name that no file can have', makers.yolo, 'detection', 'does not exist: correct it')
def _(folder):
    replace_text(folder / 'data.yaml', 'train: images', f'train: {"x" * 300}')


@case('YOLO: a name with a zero byte', makers.yolo, 'detection', 'data.yaml: train a\\x00b does not exist')
def _(folder):
    replace_text(folder / 'data.yaml', 'train: images', 'train: "a\\0b"')


@case('YOLO: no keypoints', makers.yolo, 'pose', 'data.yaml has no kpt_shape')
def _(folder):
    pass


@case(
    'COCO: number of keypoints', makers.coco_keypoints, 'pose', 'annotation 0 has 3 keypoint values, but 3 keypoints ne'
)
def _(folder):
    edit_json(folder / 'annotations.json', lambda content: content['annotations'][0].update(keypoints=[1, 2, 2]))


@case('weights', makers.coco, 'detection', 'none.pth', flags=['--weights', 'none.pth'])
def _(folder):
    pass


# VOC


@case('VOC: no XML', makers.voc, 'detection', 'problem: data/Annotations/one.xml cannot be read as XML')
def _(folder):
    path = folder / 'Annotations/one.xml'
    path.write_text(path.read_text()[:-30])


@case('VOC: entities', makers.voc, 'detection', 'Annotations/one.xml has a document type, which may define entities')
def _(folder):
    path = folder / 'Annotations/one.xml'
    path.write_text('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>' + path.read_text())


@case('VOC: wrong order', makers.voc, 'detection', 'one.xml: object 1 (blå) has the corners', 'not xmin <= xmax')
def _(folder):
    replace_text(folder / 'Annotations/one.xml', '<xmin>3<', '<xmin>40<')


@case('VOC: infinity', makers.voc, 'detection', 'one.xml: object 1 (blå) has the corners', 'inf')
def _(folder):
    replace_text(folder / 'Annotations/one.xml', '<xmax>22<', '<xmax>inf<')


@case('VOC: no number', makers.voc, 'detection', 'one.xml: object 1 (blå) has no bndbox of numbers')
def _(folder):
    replace_text(folder / 'Annotations/one.xml', '<xmin>3<', '<xmin><')


@case('VOC: no name', makers.voc, 'detection', 'one.xml: object 1 has no name')
def _(folder):
    replace_text(folder / 'Annotations/one.xml', '<name>blå<', '<name><')


@case('VOC: no image file', makers.voc, 'detection', 'one.xml: its image one.jpg does not exist')
def _(folder):
    (folder / 'JPEGImages/one.jpg').unlink()


@case('VOC: size of the stored image', makers.voc, 'detection', WRONG_SIZE)
def _(folder):
    replace_text(folder / 'Annotations/turned.xml', '<width>48</width><height>64', '<width>64</width><height>48')


@case('VOC: masks', makers.voc, 'instance', 'have boxes only, but --task instance needs more: use --task detection')
def _(folder):
    pass


# LabelMe


@case('LabelMe: no JSON', makers.labelme, 'instance', 'problem: annotation file data/one.json cannot be read as JSON')
def _(folder):
    (folder / 'one.json').write_text('{"shapes": [')


@case('LabelMe: no label', makers.labelme, 'instance', 'data/one.json: shape 1 has no label')
def _(folder):
    edit_json(folder / 'one.json', lambda content: content['shapes'][0].pop('label'))


@case('LabelMe: points', makers.labelme, 'instance', 'one.json: shape 1 (blå) has points that are not pairs of numbers')
def _(folder):
    edit_json(folder / 'one.json', lambda content: content['shapes'][0].update(points=[[1, 2], [3]]))


@case('LabelMe: too few points', makers.labelme, 'instance', 'shape 2 (red thing) is a polygon of 2 points')
def _(folder):
    edit_json(folder / 'one.json', lambda content: content['shapes'][1].update(points=[[1, 2], [3, 4]]))


@case(
    'LabelMe: mask',
    makers.labelme,
    'instance',
    'alpha.json: shape 2 (red thing) has a mask that cannot be read or leaves the image',
)
def _(folder):
    edit_json(folder / 'alpha.json', lambda content: content['shapes'][1].update(mask='aGVsbG8='))


@case(
    'LabelMe: a group that is a list', makers.labelme, 'instance', 'shape 1 (blå) has a shape_type that is not text, or'
)
def _(folder):
    edit_json(folder / 'one.json', lambda content: content['shapes'][0].update(group_id=[1]))


@case('LabelMe: a mask that is a number', makers.labelme, 'instance', 'has a mask that cannot be read or leaves')
def _(folder):
    edit_json(folder / 'alpha.json', lambda content: content['shapes'][1].update(mask=5))


@case('LabelMe: an image of billions of pixels', makers.labelme, 'instance', 'has a mask that cannot be read or leaves')
def _(folder):
    edit_json(folder / 'alpha.json', lambda content: content.update(imageWidth=65_000, imageHeight=65_000))


@case('LabelMe: size of the stored image', makers.labelme, 'instance', WRONG_SIZE)
def _(folder):
    edit_json(folder / 'turned.json', lambda content: content.update(imageWidth=64, imageHeight=48))


@case('LabelMe: no keypoints', makers.labelme, 'pose',
      'LabelMe JSON files of data have no points, which --task pose needs: a keypoint is a point')  # fmt: skip
def _(folder):
    pass


@case('LabelMe: a point without a group', makers.labelme_keypoints, 'pose',
      'one.json: shape 1 (nose) has no group_id, and the image has 2 objects: a keypoint is a point')  # fmt: skip
def _(folder):
    edit_json(folder / 'one.json', lambda content: content['shapes'][0].update(group_id=None))


@case('LabelMe: points without a box', makers.labelme_keypoints, 'pose',
      'one.json: shape 1 (nose) has group_id 0, but no rectangle or polygon has it: a keypoint')  # fmt: skip
def _(folder):
    edit_json(folder / 'one.json', lambda content: content['shapes'].pop(3))


@case('LabelMe: a point twice', makers.labelme_keypoints, 'pose',
      'one.json: shape 2 (nose) is there twice in an object: a keypoint')  # fmt: skip
def _(folder):
    edit_json(folder / 'one.json', lambda content: content['shapes'][1].update(label='nose'))


@case('LabelMe: two objects in a group', makers.labelme_keypoints, 'pose',
      'one.json: shape 8 (red thing) has the group_id 0 of object blå: give each object its own')  # fmt: skip
def _(folder):
    edit_json(folder / 'one.json', lambda content: content['shapes'][7].update(group_id=0))


@case('COCO: names of keypoints that are no list', makers.coco_keypoints, 'pose', 'keypoints of a category is 5: use a')
def _(folder):
    edit_json(folder / 'annotations.json', lambda content: content['categories'][0].update(keypoints=5))


@case('COCO: more classes than maps hold', makers.coco, 'segmentation',
      'data has 256 classes with the background, but class maps hold at most 255: choose some')  # fmt: skip
def _(folder):
    def add_classes(content):
        first = content['annotations'][0]
        for number in range(253):
            content['categories'].append(dict(id=100 + number, name=f'class {number}'))
            content['annotations'].append(dict(first, id=1000 + number, category_id=100 + number))

    edit_json(folder / 'annotations.json', add_classes)


# Class folders


@case('folders below one folder', lambda folder: makers.class_folders(folder / 'all'), 'classification',
      'data has 1 class folders (all)', 'or give data/all if its folders are the classes')  # fmt: skip
def _(folder):
    pass


@case('image without class', makers.class_folders, 'classification', 'image data/x.png is in no class folder (0 more)')
def _(folder):
    Drawn('x.png', (8, 8)).save(folder)


@case('class without training image', lambda folder: makers.class_folders(folder, ('train', 'val')), 'classification',
      'class new has images, but none in data/train')  # fmt: skip
def _(folder):
    Drawn('val/new/x.png', (8, 8)).save(folder)


# Class maps


@case('color maps', lambda folder: makers.masks(folder, 'colors'), 'segmentation', 'alpha.png is a color image: add',
      'class_dict.csv with a line name,r,g,b for each class')  # fmt: skip
def _(folder):
    (folder / 'class_dict.csv').unlink()


@case('color out of table', lambda folder: makers.masks(folder, 'colors'), 'segmentation', 'one.png has the color 1,',
      '2, 3 at x=0, y=0, which the color table lacks')  # fmt: skip
def _(folder):
    values = np.asarray(Image.open(folder / 'masks/one.png')).copy()
    values[0, 0] = 1, 2, 3
    Image.fromarray(values).save(folder / 'masks/one.png')


@case(
    'color table',
    lambda folder: makers.masks(folder, 'colors'),
    'segmentation',
    'class_dict.csv has the entry blå,1,2,',
)
def _(folder):
    (folder / 'class_dict.csv').write_text('name,r,g,b\nblå,1,2,300\n', encoding='utf-8')


@case('long color table', lambda folder: makers.masks(folder, 'colors'), 'segmentation',
      'class_dict.csv has 256 classes, but class maps hold at most 255: join some')  # fmt: skip
def _(folder):
    (folder / 'class_dict.csv').write_text(''.join(f'class {number},{number},0,0\n' for number in range(256)))


@case(
    'map of another size',
    makers.masks,
    'segmentation',
    'one.jpg is 64 x 48 px (width x height), but 32 x 24 in data/ma',
)
def _(folder):
    Image.open(folder / 'masks/one.png').resize((32, 24)).save(folder / 'masks/one.png')


@case('map of the stored size', makers.masks, 'segmentation', WRONG_SIZE)
def _(folder):
    Image.open(folder / 'masks/turned.png').transpose(Image.Transpose.ROTATE_90).save(folder / 'masks/turned.png')


@case('JPEG map', makers.masks, 'segmentation', 'masks/one.jpg is a JPEG file, which changes values at edges')
def _(folder):
    Image.open(folder / 'masks/one.png').save(folder / 'masks/one.jpg')
    (folder / 'masks/one.png').unlink()


@case(
    'value without name', makers.masks, 'segmentation', 'maps have the value 2, but there are 2 names (background, blå)'
)
def _(folder):
    (folder / 'classes.txt').write_text('background\nblå\n', encoding='utf-8')


@case('wide map', makers.masks, 'segmentation', 'masks/one.png has the value 300, but 0 to 255 are allowed')
def _(folder):
    Image.fromarray(np.full((48, 64), 300, np.uint16)).save(folder / 'masks/one.png')


@pytest.mark.parametrize('value', [0.5, np.nan])
def test_a_map_with_a_value_that_is_no_class_is_refused(value, tmp_path):
    Image.fromarray(np.full((4, 6), value, np.float32)).save(tmp_path / 'a.tif')
    with pytest.raises(UserError, match=rf'a\.tif has the value {value}, but 0 to 255 are allowed'):
        read_map(tmp_path / 'a.tif', {})


@case(
    'no pairs', makers.masks, 'segmentation', 'no labels for --task segmentation', 'maps of the same name into masks/'
)
def _(folder):
    (folder / 'masks').rename(folder / 'other')


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', CASES)
def test_a_fault_is_one_line_and_nothing_is_written(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    maker, task, change, parts, flags = CASES[name]
    folder = Path('data')
    folder.mkdir()
    maker(folder)
    change(folder)
    before = sorted(Path().rglob('*'))
    assert _exit_code(['init-data', 'data', '--task', task, *flags]) == 2
    screen = capsys.readouterr()
    lines = [line for line in screen.out.splitlines() if line.startswith('problem: ')]
    assert screen.err.startswith('error: ') and len(screen.err.splitlines()) == 1
    for part in parts:
        assert part in '\n'.join([*lines, screen.err])
    assert sorted(Path().rglob('*')) == before


@pytest.mark.filterwarnings('ignore')
def test_files_are_replaced_with_force_only(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    makers.coco(Path('data'))
    call = ['init-data', 'data', '--task', 'detection']
    assert _exit_code(call) == 0
    Path('data.py').write_text('mine = 1')
    assert _exit_code(call) == 2
    assert 'data.py already exists: pass --force' in capsys.readouterr().err
    assert _exit_code([*call, '--out', 'other.py']) == 2
    assert 'data/mogacore already exists: pass --force' in capsys.readouterr().err
    assert Path('data.py').read_text() == 'mine = 1' and not Path('other.py').exists()
    Path('data/mogacore/old.txt').write_text('of the earlier call')
    assert _exit_code([*call, '--force', '--val-fraction', '0.5']) == 0
    assert '_base_' in Path('data.py').read_text() and not Path('data/mogacore/old.txt').exists()
    assert sorted(path.name for path in Path('data').iterdir()) == ['annotations.json', 'images', 'mogacore']


def _exit_code(argv):
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    return stopped.value.code or 0


@pytest.mark.filterwarnings('ignore')
def test_a_fault_that_only_the_checks_of_training_find_stops_before_anything_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    makers.coco(Path('data'))
    mask = dict(size=[48, 64], counts='zzz')
    edit_json(Path('data/annotations.json'), lambda content: content['annotations'][0].update(segmentation=mask))
    before = sorted(Path().rglob('*'))
    assert _exit_code(['init-data', 'data', '--task', 'instance']) == 2
    line = capsys.readouterr().err
    assert line.startswith('error: converted train.json: 1 of 1') and len(line.splitlines()) == 1
    assert sorted(Path().rglob('*')) == before


def test_a_missing_folder_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert _exit_code(['init-data', 'none', '--task', 'pose']) == 2
    assert capsys.readouterr().err == 'error: folder none does not exist: give the folder of the images and labels\n'
