"""Checks of COCO keypoints: what is refused in one line, and what is accepted."""

import json

import numpy as np
import pytest
from PIL import Image

from mogacore.datasets.checks import check_dataset
from mogacore.datasets.checks.keypoints import COCO_KEYPOINTS
from mogacore.errors import UserError

NAMES = ['top', 'left', 'right', 'bottom']


@pytest.fixture
def folder(tmp_path):
    Image.new('L', (100, 80)).save(tmp_path / '1.png')
    return tmp_path


def content(names=NAMES):
    points = [20, 10, 2, 10, 40, 2, 30, 40, 1, 20, 60, 2]
    entries = [
        dict(id=n, image_id=1, category_id=1, bbox=[10, 10, 20, 50], keypoints=points, num_keypoints=4) for n in (1, 2)
    ]
    return dict(
        images=[dict(id=1, file_name='1.png', width=100, height=80)],
        categories=[dict(id=1, name='bird', keypoints=names)],
        annotations=entries,
    )


def info(names=NAMES):
    return {index: dict(name=name, id=index) for index, name in enumerate(names)}


def check(folder, given=None, num_keypoints=4, metainfo=None, **settings):
    (folder / 'file.json').write_text(json.dumps(given or content()))
    metainfo = dict(keypoint_info=info()) if metainfo is None else metainfo
    fields = dict(type='CocoDataset', data_root=str(folder), ann_file='file.json', data_mode='topdown')
    check_dataset(fields | dict(metainfo=metainfo) | settings, num_keypoints=num_keypoints)


def message_for(folder, *args, **settings):
    with pytest.raises(UserError) as caught:
        check(folder, *args, **settings)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def changed(change):
    given = content()
    for entry in given['annotations']:
        change(entry)
    return given


def test_few_fields_suffice(folder):
    check(folder, changed(lambda entry: entry.pop('num_keypoints')))
    given = content()
    given['categories'][0].pop('keypoints')
    check(folder, given)


def test_permuted_names_are_refused(folder):
    message = message_for(folder, content(['top', 'right', 'left', 'bottom']))
    assert "file.json: category 'bird' has the keypoints top, right, left, bottom, but" in message
    assert 'in the order top, left, right, bottom: use the order of the file' in message


def test_other_names_are_refused(folder):
    message = message_for(folder, content(['top', 'left', 'right', 'foot']))
    assert (
        "category 'bird' has the keypoints top, left, right, foot, but the data set has top, left, right, bottom: use"
        in message
    )


def test_other_names_than_coco_need_metainfo(folder):
    points = changed(lambda entry: entry.update(keypoints=[1, 2, 2] * 17))
    points['categories'][0]['keypoints'] = [f'p{index}' for index in range(17)]
    assert 'p0, p1' in message_for(folder, points, num_keypoints=17, metainfo={})
    points['categories'][0]['keypoints'] = list(COCO_KEYPOINTS)
    check(folder, points, num_keypoints=17, metainfo={})


def test_keypoints_of_coco_are_those_of_mmpose():
    pytest.importorskip('mmpose')
    from mmpose.datasets import CocoDataset

    names = CocoDataset._load_metainfo()['keypoint_id2name']
    assert tuple(names[index] for index in sorted(names)) == COCO_KEYPOINTS


def test_changed_head_without_metainfo_is_reported(folder):
    message = message_for(folder, num_keypoints=4, metainfo={})
    assert "without metainfo has COCO's 17 keypoints, but the head has 4: set metainfo=dict(keypoint_info" in message


@pytest.mark.parametrize('key, name', [('sigmas', '17 values'), ('joint_weights', '17 values')])
def test_number_of_sigmas_and_weights_is_checked(folder, key, name):
    message = message_for(folder, metainfo=dict(keypoint_info=info(), **{key: [0.1] * 17}))
    assert f'metainfo.{key} has 17 values, but metainfo.keypoint_info 4 keypoints: give one value per' in message
    check(folder, metainfo=dict(keypoint_info=info(), **{key: [0.1] * 4}))


