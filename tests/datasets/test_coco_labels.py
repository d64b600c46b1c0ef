import json

import numpy as np
import pytest
from PIL import Image

from mogacore.datasets import CocoLabels
from mogacore.errors import UserError

CATEGORIES = [dict(id=7, name='dog'), dict(id=0, name='cat'), dict(id=3, name='tree')]  # ids with gaps, from 0
IMAGES = [dict(id=5, file_name='a b/ü.png', width=8, height=8), dict(id=2, file_name='2.png', width=8, height=8),
          dict(id=9, file_name='empty.png', width=8, height=8)]  # fmt: skip
OBJECTS = [(5, 7), (5, 7), (5, 0), (2, 3), (2, 0)]


def write(folder, **changes):
    annotations = [
        dict(id=i, image_id=image, category_id=category, bbox=[1, 1, 4.5, 4], area=18.0, iscrowd=0)
        for i, (image, category) in enumerate(OBJECTS)
    ]
    content = dict(images=IMAGES, annotations=annotations, categories=CATEGORIES, licenses=[]) | changes
    (folder / 'labels.json').write_text(json.dumps(content))
    for image in IMAGES:
        path = folder / 'photos' / image['file_name']
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (8, 8)).save(path)
    return dict(data_root=str(folder), ann_file='labels.json', data_prefix=dict(img='photos/'))


def test_labels_of_an_image_are_the_set_of_its_categories_by_name(tmp_path):
    data = CocoLabels(**write(tmp_path), metainfo=dict(classes=('cat', 'dog')))
    assert [item['gt_label'].tolist() for item in data] == [[0, 1], [0], []]  # without trees
    assert all(item['gt_label'].dtype == np.int64 for item in data)
    assert data[0]['img_path'] == str(tmp_path / 'photos' / 'a b' / 'ü.png')
    assert data.get_cat_ids(0) == [0, 1] and data.get_cat_ids(2) == []
    assert data.metainfo['classes'] == ('cat', 'dog')


def test_a_file_without_annotations_has_images_without_labels(tmp_path):
    data = CocoLabels(**write(tmp_path, annotations=[]), metainfo=dict(classes=('cat',)))
    assert [item['gt_label'].tolist() for item in data] == [[], [], []]


def test_missing_classes_and_broken_files_are_one_line(tmp_path):
    settings = write(tmp_path)
    with pytest.raises(UserError, match=r'labels.json: the classes are unknown: set metainfo'):
        CocoLabels(**settings)
    with pytest.raises(UserError, match=r'lacks the categories bird, it has dog, cat, tree: set metainfo'):
        CocoLabels(**settings, metainfo=dict(classes=('cat', 'bird')))
    write(tmp_path, categories=[])
    with pytest.raises(UserError, match=r"list 'categories' is empty"):
        CocoLabels(**settings, metainfo=dict(classes=('cat',)))
    (tmp_path / 'labels.json').write_text('{')
    with pytest.raises(UserError, match=r'cannot be read as JSON'):
        CocoLabels(**settings, metainfo=dict(classes=('cat',)))
