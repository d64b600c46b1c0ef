"""Checks of COCO boxes and masks: what is refused in one line, and what is accepted."""

import itertools
import json
import os

import pytest
from mmengine.fileio import get, list_dir_or_file
from PIL import Image

from mogacore.datasets.checks import Problems, check_dataset, explain
from mogacore.datasets.checks.coco_files import read_json
from mogacore.errors import UserError

CLASSES = ('a', 'b', 'c')
SIZE = (100, 80)


@pytest.fixture
def folder(tmp_path):
    for name in ('1.png', '2.png'):
        Image.new('L', SIZE).save(tmp_path / name)
    return tmp_path


def content(order=CLASSES, ids=(1, 2, 3)):
    boxes = [[5, 5, 20, 20], [40, 30, 50, 40], [60, 10, 30, 60], [70, 60, 25, 15]]
    return dict(
        images=[dict(id=n, file_name=f'{n}.png', width=SIZE[0], height=SIZE[1]) for n in (1, 2)],
        categories=[dict(id=key, name=name) for name, key in zip(order, ids, strict=True)],
        annotations=[
            dict(id=n, image_id=n % 2 + 1, category_id=ids[n % 3], bbox=box, area=box[2] * box[3])
            for n, box in enumerate(boxes, 1)
        ],
    )


def check(folder, given, with_mask=False, **settings):
    (folder / 'file.json').write_text(json.dumps(given))
    pipeline = [dict(type='LoadAnnotations', with_bbox=True, with_mask=with_mask)]
    fields = dict(
        type='CocoDataset',
        data_root=str(folder),
        ann_file='file.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=CLASSES),
        pipeline=pipeline,
    )
    check_dataset(fields | settings, num_classes=3)


def message_for(folder, given, **settings):
    with pytest.raises(UserError) as caught:
        check(folder, given, **settings)
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize('order', itertools.permutations(CLASSES))
@pytest.mark.parametrize('ids', [(1, 2, 3), (7, 3, 100)])
def test_order_and_ids_of_the_categories_are_free(folder, order, ids):
    check(folder, content(order, ids))


def test_info_and_iscrowd_are_optional(folder):
    given = content()
    assert 'info' not in given and not any('iscrowd' in entry for entry in given['annotations'])
    check(folder, given)


def test_repeated_names_are_refused(folder):
    message = message_for(folder, content(('a', 'b', 'b')), metainfo=dict(classes=('a', 'b', 'b')))
    assert message == 'metainfo.classes repeats b: list each class once'
    given = content()
    given['categories'].append(dict(id=9, name='b'))
    assert 'file.json: several categories have the name b: give each' in message_for(folder, given)


def test_class_that_the_file_lacks_is_refused(folder):
    message = message_for(folder, content(('a', 'b', 'x')))
    assert 'metainfo.classes has c, but' in message and 'file.json has the categories a, b, x: use the names' in message


def corners(box):
    x, y, w, h = box
    return [x, y, x + w, y + h]


def test_boxes_of_two_corners_are_recognized(folder):
    given = content()
    for entry in given['annotations']:
        entry['bbox'] = corners(entry['bbox'])
    message = message_for(folder, given)
    assert 'file.json: 3 of 4 annotations have a bbox that ends outside the image, such as [40, 30, 90, 70]' in message
    assert 'it looks like x1, y1, x2, y2, convert all boxes to x, y, width, height' in message


def test_single_boxes_outside_the_image_pass(folder):
    """mmdet clips them. Others cannot be corners, whose third number is not below the first."""
    given = content()
    given['annotations'][1]['bbox'] = [60, 30, 90, 70]
    check(folder, given)


@pytest.mark.parametrize('mask', [[[1, 2, 3, 4]], [], {'counts': [0, 1200], 'size': [40, 30]}])
def test_masks_are_checked_only_where_they_are_loaded(folder, mask):
    given = content()
    for entry in given['annotations']:
        entry['segmentation'] = mask
    check(folder, given)
    assert '4 of 4 annotations' in message_for(folder, given, with_mask=True)
    nested = [dict(type='RandomChoice', transforms=[[dict(type='LoadAnnotations', with_mask=True)]])]
    assert '4 of 4 annotations' in message_for(folder, given, pipeline=nested)


@pytest.mark.parametrize('prefix', [{}, None, dict(img_path='')])
def test_missing_image_prefix_is_reported(folder, prefix):
    assert 'data_prefix of the data set has no img' in message_for(folder, content(), data_prefix=prefix)


HUGE = 10**400  # no float holds it


