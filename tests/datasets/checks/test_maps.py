"""Outcome of each mismatch of class maps: None, or parts of the one line."""

import os

import numpy as np
import pytest
from PIL import Image

from mogacore.datasets.checks import Expected, Sample, find_problems

ADE20K = [f'class {index}' for index in range(150)]
SIZE = (20, 24)  # height, width


def write_map(path, values):
    """Write a map in which the given values fill equal vertical stripes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = np.repeat(values, -(-SIZE[1] // len(values)))[: SIZE[1]]
    Image.fromarray(np.tile(columns.astype(np.uint8), (SIZE[0], 1))).save(path)


def write(root, maps):
    for index, values in enumerate(maps):
        (root / 'images').mkdir(exist_ok=True)
        Image.new('RGB', SIZE[::-1]).save(root / f'images/{index}.png')
        write_map(root / f'maps/{index}.png', values)


def problems(root, num_classes=2, for_training=True, **settings):
    prefix = dict(img_path='images', seg_map_path='maps')
    dataset = dict(dict(type='BaseSegDataset', data_root=str(root), data_prefix=prefix, img_suffix='.png'), **settings)
    counts = num_classes if isinstance(num_classes, dict) else {'model.decode_head': num_classes}
    builtin = ADE20K if dataset['type'] == 'ADE20KDataset' else None
    return find_problems(dataset, Expected(counts, for_training=for_training, builtin_classes=builtin), Sample())


TWO = dict(metainfo=dict(classes=('soil', 'wheat')))
ADE = dict(type='ADE20KDataset')
# Maps as the values of their stripes, settings, outcome.
CASES = {
    'valid': ([[0, 1], [1, 255]], TWO, None),
    'binary with 255': ([[0, 255], [0]], TWO, 'have 255 in 25% of their pixels, which is ignored, and no 1'),
    'all 255': ([[255]], TWO, 'have 255 in 100% of their pixels, which is ignored, and no 0, 1'),
    '0 and 255 with reduce_zero_label': (
        [[0, 255]],
        dict(reduce_zero_label=True),
        'and no 1, 2 (values of classes found: 0)',
    ),
    'foreground only once beside 255': ([[0, 255], [0, 1]], TWO, None),
    'background only': ([[0]], TWO, None),
    'third class stored as 255': (
        [[0, 1, 255]],
        dict(num_classes=3),
        'have 255 in 33% of their pixels, which is ignored, and no 2',
    ),
    'the same in validation data': ([[0, 1, 255]], dict(num_classes=3, for_training=False), None),
    'rare class beside ignored borders': ([[0, 0, 0, 255, 1, 1, 1]], dict(num_classes=3), None),
    'value beyond the classes': (
        [[0, 1], [1, 7]],
        TWO,
        'maps/1.png has the value 7 (1 of its 2 values are out of range)',
    ),
    'several maps beyond the classes': (
        [[9], [1, 7], [8]],
        TWO,
        'maps/0.png has the value 9 (1 of its 1 values are out of range)',
    ),
    'names of another number': (
        [[0, 1]],
        dict(TWO, num_classes=3),
        'metainfo.classes has 2 classes, but the model has 3',
    ),
    'auxiliary head': (
        [[0, 1]],
        dict(TWO, num_classes={'model.decode_head': 2, 'model.auxiliary_head': 150}),
        'but the model has 150 (model.auxiliary_head.num_classes=150): set each to 2',
    ),
    'ADE20K': ([[0, 150]], dict(ADE, num_classes=150), None),
    'ADE20K with own head': (
        [[0, 1]],
        dict(ADE, num_classes=2),
        'ADE20KDataset without metainfo.classes has 150 classes, but the model has 2',
    ),
    'ADE20K with own names': (
        [[0, 1]],
        dict(ADE, **TWO),
        'metainfo.classes has soil, wheat, not among the classes of ADE20KDataset: set type=',
    ),
    'ADE20K with some of its names': ([[0, 150]], dict(ADE, metainfo=dict(classes=ADE20K[3:5])), None),
    'ADE20K value beyond': ([[0, 151]], dict(ADE, num_classes=150), 'has the value 151'),
}


@pytest.mark.parametrize('case', CASES)
def test_class_maps(case, tmp_path):
    maps, settings, expected = CASES[case]
    write(tmp_path, maps)
    found = problems(tmp_path, **settings)
    if expected is None:
        assert not found
    else:
        assert len(found) == 1 and '\n' not in found[0]
        assert expected in found[0]


@pytest.mark.parametrize('name', ['7.JPG', '7.webp', '7.PNG', 'deep/7.gif'])
def test_image_with_another_suffix_is_reported(tmp_path, name):
    write(tmp_path, [[0, 1], [0, 1]])
    (tmp_path / 'images' / name).parent.mkdir(exist_ok=True)
    (tmp_path / 'images' / name).write_bytes(b'')
    (line,) = problems(tmp_path)
    assert f'1 of 3 images in {tmp_path}/images do not end in .png and would be left out, the first is {name}' in line


def test_maps_and_hidden_files_among_the_images_are_not_images(tmp_path):
    write_map(tmp_path / '0.png', [0, 1])
    for name in ('0.jpg', '._1.jpg', 'notes.txt'):
        Image.new('RGB', SIZE[::-1]).save(tmp_path / name, 'jpeg')
    assert not problems(tmp_path, data_prefix=dict(img_path='', seg_map_path=''), img_suffix='.jpg')


def test_faults_of_several_kinds_are_all_reported(tmp_path):
    write(tmp_path, [[0, 1]] * 5)
    Image.new('RGB', SIZE[::-1]).save(tmp_path / 'maps/1.png')
    Image.new('L', (7, 5)).save(tmp_path / 'maps/2.png')
    write_map(tmp_path / 'maps/3.png', [0, 5])
    (tmp_path / 'maps/4.png').unlink()
    found = problems(tmp_path, num_classes=2, metainfo=dict(classes=('a', 'b', 'c')))
    texts = ('has 3 classes', '1 of 5 maps', '1.png is a color image', '2.png is 7 x 5 px', '3.png has the value 5')
    assert len(found) == len(texts)
    assert all(any(text in line for line in found) for text in texts)


def test_fractions_are_refused(tmp_path):
    write(tmp_path, [[0, 1], [1, 0]])
    for name in ('0', '1'):
        Image.fromarray(np.full(SIZE, 0.5, np.float32)).save(tmp_path / f'maps/{name}.tif')
    (line,) = problems(tmp_path, **TWO, seg_map_suffix='.tif')
    assert 'maps/0.tif has the value 0.5' in line


def test_maps_that_lose_values_or_lists_that_are_no_files_are_refused(tmp_path):
    write(tmp_path, [[0, 1], [1, 0]])
    Image.open(tmp_path / 'maps/1.png').save(tmp_path / 'maps/1.png', 'JPEG')
    (line,) = problems(tmp_path, **TWO)
    assert line.endswith('maps/1.png is a JPEG file, which changes values: store maps as PNG')
    os.mkfifo(tmp_path / 'list.txt')
    (line,) = problems(tmp_path, **TWO, ann_file='list.txt')
    assert 'list.txt is not a file: set ann_file' in line
