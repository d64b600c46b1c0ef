"""Class folders keep the labels of the training set."""

import pytest
from PIL import Image

from mogacore.datasets.class_folders import ClassFolders, list_files, order_classes
from mogacore.errors import UserError


def write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (4, 4)).save(root / name)


def labels(**settings):
    dataset = ClassFolders(**settings)
    return {
        info['img_path'].rpartition('/')[2]: info['gt_label']
        for info in map(dataset.get_data_info, range(len(dataset)))
    }


def test_labels_follow_the_given_folders_where_some_are_absent(tmp_path):
    write(tmp_path, 'c/1.png', 'a/deep/2.png')
    assert labels(data_root=str(tmp_path), folders=['a', 'b', 'c']) == {'1.png': 2, '2.png': 0}
    assert labels(data_root=str(tmp_path), metainfo=dict(classes=['c', 'b', 'a'])) == {'1.png': 0, '2.png': 2}
    assert labels(data_root=str(tmp_path)) == {'1.png': 1, '2.png': 0}


def test_class_names_are_those_of_all_folders(tmp_path):
    write(tmp_path, 'val/c/1.png')
    dataset = ClassFolders(str(tmp_path), 'val', folders=['a', 'c'])
    assert dataset.metainfo['classes'] == ('a', 'c') and dataset.get_cat_ids(0) == [1]
    named = ClassFolders(str(tmp_path), dict(img_path='val'), folders=['a', 'c'], metainfo=dict(classes=('Ape', 'Cat')))
    assert named.metainfo['classes'] == ('Ape', 'Cat') and named.get_cat_ids(0) == [1]


def test_hidden_files_and_other_suffixes_are_ignored(tmp_path):
    write(tmp_path, 'a/1.webp', 'a/.2.png', '.ipynb_checkpoints/3.png', 'a/.x/4.png', '__MACOSX/5.png', 'b/6.JPG')
    (tmp_path / 'a/notes.txt').write_text('')
    assert labels(data_root=str(tmp_path)) == {'1.webp': 0, '6.JPG': 1}
    assert labels(data_root=str(tmp_path), extensions=['.jpg']) == {'6.JPG': 1}


def test_folder_without_images_is_reported(tmp_path):
    (tmp_path / 'a').mkdir()
    with pytest.raises(UserError, match=r'has no images with \.jpg'):
        ClassFolders(str(tmp_path))


@pytest.mark.parametrize('found, folders, classes, expected', [
    ('ba', None, None, 'ab'), ('a', 'ba', None, 'ba'), ('a', None, 'ba', 'ba'), ('ab', None, 'xy', 'ab'),
    ('ax', 'ab', None, None), ('ax', None, 'ay', None), ('abc', None, 'xy', None),
])  # fmt: skip
def test_order_of_classes(found, folders, classes, expected):
    if expected is None:
        with pytest.raises(UserError, match=r"folder val has the class folder '[xa]', but the model is trained with"):
            order_classes(found, folders, classes, 'val')
    else:
        assert order_classes(found, folders, classes, 'val') == list(expected)


def test_files_of_a_folder_that_contains_itself_are_listed_once(tmp_path):
    for name in ('a/0.png', 'a/deep/1.png', 'a/.hidden/2.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ('x', 'y', 'deep/z'):
        (tmp_path / 'a' / name).symlink_to(tmp_path / 'a')
    (tmp_path / 'b').symlink_to('a')
    assert list_files(tmp_path / 'a') == ['0.png', 'deep/1.png']
    assert list_files(tmp_path / 'b') == ['0.png', 'deep/1.png']