def nested(levels):
    return '[' * levels + ']' * levels


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(bbox=[5, 5, HUGE, 20]), 'have a bbox that is not 4 numbers'),
        (dict(area=HUGE), 'have the area 1000'),
        (dict(area=[[1]]), 'have the area [[1]]'),
        (dict(segmentation=5), 'have a segmentation that is not a list or object'),
        (dict(segmentation='polygon'), 'have a segmentation that is not a list or object'),
        (dict(segmentation=[[1, 2, 3, 4, 5, HUGE]]), 'have a polygon that is not pairs of numbers'),
        (dict(segmentation=[[1.5, 2, 3, 4, 5, HUGE]]), 'have a polygon that is not pairs of numbers'),
        (dict(segmentation=dict(size=list(SIZE[::-1]), counts=[0.5, HUGE])), 'whose counts do not add up'),
        (dict(segmentation=dict(counts='0')), 'whose size differs from that of the image'),
        (dict(segmentation=dict(size=['a', 'b'], counts='0')), 'whose size differs from that of the image'),
        (dict(segmentation=dict(size=list(SIZE[::-1]), counts='\ud800')), 'not a valid run-length encoding'),
        (dict(segmentation=dict(size=list(SIZE[::-1]), counts='o' * 10**6)), 'not a valid run-length encoding'),
        (dict(category_id=['a']), "have the category_id ['a']"),
        (dict(image_id='x' * 10**5), "have an image_id that is not among the images (such as 'xxx"),
    ],
)
def test_values_of_other_types_are_refused_in_a_short_line(folder, change, message):
    given = content()
    polygon = [[1, 2, 3, 4, 5, 6]]
    given['annotations'] = [{**entry, 'segmentation': polygon, **change} for entry in given['annotations']]
    text = message_for(folder, given, with_mask=True)
    assert message in text and len(text) < 1000 + len(str(folder))


@pytest.mark.parametrize('where', ['whole', 'id', 'name'])
def test_deeply_nested_files_are_refused(folder, where):
    text = json.dumps(content())
    texts = {
        'whole': nested(10**5),
        'id': text.replace('"id": 1,', f'"id": {nested(900)},', 1),
        'name': text.replace('"a"', nested(10**5)),
    }
    (folder / 'deep.json').write_text(texts[where])
    with pytest.raises(
        UserError, match=r'deep\.json.* is nested too deeply|deep\.json: 1 of 2 images have the id \[\[\['
    ):
        check(folder, content(), ann_file='deep.json')


def test_names_with_line_breaks_are_reported_in_one_line(folder):
    message = message_for(folder, content(('a', 'b', 'c\n\x1b[31m')))
    assert r'has the categories a, b, c \x1b[31m: use' in message


@pytest.mark.parametrize('fields, message', [
    (dict(bbox=[5, 5, HUGE, 20]), 'have a bbox that is not 4 numbers'), (dict(area=HUGE), 'have the area 1000'),
    (dict(iscrowd='0'), "have the iscrowd '0', the first has id 1: use 0 for single objects"),
    (dict(ignore='false'), "have the ignore 'false'"), (dict(id=float('nan')), 'have the id nan'),
])  # fmt: skip
def test_values_that_no_library_reads_as_meant_are_refused(fields, message, folder):
    given = content()
    given['annotations'][0].update(fields)
    assert f'1 of 4 annotations {message}' in message_for(folder, given)


@pytest.mark.parametrize('mask, message', [
    ('1 2 3', 'have a segmentation that is not a list or object'),
    (5, 'have a segmentation that is not a list or object'),
    ([[1, 2, 10, 2, 10, HUGE]], 'have a polygon that is not pairs of numbers'),
    (dict(counts=[-8, 8008], size=[80, 100]), 'have a mask whose counts do not add up'),
    (dict(counts=[0.5, 7999.5], size=[80, 100]), 'have a mask whose counts do not add up'),
    (dict(counts='\ud800', size=[80, 100]), 'have a mask that is not a valid run-length encoding'),
])  # fmt: skip
def test_masks_of_other_kinds_are_refused(mask, message, folder):
    given = content()
    for entry in given['annotations']:
        entry['segmentation'] = [[5, 5, 20, 5, 20, 20]]
    check(folder, given, with_mask=True)
    given['annotations'][0]['segmentation'] = mask
    assert f'1 of 4 annotations {message}' in message_for(folder, given, with_mask=True)


@pytest.mark.parametrize('make', [
    os.mkfifo, lambda path: path.write_bytes(b'\xff\xfe[')
])  # fmt: skip
def test_files_that_are_no_json_are_refused(make, folder):
    make(folder / 'x.json')
    with pytest.raises(UserError, match=r'annotation file .* cannot be read as JSON'):
        read_json(folder / 'x.json')


def test_the_libraries_do_not_wait_for_a_fifo(folder):
    import mogacore.registry  # noqa: F401, makes mmengine read files as ours

    os.mkfifo(folder / 'x.png')
    with pytest.raises(OSError, match='not an ordinary file') as raised:
        get(folder / 'x.png')
    assert explain(raised.value) == (
        f'image {folder}/x.png is empty, truncated or not an image: replace it, or remove it from the data set'
    )
    for name in 'xyz':
        (folder / name).symlink_to('.')
    found = list_dir_or_file(folder, list_dir=False, suffix='.png', recursive=True)
    assert sorted(found) == ['1.png', '2.png', 'x.png']


def test_a_fifo_for_an_image_is_refused(folder):
    (folder / '2.png').unlink()
    os.mkfifo(folder / '2.png')
    assert '1 of 2 images of' in message_for(folder, content())


@pytest.mark.parametrize('change', [str, lambda value: f'i{value}', lambda value: value + 0.5])
def test_ids_of_images_that_coco_changes_are_refused(change, folder):
    given = content()
    for kind, key in (('images', 'id'), ('annotations', 'image_id')):
        for entry in given[kind]:
            entry[key] = change(entry[key])
    assert '2 of 2 images have an id that is not a whole number' in message_for(folder, given)


def test_problems_are_lines():
    problems = Problems()
    problems.add('image a\nb\x1b.png is missing')
    assert problems == ['image a b\\x1b.png is missing']