def test_names_of_links_and_mirror_pairs_are_checked(folder):
    links = {0: dict(link=('top', 'tail'), id=0)}
    assert 'skeleton_info names tail, but' in message_for(
        folder, metainfo=dict(keypoint_info=info(), skeleton_info=links)
    )
    pairs = info()
    pairs[1]['swap'] = 'rigth'
    assert 'swap of keypoint_info names rigth, but' in message_for(folder, metainfo=dict(keypoint_info=pairs))
    repeated = info(['top', 'left', 'left', 'bottom'])
    assert 'keypoint_info repeats the name left' in message_for(folder, metainfo=dict(keypoint_info=repeated))


def test_missing_boxes_are_reported(folder):
    given = content()
    given['annotations'][1].pop('bbox')
    assert '1 of 2 annotations have keypoints, but no bbox, the first has id 2: add' in message_for(folder, given)


def test_boxes_of_two_corners_are_recognized(folder):
    message = message_for(folder, changed(lambda entry: entry.update(bbox=[50, 10, 90, 70])))
    assert 'looks like x1, y1, x2, y2' in message


def test_objects_that_are_all_ignored_are_reported(folder):
    message = message_for(folder, changed(lambda entry: entry.update(num_keypoints=0)))
    assert 'num_keypoints is 0 in all 2 annotations, so that all are ignored' in message
    message = message_for(folder, changed(lambda entry: entry.update(keypoints=[1, 2, 0] * 4)))
    assert 'every keypoint has visibility 0' in message
    given = content()
    given['annotations'][0].update(num_keypoints=0, keypoints=[0] * 12)
    check(folder, given)


def test_nested_keypoints_pass(folder):
    check(folder, changed(lambda entry: entry.update(keypoints=np.reshape(entry['keypoints'], (4, 3)).tolist())))
    message = message_for(folder, changed(lambda entry: entry.update(keypoints=[[1, 2, 2]] * 3)))
    assert 'have 9 keypoint values, but the model needs 12' in message


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(keypoints=5), 'have 1 keypoint values, but the model needs 12'),
        (dict(keypoints='x' * 12), 'have 1 keypoint values'),
        (dict(keypoints={'a': 1}), 'have 1 keypoint values'),
        (dict(keypoints=[10**400] * 12), 'have keypoints that are not numbers'),
        (dict(keypoints=[[[1]]] * 12), 'have keypoints that are not numbers'),
    ],
)
def test_keypoints_of_other_types_are_refused(folder, change, message):
    assert message in message_for(folder, changed(lambda entry: entry.update(change)))


@pytest.mark.parametrize('names', [5, True, 'top', {'top': 1}])
def test_names_that_are_no_list_are_refused(folder, names):
    assert f"category 'bird' has the keypoints {names!r}: use a list of names" in message_for(folder, content(names))


@pytest.mark.parametrize('points, message', [
    ([20, 10, 7, 10, 40, 2, 30, 40, 1, 20, 60, 2], 'have a visibility of 7'),
    ([20, 10, 2, 10, 40, -1, 30, 40, 1, 20, 60, 2], 'have a visibility of -1'),
    ([{}] * 12, 'have keypoints that are not numbers'),
])  # fmt: skip
def test_keypoints_of_other_values_are_refused(points, message, folder):
    given = content()
    given['annotations'][1]['keypoints'] = points
    assert f'1 of 2 annotations {message}, the first has id 2' in message_for(folder, given)


def test_ids_of_images_that_mmpose_cannot_use_are_refused(folder):
    given = content()
    given['images'][0]['id'] = 'i1'
    for entry in given['annotations']:
        entry['image_id'] = 'i1'
    assert '1 of 1 images have an id that is not a whole number' in message_for(folder, given)


def test_numbers_of_keypoints_that_are_text_are_refused(folder):
    message = message_for(folder, changed(lambda entry: entry.update(num_keypoints='0')))
    assert "2 of 2 annotations have the num_keypoints '0', the first has id 1: use a number" in message
