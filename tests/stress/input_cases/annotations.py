"""COCO files of boxes and masks, through training and a test with a model that knows the objects, and ``stats``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import numpy as np
import own_data_makers as own_data
from mmengine.registry import DefaultScope
from own_data_makers import BOXES, CLASSES, SIZE, gray, outline

from mogacore.analysis.stats import statistics
from mogacore.coco_eval import mask as run_lengths
from mogacore.datasets.checks import check_dataset
from mogacore.errors import UserError

from .core import as_nobody, case, cli

BOX_SCORES = {f'coco/bbox_{name}_precision': 1.0 for name in CLASSES} | {'coco/bbox_mAP': 1.0}
MASK_SCORES = BOX_SCORES | {key.replace('bbox', 'segm'): value for key, value in BOX_SCORES.items()}
# If one of two objects of class a is found: of COCO's 101 thresholds of the recall, those from 0 to 0.5 are reached.
HALF_OF_A = {'coco/bbox_a_precision': 51 / 101, 'coco/bbox_mAP': (51 / 101 + 2) / 3}
FILE = 'objects.json'
Change = Callable[[own_data.Project], object]


def coco(name: str, refused: str | None = None, quick: bool = False, scores: dict | None = None, masks: bool = False):
    """Declare a case whose function changes the project.

    Args:
        name: What is odd.
        refused: Pattern of the line; None if training and test work.
        quick: Whether the test command runs it.
        scores: Scores of the test that differ from those of perfect predictions.
        masks: Whether the model has masks.
    """
    group = 'annotations: masks' if masks else 'annotations: boxes'
    expected = (MASK_SCORES if masks else BOX_SCORES) | (scores or {})

    def add(change: Change) -> Change:
        def run(root):
            project = own_data.coco(root, with_mask=masks)
            change(project)
            check(project, expected)

        case(group, name, refused, quick)(run)
        return change

    return add


def check(project: own_data.Project, scores: dict[str, float]) -> None:
    """Train and test; ``stats`` reports a problem if training refuses the data, and none otherwise."""
    config, _, _ = project.write_config()
    try:
        project.call('train')
    except UserError as error:
        report = cli_statistics(config)
        problems = report['splits']['train']['problems']
        assert problems, f'stats reports no problem, but training: {error}'
        raise
    found = project.call('test')
    assert {key: round(found[key], 3) for key in scores} == {key: round(value, 3) for key, value in scores.items()}
    report = cli_statistics(config)
    assert not any(split['problems'] for split in report['splits'].values()), report


def cli_statistics(config: str) -> dict:
    """``mogacore stats`` of the training set."""
    with DefaultScope.overwrite_default_scope(None):
        return statistics(config, ['train'])


def rows(table: dict[str, tuple], quick: tuple[str, ...] = (), masks: bool = False) -> None:
    """Declare cases: name to change, and pattern or None or scores."""
    for name, (change, outcome) in table.items():
        settings = dict(scores=outcome) if isinstance(outcome, dict) else dict(refused=outcome)
        coco(name, quick=name in quick, masks=masks, **settings)(change)


def whole(change: Callable[[dict], object]) -> Change:
    """Change the content of the file."""
    return lambda project: project.edit(change, FILE)


def first(kind: str = 'annotations', **fields) -> Change:
    """Set fields of the first entry of a list."""
    return whole(lambda content: content[kind][0].update(fields))


def without(kind: str, key: str) -> Change:
    return whole(lambda content: content[kind][0].pop(key))


def each(**fields) -> Change:
    return whole(lambda content: [entry.update(fields) for entry in content['annotations']])


def text(change: Callable[[str], str | bytes]) -> Change:
    """Change the text of the file."""

    def apply(project: own_data.Project) -> None:
        path = project.data / FILE
        changed = change(path.read_text())
        path.write_bytes(changed.encode() if isinstance(changed, str) else changed)

    return apply


def replaced(old: str, new: str) -> Change:
    def change(before: str) -> str:
        assert old in before
        return before.replace(old, new, 1)

    return text(change)


def extra(**fields) -> Change:
    """Add an annotation of class a to the first image."""
    entry = dict(id=99, image_id=1, category_id=1, bbox=[1, 1, 9, 9], area=81, iscrowd=0) | fields
    return whole(lambda content: content['annotations'].append(entry))


NAN, INF = float('nan'), float('inf')
NO_JSON = rf'annotation file .*{FILE} cannot be read as JSON .*: recreate it'
NO_BOX = r'1 of 3 annotations have a bbox that is not 4 numbers, the first has id 1: use x, y, width, height'
HUGE = 10**400

# The file as a whole

rows({
    'empty file': (text(lambda before: ''), NO_JSON),
    'spaces only': (text(lambda before: ' \n'), NO_JSON),
    'truncated': (text(lambda before: before[:-40]), NO_JSON),
    'trailing comma': (replaced('}]', '},]'), NO_JSON),
    'single quotes': (text(lambda before: before.replace('"', "'")), NO_JSON),
    'comments': (text(lambda before: '// boxes\n' + before), NO_JSON),
    'UTF-16': (text(lambda before: before.encode('utf-16')), NO_JSON),
    'byte order mark': (text(lambda before: b'\xef\xbb\xbf' + before.encode()), NO_JSON),
    'Latin-1': (text(lambda before: before.replace('"a"', '"\xe4"').encode('latin-1')), NO_JSON),
    'two documents': (text(lambda before: before + before), NO_JSON),
    'JSON lines': (text(lambda before: '{"image": "1.png"}\n{"image": "2.png"}\n'), NO_JSON),
    'nested 100,000 deep': (text(lambda before: '[' * 100_000), 'is nested too deeply'),
    'null': (text(lambda before: 'null'), "is not a COCO file: it lacks the list 'images'"),
    'a list': (text(lambda before: '[]'), "is not a COCO file: it lacks the list 'images'"),
    'a number of 5,000 digits': (replaced('"area": 240', '"area": ' + '9' * 5000), NO_JSON),
    'binary': (text(lambda before: bytes(range(256))), NO_JSON),
    'line ends of Windows': (text(lambda before: json.dumps(json.loads(before), indent=1).replace('\n', '\r\n')), None),
    'keys twice, of which the last counts': (replaced('{', '{"images": [], '), None),
    'further keys': (whole(lambda content: content.update(licenses=None, videos=[1], note={'a': [NAN]})), None),
}, quick=('empty file', 'trailing comma', 'UTF-16', 'nested 100,000 deep'))  # fmt: skip


@coco('a FIFO', r'cannot be read as JSON .*not an ordinary file', quick=True)
def _(project):
    (project.data / FILE).unlink()
    os.mkfifo(project.data / FILE)


@coco('a folder', r'annotation file .* is a folder')
def _(project):
    (project.data / FILE).unlink()
    (project.data / FILE).mkdir()


@coco('a link to itself', r'annotation file .* is missing')
def _(project):
    (project.data / FILE).unlink()
    (project.data / FILE).symlink_to(FILE)


@case('annotations: boxes', 'without the right to read it', rf'{FILE} cannot be read')
def _(root):
    project = own_data.coco(root)
    (project.data / FILE).chmod(0)
    with as_nobody():
        check_dataset(project.datasets[0], num_classes=3)


# Lists and keys

rows({
    **{f'no list {key}': (
        whole(lambda content, key=key: content.pop(key)), f"it lacks the list '{key}', required are images"
    ) for key in ('images', 'annotations', 'categories')},
    **{f'empty list {key}': (
        whole(lambda content, key=key: content[key].clear()), f"list '{key}' is empty: use a file with {key}"
    ) for key in ('images', 'annotations', 'categories')},
    **{f'{key} is an object': (
        whole(lambda content, key=key: content.update({key: {'1': {}}})), f"it lacks the list '{key}'"
    ) for key in ('images', 'annotations')},
    'annotations of texts': (
        whole(lambda content: content.update(annotations=['a'])), "it lacks the list 'annotations'"),
    **{f'image without {key}': (without('images', key), f"1 of 3 images lack '{key}'")
       for key in ('id', 'file_name', 'width', 'height')},
    **{f'annotation without {key}': (without('annotations', key), f"1 of 3 annotations lack '{key}'")
       for key in ('id', 'image_id', 'category_id', 'bbox')},
    **{f'category without {key}': (without('categories', key), f"1 of 3 categories lack '{key}'")
       for key in ('id', 'name')},
    'annotation without area and iscrowd': (
        whole(lambda content: [e.pop(key) for key in ('area', 'iscrowd') for e in content['annotations']]), None),
    'ids of images that are texts': (whole(lambda content: [
        *(entry.update(id=f'i{entry["id"]}') for entry in content['images']),
        *(entry.update(image_id=f'i{entry["image_id"]}') for entry in content['annotations']),
    ]), '3 of 3 images have an id that is not a whole number'),
    'ids of images as texts of numbers': (whole(lambda content: [
        *(entry.update(id=str(entry['id'])) for entry in content['images']),
        *(entry.update(image_id=str(entry['image_id'])) for entry in content['annotations']),
    ]), '3 of 3 images have an id that is not a whole number'),
    'ids of images as floats': (whole(lambda content: [
        *(entry.update(id=float(entry['id'])) for entry in content['images']),
        *(entry.update(image_id=float(entry['image_id'])) for entry in content['annotations']),
    ]), None),
    'ids of annotations that are texts': (whole(lambda content: [
        entry.update(id=f'a{entry["id"]}') for entry in content['annotations']
    ]), '3 of 3 annotations have an id that is not a whole number'),
    'id null': (first(id=None), '1 of 3 annotations have the id None'),
    'id NaN': (first('images', id=NAN), 'have the id nan'),
    'id of a list': (first(id=[1]), r'1 of 3 annotations have the id \[1\]'),
    'width null': (first('images', width=None), '1 of 3 images have the width None'),
    'width 0': (first('images', width=0), '1 of 3 images have the width 0'),
    'width of 400 digits': (first('images', width=HUGE), '1 of 3 images have the width 1000'),
    'width as text': (first('images', width='48'), "1 of 3 images have the width '48'"),
    'file name empty': (first('images', file_name=''), "1 of 3 images have the file_name ''"),
    'file name null': (first('images', file_name=None), '1 of 3 images have the file_name None'),
    'file name with a null byte': (first('images', file_name='1\0.png'), r'1 of 3 images .* are not in'),
    'file name with half a character': (first('images', file_name='\ud800/1.png'), r'1 of 3 images .* are not in'),
    'file name of 300 characters': (first('images', file_name='n' * 300), r'1 of 3 images .* are not in'),
    'file name with line breaks': (first('images', file_name='a\nb\r.png'), r'1 of 3 images .* are not in'),
    'file name of Windows': (first('images', file_name='images\\1.png'), r'1 of 3 images .* are not in'),
    'name of a category is a number': (first('categories', name=5), '1 of 3 categories have the name 5'),
    'name of a category twice': (first('categories', name='b'), 'metainfo.classes has a|have the name b'),
    'gaps in the ids of categories': (whole(lambda content: [
        *(entry.update(id=entry['id'] * 1000) for entry in content['categories']),
        *(entry.update(category_id=entry['category_id'] * 1000) for entry in content['annotations']),
    ]), None),
    'ids from 0': (whole(lambda content: [
        *(entry.update(id=entry['id'] - 1) for entry in content['categories']),
        *(entry.update(category_id=entry['category_id'] - 1, id=entry['id'] - 1) for entry in content['annotations']),
    ]), None),
    'a category that no object has': (
        whole(lambda content: content['categories'].insert(0, dict(id=77, name='none'))), None),
    'unknown category': (first(category_id=9), r'1 of 3 annotations have a category_id that is not among'),
    'unknown image': (first(image_id=9), r'1 of 3 annotations have an image_id that is not among the images'),
    'id of an image as text in annotations': (first(image_id='1'), 'an image_id that is not among the images'),
    'an annotation id twice': (first(id=2), '2 of the annotations have id 2: give each a unique id'),
    'an image id twice': (first('images', id=2), '2 of the images have id 2: give each a unique id'),
    'an image without objects': (whole(lambda content: content['images'].append(
        dict(id=4, file_name='1.png', width=SIZE[0], height=SIZE[1]))), None),
}, quick=('no list images', 'image without width', 'file name with line breaks', 'gaps in the ids of categories',
          'id NaN', 'an image without objects'))  # fmt: skip


@coco('an absolute path')
def _(project):
    first('images', file_name=str(project.data / 'images/1.png'))(project)


@coco('a path with ..')
def _(project):
    first('images', file_name='../images/1.png')(project)


@coco('an image listed twice with the same objects', quick=True)
def _(project):
    """In training only: the model knows the objects by the number of the image."""
    content = json.loads((project.data / FILE).read_text())
    content['images'].append(dict(content['images'][0], id=11))
    content['annotations'].append(dict(content['annotations'][0], id=11, image_id=11))
    (project.data / 'twice.json').write_text(json.dumps(content))
    project.datasets[0].ann_file = 'twice.json'


# Images that differ from the file

rows({
    'an image of another size': (
        lambda project: gray(project.data / 'images/2.png', 0, (20, 10)), r'2\.png is 20 x 10 px .* but 48 x 32 in'),
    'width and height swapped': (
        first('images', width=SIZE[1], height=SIZE[0]), r'1\.png is 48 x 32 px .* but 32 x 48 in'),
    'a missing image': (lambda project: (project.data / 'images/2.png').unlink(), '1 of 3 images .* are not in'),
    'an empty image': (
        lambda project: (project.data / 'images/2.png').write_bytes(b''), r'2\.png is empty, truncated or not'),
    'sizes as fractions': (first('images', width=48.0, height=32.0), None),
}, quick=('an image of another size',))  # fmt: skip


@coco('a FIFO for an image', r'1 of 3 images .* are not in', quick=True)
def _(project):
    (project.data / 'images/2.png').unlink()
    os.mkfifo(project.data / 'images/2.png')


@coco('a folder for an image', r'1 of 3 images .* are not in')
def _(project):
    (project.data / 'images/2.png').unlink()
    (project.data / 'images/2.png').mkdir()


# Boxes

rows({
    **{f'box {label}': (first(bbox=value), NO_BOX) for label, value in {
        'null': None, 'text': '2 4 20 12', 'of three numbers': [1, 2, 3], 'of five numbers': [1, 2, 3, 4, 5],
        'with NaN': [NAN, 4, 20, 12], 'with infinity': [2, 4, INF, 12], 'of texts': ['2', '4', '20', '12'],
        'with null': [2, 4, None, 12], 'of lists': [[2], [4], [20], [12]], 'of 400 digits': [2, 4, HUGE, 12],
        'of corners as an object': {'x': 2, 'y': 4, 'w': 20, 'h': 12}, 'empty': [],
    }.items()},
    'negative width': (first(bbox=[22, 4, -20, 12]), 'have a bbox of negative width or height'),
    'a box of no width beside others': (extra(bbox=[5, 5, 0, 9], area=0), HALF_OF_A),
    'a box of half a pixel beside others': (extra(bbox=[5, 5, 0.5, 0.5], area=0.25), HALF_OF_A),
    'a box outside the image beside others': (extra(bbox=[100, 100, 9, 9]), HALF_OF_A),
    'a box left of the image beside others': (extra(bbox=[-50, -50, 9, 9]), HALF_OF_A),
    'only boxes of no size': (each(bbox=[5, 5, 0, 0]), 'no annotation has a bbox of 1 px or more'),
    'fractions of the image': (each(bbox=[0.1, 0.1, 0.4, 0.3]), 'no annotation has a bbox of 1 px or more'),
    'corners instead of sizes': (whole(lambda content: [
        entry.update(bbox=own_data.corners(entry['bbox'])) for entry in content['annotations']
    ]), 'have a bbox that ends outside the image'),
    'a box that is much too large': (extra(bbox=[0, 0, 1e9, 1e9], iscrowd=1), None),
    'area NaN': (first(area=NAN), '1 of 3 annotations have the area nan'),
    'area of 400 digits': (first(area=HUGE), '1 of 3 annotations have the area 1000'),
    'area null': (first(area=None), '1 of 3 annotations have the area None'),
    'area negative': (each(area=-5), None),
    'a crowd beside others': (extra(iscrowd=1), None),
    'crowds only': (each(iscrowd=1), 'all 3 annotations have iscrowd or ignore'),
    'iscrowd as text': (each(iscrowd='0'), "3 of 3 annotations have the iscrowd '0'"),
    'iscrowd null': (each(iscrowd=None), None),
    'iscrowd true': (extra(iscrowd=True), None),
    'iscrowd 2': (first(iscrowd=2), '1 of 3 annotations have the iscrowd 2'),
    'ignore as text': (each(ignore='false'), "3 of 3 annotations have the ignore 'false'"),
}, quick=('box with NaN', 'box of 400 digits', 'a box of no width beside others',
          'a box outside the image beside others',
          'a crowd beside others', 'iscrowd as text'))  # fmt: skip


@coco('20,000 boxes in an image')
def _(project):
    rng = np.random.default_rng(0)
    boxes = rng.integers(0, 20, (20_000, 2)).tolist()

    def change(content):
        content['annotations'] += [
            dict(id=100 + number, image_id=1, category_id=1, bbox=[*box, 9, 9], area=81, iscrowd=1)
            for number, box in enumerate(boxes)
        ]

    whole(change)(project)


# Masks


def polygon(*points) -> Change:
    return first(segmentation=[list(points)])


def lengths(counts, size=(SIZE[1], SIZE[0])) -> Change:
    return first(segmentation=dict(counts=counts, size=list(size)))


def box_lengths(name: str) -> dict:
    """Run lengths of the mask that fills a box, as lists."""
    x, y, width, height = BOXES[name]
    values = np.zeros(SIZE[::-1], np.uint8)
    values[y : y + height, x : x + width] = 1
    flat = values.ravel(order='F')
    changes = np.flatnonzero(np.diff(flat)) + 1
    bounds = [0, *changes.tolist(), len(flat)]
    return dict(counts=np.diff(bounds).tolist(), size=list(SIZE[::-1]))


def compressed(name: str) -> dict:
    x, y, width, height = BOXES[name]
    values = np.zeros(SIZE[::-1], np.uint8, order='F')
    values[y : y + height, x : x + width] = 1
    found = run_lengths.encode(values)
    return dict(found, counts=found['counts'].decode())


def of_classes(make: Callable[[str], object]) -> Change:
    return whole(lambda content: [
        entry.update(segmentation=make(name)) for entry, name in zip(content['annotations'], CLASSES, strict=True)
    ])  # fmt: skip


def dense(name: str) -> list:
    """The outline of a box with a million points."""
    x1, y1, x2, y2 = own_data.corners(BOXES[name])
    steps = np.linspace(0, 1, 250_000, endpoint=False)[:, None]
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], float)
    sides = [start + steps * (end - start) for start, end in zip(corners, np.roll(corners, -1, 0), strict=True)]
    return [np.concatenate(sides).round(4).ravel().tolist()]


NO_PAIRS = '1 of 3 annotations have a polygon that is not pairs of numbers'
NO_POLYGON = '1 of 3 annotations have no polygon of 6 or more numbers'
NO_SIZE = '1 of 3 annotations have a mask whose size differs from that of the image'
NO_SUM = '1 of 3 annotations have a mask whose counts do not add up to its pixels'
NO_CODE = '1 of 3 annotations have a mask that is not a valid run-length encoding of its size'
NO_MASK = '1 of 3 annotations lack the segmentation'
NO_KIND = '1 of 3 annotations have a segmentation that is not a list or object'
PIXELS = SIZE[0] * SIZE[1]

rows({
    'polygons': (lambda project: None, None),
    'polygon of two points': (polygon(1, 2, 3, 4), NO_POLYGON),
    'polygon of a million points': (of_classes(lambda name: dense(name) if name == 'a' else [outline(name)]), None),
    'polygon of seven numbers': (polygon(1, 2, 10, 2, 10, 10, 3), NO_PAIRS),
    'polygon with NaN': (polygon(1, 2, 10, 2, 10, NAN), NO_PAIRS),
    'polygon with infinity': (polygon(1, 2, 10, 2, 10, INF), NO_PAIRS),
    'polygon of 400 digits': (polygon(1, 2, 10, 2, 10, HUGE), NO_PAIRS),
    'polygon of texts': (polygon(*'123456'), NO_PAIRS),
    'polygon of points': (first(segmentation=[[[1, 2], [10, 2], [10, 9]]]), NO_PAIRS),
    'polygon without its list': (first(segmentation=[1, 2, 10, 2, 10, 9]), NO_POLYGON),
    'segmentation null': (first(segmentation=None), NO_MASK),
    'segmentation empty': (first(segmentation=[]), NO_MASK),
    'segmentation of empty lists': (first(segmentation=[[]]), NO_POLYGON),
    'segmentation as text': (first(segmentation='1 2 10 2 10 9'), NO_KIND),
    'segmentation a number': (first(segmentation=5), NO_KIND),
    'a valid and a short polygon': (of_classes(lambda name: [outline(name), [1, 2, 3, 4]]), None),
    'polygon far outside': (
        of_classes(lambda name: [outline(name), [900, 900, 950, 900, 950, 950]]), None),
    'run lengths': (of_classes(box_lengths), None),
    'compressed run lengths': (of_classes(compressed), None),
    'run lengths of another size': (lengths([0, 6], (2, 3)), NO_SIZE),
    'run lengths with width and height swapped': (lengths([PIXELS], SIZE), NO_SIZE),
    'run lengths without a size': (first(segmentation=dict(counts=[PIXELS])), NO_SIZE),
    'run lengths without counts': (first(segmentation=dict(size=list(SIZE[::-1]))), NO_SUM),
    'run lengths of fewer pixels': (lengths([0, 6]), NO_SUM),
    'run lengths with negative numbers': (lengths([-10, PIXELS + 10]), NO_SUM),
    'run lengths with fractions': (lengths([0.5, PIXELS - 0.5]), NO_SUM),
    'run lengths with texts': (lengths(['1']), NO_SUM),
    'run lengths of 400 digits': (lengths([HUGE, -HUGE + PIXELS]), NO_SUM),
    'run lengths null': (lengths(None), NO_SUM),
    'compressed run lengths of another size': (lengths('zzz'), NO_CODE),
    'compressed run lengths that are cut': (lengths('0o'), NO_CODE),
    'compressed run lengths beyond ASCII': (lengths('äö'), NO_CODE),
    'compressed run lengths with half a character': (lengths('\ud800'), NO_CODE),
    'compressed run lengths empty': (lengths(''), NO_CODE),
    'a crowd with run lengths beside others': (extra(
        iscrowd=1, segmentation=dict(counts=[0, PIXELS], size=list(SIZE[::-1]))), None),
}, quick=('polygon of two points', 'run lengths of another size', 'run lengths with negative numbers',
          'segmentation as text'), masks=True)  # fmt: skip


# Through init-data, which reads, checks and converts the file of a folder


def through_init_data(name: str, change: Change, refused: str | None) -> None:
    """Declare a case of a COCO file in a folder of own data: `mogacore init-data`."""

    @case('annotations: init-data', name, refused)
    def _(root):
        project = own_data.coco(root, with_mask=True)
        change(project)
        os.rename(project.data, 'own')
        before = sorted(path.name for path in root.rglob('*'))
        from mogacore.cli.init_data import main

        try:
            cli(main, 'own', '--task', 'instance')
        except UserError:
            assert sorted(path.name for path in root.rglob('*')) == before
            raise
        assert (root / 'own.py').is_file()


for name, change, refused in (
    ('a valid file', lambda project: None, None),
    ('nested 100,000 deep', text(lambda before: '[' * 100_000), 'is nested too deeply'),
    ('byte order mark', text(lambda before: b'\xef\xbb\xbf' + before.encode()), NO_JSON),
    ('UTF-16', text(lambda before: before.encode('utf-16')), NO_JSON),
    ('box of 400 digits', first(bbox=[2, 4, HUGE, 12]), NO_BOX),
    ('segmentation as text', first(segmentation='1 2'), NO_KIND),
    ('polygon of 400 digits', polygon(1, 2, 10, 2, 10, HUGE), NO_PAIRS),
    ('run lengths with negative numbers', lengths([-10, PIXELS + 10]), NO_SUM),
    ('run lengths with half a character', lengths('\ud800'), NO_CODE.replace('1 of 3', '1 of 1')),
    ('box outside the image', extra(bbox=[100, 100, 9, 9], segmentation=[[100, 100, 109, 100, 109, 109]]), None),
    ('object twice', extra(**{'bbox': BOXES['a'], 'segmentation': [outline('a')], 'area': own_data.area('a')}), None),
    ('file name with line breaks', first('images', file_name='a\nb\r.png'), r'is not below own'),
    ('iscrowd as text', each(iscrowd='0'), "the iscrowd '0'"),
):
    through_init_data(name, change, refused)
