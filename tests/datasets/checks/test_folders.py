"""Outcome of each mismatch of class folders and list files: None, or parts of the one line."""

import numpy as np
import pytest
from PIL import Image

from mogacore.datasets.checks import Expected, Sample, find_problems

SUFFIXES = 'extensions of the data set'


def write(root, names):
    for name in names:
        path = root / name
        if name.endswith('/'):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith('.npy'):
                np.save(path, np.zeros((4, 4, 3)))
            elif name.endswith(('.txt', '.gif')):
                path.write_bytes(b'x')
            else:
                Image.new('RGB', (4, 4)).save(path)


def problems(root, files, num_classes=2, **settings):
    write(root, files)
    dataset = dict(dict(type='CustomDataset', data_root=str(root), data_prefix='train'), **settings)
    counts = num_classes if isinstance(num_classes, dict) else {'model.head': num_classes}
    return find_problems(dataset, Expected(counts, in_channels=3, for_training=True), Sample())


OK = ['train/a/1.png', 'train/b/2.png']
CASES = {
    'valid': (OK, {}, None),
    'webp': (['train/a/1.webp', 'train/b/2.webp'], {}, None),
    'hidden folder': ([*OK, 'train/.ipynb_checkpoints/3.png'], {}, None),
    'macOS resource forks': ([*OK, 'train/a/._1.png', 'train/__MACOSX/a/._1.png'], {}, None),
    'other files': ([*OK, 'train/a/notes.txt'], {}, None),
    'capital suffix': ([*OK, 'train/a/3.PNG'], {}, None),
    'more folders': (
        [*OK, 'train/c/3.png'],
        {},
        'train (a, b, c) has 3 classes, but the model has 2 (model.head.num_classes=2)',
    ),
    'fewer folders': (OK[:1], {}, 'train (a) has 1 classes, but the model has 2'),
    'one class': (OK[:1], dict(num_classes=1), 'model.head.num_classes=1: with a single class'),
    'second part of the model': (
        OK,
        dict(num_classes={'model.head': 2, 'data_preprocessor': 1000}),
        'but the model has 1000 (data_preprocessor.num_classes=1000): set each to 2',
    ),
    'no folder': (OK, dict(data_prefix='val'), '/val with the images not found: create it'),
    'flat folder': (
        ['train/1.png', 'train/2.png'],
        {},
        'has no class folders, only 2 files, such as 1.png: sort the images',
    ),
    'empty folder': (['train/'], {}, 'has no class folders, it is empty'),
    'empty class folders': (['train/a/', 'train/b/'], {}, 'have no images that are loaded, they are empty'),
    'arrays': (
        ['train/a/1.npy', 'train/b/1.npy'],
        {},
        f'only 2 other files, such as a/1.npy: add images, or set {SUFFIXES}',
    ),
    'arrays with extensions': (['train/a/1.npy', 'train/b/1.npy'], dict(extensions=('.npy',)), None),
    'one other suffix': (
        [*OK, 'train/b/3.gif'],
        {},
        '1 of 3 images in ROOT/train would be left out, the first is b/3.gif: convert them',
    ),
    'absent training folder': (OK[:1], dict(folders=['a', 'b']), None),
    'unknown folder': (
        OK,
        dict(folders=['a', 'c'], num_classes=2),
        "has the class folder 'b', but the model is trained with the classes a, c",
    ),
    'names as folders': (OK, dict(metainfo=dict(classes=('b', 'a'))), None),
    'names for display': (OK, dict(metainfo=dict(classes=('Bee', 'Ant'))), None),
    'too few names': (
        OK,
        dict(metainfo=dict(classes=('Bee',))),
        "has the class folder 'a', but the model is trained with the classes Bee",
    ),
    'names and folders differ': (
        OK,
        dict(metainfo=dict(classes=('x', 'y', 'z')), folders=['a', 'b']),
        'metainfo.classes has 3 classes, but there are 2 class folders (a, b)',
    ),
    'gray images for color': (
        OK,
        dict(pipeline=[dict(type='LoadImageFromFile', color_type='grayscale')]),
        "gives 1 channels, but the backbone has in_channels=3: remove color_type='grayscale'",
    ),
    'no labels': (['train/1.png'], dict(with_label=False), None),
}


@pytest.mark.parametrize('case', CASES)
def test_class_folders(case, tmp_path):
    files, settings, expected = CASES[case]
    found = problems(tmp_path, files, **settings)
    if expected is None:
        assert not found
    else:
        assert len(found) == 1 and '\n' not in found[0]
        assert expected.replace('ROOT', str(tmp_path)) in found[0]


def test_color_images_for_a_gray_model(tmp_path):
    dataset = dict(type='CustomDataset', data_root=str(tmp_path), pipeline=[dict(type='LoadImageFromFile')])
    found = find_problems(dataset, Expected(in_channels=1), Sample())
    assert "gives 3 channels, but the backbone has in_channels=1: add color_type='grayscale'" in found[0]


LISTS = {
    'valid': ('a/1.png 0\nb/2.png 1\n', {}, None),
    'space in a name': ('b/two words.png 1\na/1.png 0\n', {}, None),
    'unlabelled': ('a/1.png\n', dict(with_label=False), None),
    'empty': ('\n', {}, 'list.txt is empty: list one image per line, with its label'),
    'no label': (
        'a/1.png 0\nb/2.png\n',
        {},
        "line 2 of ROOT/list.txt is 'b/2.png', not a file name, a space and a label",
    ),
    'label that is a name': ('a/1.png a\n', {}, "line 1 of ROOT/list.txt is 'a/1.png a'"),
    'negative label': ('a/1.png -1\n', {}, "line 1 of ROOT/list.txt is 'a/1.png -1'"),
    'label beyond the head': (
        'a/1.png 0\nb/2.png 2\n',
        {},
        'list.txt has the label 2 (1 lines are too high), but 0 to 1 are allowed for model.head',
    ),
    'labels below the head': (
        'a/1.png 0\nb/2.png 1\n',
        dict(num_classes=3),
        'list.txt has 2 classes, but the model has 3',
    ),
    'names of another number': ('a/1.png 0\nb/2.png 1\n', dict(metainfo=dict(classes='abc')), 'no such file exists'),
    'missing image': (
        'a/1.png 0\nb/9.png 1\n',
        {},
        '1 of 2 images of ROOT/list.txt are not in ROOT/train, the first is b/9.png',
    ),
}


@pytest.mark.parametrize('case', LISTS)
def test_list_files(case, tmp_path):
    text, settings, expected = LISTS[case]
    (tmp_path / 'list.txt').write_text(text)
    found = problems(tmp_path, [*OK, 'train/b/two words.png'], ann_file='list.txt', **settings)
    if expected is None:
        assert not found
    else:
        assert len(found) == 1 and expected.replace('ROOT', str(tmp_path)) in found[0]


def test_missing_list_file_is_reported(tmp_path):
    assert 'list.txt not found' in problems(tmp_path, OK, ann_file='list.txt')[0]


def test_all_problems_are_reported_and_unreadable_images_are_counted(tmp_path):
    write(tmp_path, OK)
    for name in ('b/3.png', 'a/4.png', 'b/5.png'):
        (tmp_path / 'train' / name).write_bytes(b'')
    found = problems(tmp_path, ['train/a/6.gif'], num_classes=3)
    assert len(found) == 3
    assert 'has 2 classes, but the model has 3' in found[0] and 'a/6.gif' in found[1]
    assert found[2].startswith(f'image {tmp_path}/train/a/4.png is empty') and found[2].endswith('(2 more such files)')
