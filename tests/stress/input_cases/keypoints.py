"""COCO keypoints through training and a test; boxes for poses; joints of hands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import own_data_makers as own_data
from own_data_makers import BODY, POINTS

from mogacore.datasets.checks.coco_files import check_annotations
from mogacore.errors import UserError
from mogacore.runtime.inputs import Boxes

from .annotations import HUGE, INF, NAN, each, first, text, whole
from .core import case, train_and_test

# If two of three objects are found: of COCO's 101 thresholds of the recall, those from 0 to 0.66 are reached.
TWO_OF_THREE = {'coco/AP': 67 / 101, 'coco/AR': 2 / 3}
PERFECT = {'coco/AP': 1.0, 'coco/AR': 1.0}
FLAT = [value for x, y in POINTS.values() for value in (x, y, 2)]
Change = Callable[[own_data.Project], object]


def pose(name: str, outcome: str | dict | None = None, quick: bool = False):
    """Declare a case whose function changes the project; ``outcome`` is a pattern, or scores that are not perfect."""
    refused, scores = (None, PERFECT | outcome) if isinstance(outcome, dict) else (outcome, PERFECT)

    def add(change: Change) -> Change:
        def run(root):
            project = own_data.keypoints(root)
            change(project)
            found = train_and_test(project)
            assert {key: round(found[key], 3) for key in scores} == {k: round(v, 3) for k, v in scores.items()}

        case('keypoints', name, refused, quick)(run)
        return change

    return add


def points(*values) -> Change:
    return first(keypoints=list(values))


def changed(index: int, value) -> list:
    return [*FLAT[:index], value, *FLAT[index + 1 :]]


def extra(**fields) -> Change:
    """Add an annotation to the first image."""
    entry = dict(id=9, image_id=1, category_id=1, bbox=BODY, area=400, iscrowd=0, num_keypoints=4, keypoints=FLAT)
    return whole(lambda content: content['annotations'].append(entry | fields))


NO_NUMBERS = '1 of 2 annotations have keypoints that are not numbers'
VISIBILITY = '1 of 2 annotations have a visibility'
UNLABELED = [0] * 12

for name, change, refused, quick in (
    ('valid', lambda project: None, None, False),
    ('nested', each(keypoints=[[x, y, 2] for x, y in POINTS.values()]), None, True),
    ('11 numbers', points(*FLAT[:-1]), 'have 11 keypoint values, but the model needs 12', True),
    ('13 numbers', points(*FLAT, 1), 'have 13 keypoint values, but the model needs 12', False),
    ('pairs without visibility', points(*(v for p in POINTS.values() for v in p)), 'have 8 keypoint values', False),
    ('an empty list', points(), 'have 0 keypoint values', False),
    ('null', first(keypoints=None), 'have 0 keypoint values', False),
    ('a text', first(keypoints='1 2 2'), r'have \d keypoint values', False),
    ('a number', first(keypoints=5), 'have 1 keypoint values', False),
    ('objects', first(keypoints=[{'x': 1, 'y': 2}] * 12), NO_NUMBERS, False),
    ('texts', points(*map(str, FLAT)), NO_NUMBERS, False),
    ('NaN', points(*changed(0, NAN)), NO_NUMBERS, True),
    ('infinity', points(*changed(1, INF)), NO_NUMBERS, False),
    ('400 digits', points(*changed(1, HUGE)), NO_NUMBERS, False),
    ('null for a coordinate', points(*changed(1, None)), NO_NUMBERS, False),
    ('visibility 7', points(*changed(2, 7)), f'{VISIBILITY} of 7, the first', True),
    ('visibility -1', points(*changed(2, -1)), f'{VISIBILITY} of -1', False),
    ('visibility 3 of points that are not labeled', points(*changed(2, 3)), f'{VISIBILITY} of 3', False),
    ('visibility 1', each(keypoints=[v for x, y in POINTS.values() for v in (x, y, 1)]), None, False),
    ('visibility as fractions', each(keypoints=[v for x, y in POINTS.values() for v in (x, y, 0.9)]), None, False),
    ('visibility true', points(*changed(2, True)), None, False),
    ('no visible point beside others', extra(keypoints=UNLABELED, num_keypoints=0), None, False),
    ('no visible point and no number of them', extra(keypoints=UNLABELED, num_keypoints=None), None, False),
    ('no visible point anywhere', each(keypoints=UNLABELED), 'every keypoint has visibility 0', False),
    ('num_keypoints 0 anywhere', each(num_keypoints=0), 'num_keypoints is 0 in all 2 annotations', False),
    ('num_keypoints as text', first(num_keypoints='4'), "1 of 2 annotations have the num_keypoints '4'", False),
    ('a crowd beside others', extra(keypoints=UNLABELED, num_keypoints=0, iscrowd=1), None, False),
    ('keypoints outside the image beside others', extra(
        keypoints=[v + 1000 if i % 3 < 2 else v for i, v in enumerate(FLAT)], image_id=2), TWO_OF_THREE, False),
    ('a box of no size beside others', extra(bbox=[5, 5, 0, 0]), TWO_OF_THREE, True),
    ('a box of no width beside others', extra(bbox=[5, 5, 0, 9]), TWO_OF_THREE, False),
    ('a box outside the image beside others', extra(bbox=[900, 900, 9, 9]), TWO_OF_THREE, False),
    ('a box with NaN', first(bbox=[NAN, 0, 1, 1]), 'have a bbox that is not 4 numbers', False),
    ('a box of negative height', first(bbox=[5, 5, 9, -9]), 'have a bbox of negative width or height', False),
    ('no box', whole(lambda content: content['annotations'][0].pop('bbox')), 'have keypoints, but no bbox', False),
    ('a file of boxes', whole(lambda content: [entry.pop('keypoints') for entry in content['annotations']]),
     'no annotation has both bbox and keypoints', False),
    ('names as a text', first('categories', keypoints='head'), 'use a list of names', False),
    ('names as a number', first('categories', keypoints=4), 'use a list of names', False),
    ('three names', first('categories', keypoints=['head', 'left', 'right']), 'has 3 keypoints, but', False),
    ('no names', whole(lambda content: content['categories'][0].pop('keypoints')), None, False),
    ('nested 100,000 deep', text(lambda before: '[' * 100_000), 'is nested too deeply', False),
):  # fmt: skip
    pose(name, refused, quick)(change)


# Boxes of objects from a file: a detector's predictions, or COCO annotations


def boxes(name: str, content: object, refused: str | None = None, quick: bool = False) -> None:
    """Declare a case of a file of boxes, as ``infer --boxes`` reads it; one that works has a box of photo.png."""

    def run(root: Path) -> None:
        path = root / 'boxes.json'
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        found = Boxes(path, None, check_annotations)
        found.check([Path('photo.png')])
        np.testing.assert_array_equal(found.of(Path('photo.png'))[:, :4], [[2, 4, 28, 30]])

    case('boxes for poses', name, refused, quick)(run)


def predicted(*box, **fields) -> dict:
    instance = {'bbox': list(box), 'score': 0.9, 'class': 'bird'} | fields
    good = {'bbox': [2, 4, 28, 30], 'score': 0.9, 'class': 'bird'}
    return {'predictions': [{'image': 'photo.png', 'instances': [good, *([instance] if box or fields else [])]}]}


def annotated(*box, **fields) -> dict:
    images = [{'id': 1, 'file_name': 'photo.png'}]
    entries = [{'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [2, 4, 26, 26]}]
    if box or fields:
        entries.append({'id': 2, 'image_id': 1, 'category_id': 1, 'bbox': list(box)} | fields)
    return {'images': images, 'annotations': entries}


FORMAT = 'boxes file .* has an unknown format|have a bbox that is not 4 numbers'
NUMBERS = r'boxes file .* has (an unknown format|a box that is)'
for name, content, refused, quick in (
    ('predictions', predicted(), None, False),
    ('annotations', annotated(), None, False),
    ('a box of no size beside others', predicted(5, 5, 5, 9), None, False),
    ('an annotation of no size beside others', annotated(5, 5, 0, 0), None, False),
    ('a crowd beside others', annotated(5, 5, 9, 9, iscrowd=1), None, False),
    ('a box with NaN', predicted(NAN, 5, 6, 7), NUMBERS, True),
    ('a box with infinity', predicted(0, 0, INF, INF), NUMBERS, False),
    ('a box of 1e30', predicted(0, 0, 1e30, 1e30), NUMBERS, False),
    ('a box of 1e300', predicted(0, 0, 1e300, 1e300), NUMBERS, False),
    ('a box of 400 digits', predicted(0, 0, HUGE, HUGE), NUMBERS, True),
    ('a box of three numbers', predicted(1, 2, 3), NUMBERS, False),
    ('a box of texts', predicted('a', 'b', 'c', 'd'), NUMBERS, False),
    ('a score of text', predicted(1, 2, 3, 4, score='high'), NUMBERS, False),
    ('no score', {'predictions': [{'image': 'photo.png', 'instances': [{'bbox': [1, 2, 3, 4]}]}]}, FORMAT, False),
    ('an annotation with NaN', annotated(NAN, 1, 2, 3), FORMAT, False),
    ('an annotation of 400 digits', annotated(1, 1, HUGE, 3), FORMAT, False),
    ('an annotation of an unknown image', annotated(1, 2, 3, 4, image_id=7), FORMAT + '|image_id', False),
    ('no predictions', {'predictions': []}, 'has no box for photo.png', False),
    ('predictions null', {'predictions': None}, FORMAT, False),
    ('predictions of numbers', {'predictions': [1]}, FORMAT, False),
    ('a list', [], FORMAT, False),
    ('null', None, FORMAT, False),
    ('a text', 'predictions', FORMAT, False),
    ('empty', b'', FORMAT, False),
    ('UTF-16', json.dumps(predicted()).encode('utf-16'), FORMAT, False),
    ('byte order mark', b'\xef\xbb\xbf' + json.dumps(predicted()).encode(), None, False),
    ('nested 100,000 deep', b'[' * 100_000, FORMAT, True),
    ('a null byte in a name', {'predictions': [{'image': 'a\0', 'instances': []}]}, 'has no box for photo.png', False),
):  # fmt: skip
    boxes(name, content, refused, quick)


# Hands


def hands(name: str, change: Change, refused: str | None = None, quick: bool = False) -> None:
    """Declare a case of FreiHAND."""

    def run(root: Path) -> None:
        project = own_data.freihand(root)
        change(project)
        line = project.line('dry-run')
        if line:
            raise UserError(line)

    case('hands', name, refused, quick)(run)


def joints(change: Callable[[list], object]) -> Change:
    return lambda project: project.edit(change, 'training_xyz.json')


def put(content: list, *path: int, value) -> None:
    for index in path[:-1]:
        content = content[index]
    content[path[-1]] = value


for name, change, refused in (
    ('valid', lambda project: None, None),
    ('NaN', joints(lambda content: put(content, 0, 3, 1, value=NAN)), 'entry 0 has a joint that is not in front'),
    ('behind the camera', joints(lambda content: put(content, 0, 3, 2, value=-1)), 'entry 0 has a joint that is not'),
    ('400 digits', joints(lambda content: put(content, 0, 3, 1, value=HUGE)), 'entry 0 is not a numeric array'),
    ('1e300', joints(lambda content: put(content, 0, 3, 1, value=1e300)), 'entry 0 has a joint that is not'),
    ('a text', joints(lambda content: put(content, 0, 3, 1, value='x')), 'entry 0 is not a numeric array'),
    ('null', joints(lambda content: put(content, 0, value=None)), 'entry 0 is (a single number|not a numeric)'),
    ('20 joints', joints(lambda content: content[0].pop()), 'entry 0 is 20 x 3'),
    ('one entry less', joints(lambda content: content.pop()), 'the entries must match one to one'),
    ('empty list', joints(lambda content: content.clear()), 'is not a list with at least one entry'),
    ('an object', (
        lambda project: (project.data / 'training_xyz.json').write_text('{"a": 1}')), 'is not a list with at least'),
    ('nested 100,000 deep', lambda project: (project.data / 'training_xyz.json').write_text('[' * 100_000),
     'is not valid JSON'),
    ('byte order mark', lambda project: (project.data / 'training_xyz.json').write_bytes(b'\xef\xbb\xbf[]'),
     'is not valid JSON'),
    ('UTF-16', lambda project: (project.data / 'training_xyz.json').write_text('[]', encoding='utf-16'),
     'is not valid JSON'),
):  # fmt: skip
    hands(name, change, refused, quick=name in ('400 digits',))
