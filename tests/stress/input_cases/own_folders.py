"""Folders of own data as label tools write them, through ``mogacore init-data``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import folder_makers as makers
import numpy as np
from PIL import Image

from mogacore.cli.init_data import main
from mogacore.errors import UserError

from .annotations import HUGE, INF, NAN
from .core import case, cli
from .pictures import black_png, jpeg_of_size

Change = Callable[[Path], object]


def folder(maker: Callable, task: str, name: str, refused: str | None = None, quick: bool = False, **numbers: int):
    """Declare a case that changes a folder of a maker.

    Args:
        maker: Of ``folder_makers``.
        task: For ``--task``.
        name: What is odd.
        refused: Pattern of the lines; None if a config is written.
        quick: Whether the test command runs it.
        **numbers: For one that works: number of ``images`` and ``objects`` that init-data prints.
    """

    def add(change: Change) -> None:
        def run(root: Path) -> None:
            (root / 'own').mkdir()
            maker(root / 'own')
            change(root / 'own')
            before = sorted(str(path) for path in root.rglob('*'))
            try:
                text = cli(main, 'own', '--task', task)
            except UserError:
                assert sorted(str(path) for path in root.rglob('*')) == before
                raise
            compile((root / 'own.py').read_text(), 'own.py', 'exec')
            for what, number in numbers.items():
                assert f'{number} {what}' in text.partition('\n')[0], text

        case(f'init-data: {maker.__name__}', name, refused, quick)(run)

    return add


def write(name: str, data: str | bytes) -> Change:
    return lambda root: (root / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def append(name: str, line: str) -> Change:
    return lambda root: (root / name).write_text((root / name).read_text() + line)


# YOLO

LABEL = 'labels/one.txt'
for name, change, outcome in (
    ('valid', lambda root: None, {'images': 10, 'objects': 14}),
    ('empty label file', write(LABEL, ''), {'images': 10, 'objects': 12}),
    ('line ends of Windows and empty lines', lambda root: (root / LABEL).write_bytes(
        (root / LABEL).read_bytes().replace(b'\n', b'\r\n\r\n')), {'images': 10, 'objects': 14}),
    ('byte order mark', lambda root: (root / LABEL).write_bytes(b'\xef\xbb\xbf' + (root / LABEL).read_bytes()),
     {'images': 10, 'objects': 14}),
    ('UTF-16', write(LABEL, '0 .5 .5 .1 .1'.encode('utf-16')), r'one\.txt cannot be read as text in UTF-8'),
    ('an object twice', lambda root: append(LABEL, (root / LABEL).read_text())(root), {'objects': 14}),
    ('a box outside', append(LABEL, '0 1.5 0.5 0.1 0.1\n'), r'one\.txt line 3 has the value 1\.5'),
    ('a box that leaves the image', append(LABEL, '0 0.99 0.5 0.2 0.1\n'), {'objects': 15}),
    ('a box of no size', append(LABEL, '0 0.5 0.5 0 0\n'), {'objects': 14}),
    ('NaN', append(LABEL, '0 nan 0.5 0.1 0.1\n'), r'one\.txt line 3 has a value that is not finite'),
    ('a negative size', append(LABEL, '0 0.5 0.5 -0.1 0.1\n'), r'one\.txt line 3 has the value -0\.1'),
    ('a negative class', append(LABEL, '-1 0.5 0.5 0.1 0.1\n'), r'one\.txt line 3 has class -1'),
    ('a class as fraction', append(LABEL, '0.0 0.5 0.5 0.1 0.1\n'), r'one\.txt line 3 is .*not a class number'),
    ('a class of 5,000 digits', append(LABEL, '9' * 5000 + ' 0.5 0.5 0.1 0.1\n'), r'one\.txt line 3 is'),
    ('commas', append(LABEL, '0,0.5,0.5,0.1,0.1\n'), r'one\.txt line 3 is'),
    ('a score in a sixth column', append(LABEL, '0 0.5 0.5 0.1 0.1 0.9\n'), r'one\.txt line 3 has 5 values'),
    ('a null byte', append(LABEL, '0 0.5 0.5 0.1 0.1\0\n'), r'one\.txt line 3 is'),
    ('a label file without image', write('labels/none.txt', '0 .5 .5 .1 .1\n'), {'images': 10, 'objects': 14}),
    ('a FIFO for a label file', lambda root: [(root / LABEL).unlink(), os.mkfifo(root / LABEL)],
     r'one\.txt cannot be read as text'),
    ('names with a byte order mark', lambda root: [
        (root / 'data.yaml').unlink(), write('classes.txt', b'\xef\xbb\xbfbl\xc3\xa5\r\nred thing\r\n')(root)],
     {'objects': 14}),
    ('names as a text', write('data.yaml', 'names: cat\n'), 'has no list of names'),
    ('names of numbers with a gap', write('data.yaml', 'names: {0: a, 5: b}\n'), r'line \d has class 1'),
    ('YAML in UTF-16', write('data.yaml', 'names: [a, b]\n'.encode('utf-16')), 'labels|data.yaml'),
    ('YAML nested 10,000 deep', write('data.yaml', 'names: ' + '[' * 10_000), 'data.yaml cannot be read as YAML'),
    ('YAML whose aliases expand to billions', write('data.yaml', 'a: &a [x,x,x,x,x,x,x,x,x]\n' + ''.join(
        f'{new}: &{new} [{",".join([f"*{old}"] * 9)}]\n' for old, new in zip('abcdefgh', 'bcdefghi', strict=True)
    ) + 'names: *i\n'), 'data.yaml'),
):  # fmt: skip
    settings = outcome if isinstance(outcome, dict) else {'refused': outcome}
    folder(makers.yolo, 'detection', name, quick=name in ('byte order mark', 'NaN'), **settings)(change)


@folder(makers.yolo, 'detection', 'the names are as in the file without its mark')
def _(root):
    (root / 'data.yaml').unlink()
    write('classes.txt', b'\xef\xbb\xbffirst\nsecond\n')(root)
    from mogacore.init_data import yolo
    from mogacore.init_data.listing import Listing

    assert yolo.read(Listing(root), 'detection').classes == ['first', 'second']


# LabelMe


def shape(number: int = 0, **fields) -> Change:
    """Change a shape of one.json."""

    def change(root: Path) -> None:
        content = json.loads((root / 'one.json').read_text())
        content['shapes'][number].update(fields)
        (root / 'one.json').write_text(json.dumps(content))

    return change


def top(**fields) -> Change:
    def change(root: Path) -> None:
        content = json.loads((root / 'one.json').read_text())
        (root / 'one.json').write_text(json.dumps(content | fields))

    return change


for name, change, outcome in (
    ('valid', lambda root: None, {'images': 10, 'objects': 14}),
    ('nested 100,000 deep', write('one.json', '[' * 100_000), r'one\.json (cannot be read as JSON|is nested too)'),
    ('empty file', write('one.json', ''), r'one\.json cannot be read as JSON'),
    ('UTF-16', lambda root: (root / 'one.json').write_bytes((root / 'one.json').read_text().encode('utf-16')),
     r'one\.json cannot be read as JSON'),
    ('byte order mark', lambda root: (root / 'one.json').write_bytes(
        b'\xef\xbb\xbf' + (root / 'one.json').read_bytes()),
     r'one\.json cannot be read as JSON'),
    ('a FIFO', lambda root: [(root / 'one.json').unlink(), os.mkfifo(root / 'one.json')],
     r'one\.json cannot be read as JSON'),
    ('shapes as an object', top(shapes={}), 'shapes is not a list'),
    ('shapes null', top(shapes=None), 'shapes is not a list'),
    ('a shape as a text', top(shapes=['a']), 'shape 1 has no label'),
    ('no shapes', top(shapes=[]), {'objects': 12}),
    ('points with NaN', shape(points=[[NAN, 1], [2, 3]]), 'points that are not pairs of numbers'),
    ('points with infinity', shape(points=[[INF, 1], [2, 3]]), 'points that are not pairs of numbers'),
    ('points of 400 digits', shape(points=[[HUGE, 1], [2, 3]]), 'points that are not pairs of numbers'),
    ('points null', shape(points=None), 'points that are not pairs of numbers'),
    ('a rectangle of one point', shape(points=[[1, 2]]), 'is a rectangle of 1 points'),
    ('an unknown shape', shape(shape_type='cube'), 'is a cube of 2 points'),
    ('a shape type that is a number', shape(shape_type=5), 'has a shape_type that is not text'),
    ('a shape type that is a list', shape(shape_type=['polygon']), 'has a shape_type that is not text'),
    ('a group that is a list', shape(group_id=[1]), 'group_id'),
    ('a rectangle outside the image', shape(points=[[900, 900], [950, 950]]), {'objects': 13}),
    ('a circle of a huge radius', shape(shape_type='circle', points=[[10, 10], [1e300, 1e300]]), {'objects': 14}),
    ('a width as text', top(imageWidth='64'), {'objects': 14}),
    ('a width of 400 digits', top(imageWidth=HUGE), {'objects': 14}),
    ('another width', top(imageWidth=65), r'one\.jpg is 64 x 48 px .* but 65 x 48'),
    ('an image path that is a number', top(imagePath=5), {'objects': 14}),
    ('an image path of Windows', top(imagePath='C:\\photos\\one.jpg'), {'objects': 14}),
):  # fmt: skip
    settings = outcome if isinstance(outcome, dict) else {'refused': outcome}
    folder(
        makers.labelme, 'instance', name, quick=name in ('points of 400 digits', 'a group that is a list'), **settings
    )(change)


def mask(text: str, **fields) -> Change:
    """Change the mask of alpha.json."""

    def change(root: Path) -> None:
        content = json.loads((root / 'alpha.json').read_text())
        content['shapes'][1].update(mask=text, **fields)
        (root / 'alpha.json').write_text(json.dumps(content | fields.pop('top', {})))

    return change


def base64_of(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


BAD_MASK = r'alpha\.json: shape 2 .* has a mask that cannot be read or leaves the image'
for name, change in (
    ('a mask that is no image', mask('aGVsbG8=')),
    ('a mask that is not base64', mask('%%%')),
    ('a mask that is a number', mask(5)),  # type: ignore[arg-type]
    ('a mask of 20,000 x 20,000', mask(base64_of(black_png(20_000, 20_000, 1)))),
    ('a mask at 1e300', mask('aGVsbG8=', points=[[1e300, 0], [1e300, 5]])),
):
    folder(makers.labelme, 'instance', name, BAD_MASK + '|has more than')(change)


@folder(makers.labelme, 'instance', 'an image of 4 billion pixels by its label', BAD_MASK)
def _(root):
    content = json.loads((root / 'alpha.json').read_text())
    (root / 'alpha.json').write_text(json.dumps(content | dict(imageWidth=65_000, imageHeight=65_000)))


# VOC


def in_xml(old: str, new: str) -> Change:
    def change(root: Path) -> None:
        path = root / 'Annotations/one.xml'
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


def xml(data: str | bytes) -> Change:
    return write('Annotations/one.xml', data)


for name, change, outcome in (
    ('valid', lambda root: None, {'images': 10, 'objects': 14}),
    ('empty file', xml(''), r'one\.xml cannot be read as XML'),
    ('entities that expand to billions', xml(
        '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><annotation>&b;</annotation>'
    ), 'has a document type'),
    ('nested 100,000 deep', xml('<annotation>' + '<a>' * 100_000), r'one\.xml cannot be read as XML'),
    ('UTF-16', lambda root: xml((root / 'Annotations/one.xml').read_text().encode('utf-16'))(root), {'objects': 14}),
    ('byte order mark', lambda root: xml(b'\xef\xbb\xbf' + (root / 'Annotations/one.xml').read_bytes())(root),
     {'objects': 14}),
    ('another root', xml('<html/>'), {'objects': 12}),
    ('no objects', in_xml('<object>', '<other>') and xml('<annotation><filename>one.jpg</filename></annotation>'),
     {'objects': 12}),
    ('NaN', in_xml('<xmin>3<', '<xmin>nan<'), 'has the corners'),
    ('infinity', in_xml('<xmax>22<', '<xmax>inf<'), 'has the corners|not finite'),
    ('1e300', in_xml('<xmax>22<', '<xmax>1e300<'), {'objects': 14}),
    ('a width of 0', in_xml('<width>64<', '<width>0<'), {'objects': 14}),
    ('another width', in_xml('<width>64<', '<width>65<'), r'one\.jpg is 64 x 48 px .* but 65 x 48'),
    ('corners swapped', in_xml('<xmin>3<', '<xmin>60<'), 'has the corners'),
    ('a FIFO', lambda root: [(root / 'Annotations/one.xml').unlink(), os.mkfifo(root / 'Annotations/one.xml')],
     r'one\.xml cannot be read as XML'),
):  # fmt: skip
    settings = outcome if isinstance(outcome, dict) else {'refused': outcome}
    folder(makers.voc, 'detection', name, **settings)(change)

# Every format: images and folders

for name, change, outcome in (
    ('valid', lambda root: None, {'images': 10, 'objects': 14}),
    ('an image of 20,000 x 20,000', write('images/one.jpg', jpeg_of_size(20_000, 20_000)),
     r'one\.jpg of 20000 x 20000 px has more than'),
    ('a FIFO for an image', lambda root: [(root / 'images/one.jpg').unlink(), os.mkfifo(root / 'images/one.jpg')],
     r'image own/images/one\.jpg is empty, truncated or not an image'),
    ('a folder that contains itself', lambda root: (root / 'again').symlink_to('.'), {'images': 10, 'objects': 14}),
    ('a folder that contains itself three times', lambda root: [(root / link).symlink_to('.') for link in 'xyz'],
     {'images': 10, 'objects': 14}),
    ('a folder that contains the one above it', lambda root: (root / 'up').symlink_to('..'),
     {'images': 10, 'objects': 14}),
    ('hidden files', lambda root: [(root / file).write_bytes(b'x') for file in ('.DS_Store', 'images/._one.jpg')],
     {'images': 10, 'objects': 14}),
    ('a FIFO beside the files', lambda root: [os.mkfifo(root / file) for file in ('x.txt', 'x.xml', 'x')],
     {'images': 10, 'objects': 14}),
    ('a FIFO for another JSON file', lambda root: os.mkfifo(root / 'x.json'), 'x.json cannot be read as JSON'),
    ('another JSON file that is empty', write('notes.json', ''), 'notes.json cannot be read as JSON'),
):  # fmt: skip
    settings = outcome if isinstance(outcome, dict) else {'refused': outcome}
    folder(
        makers.coco, 'detection', name, quick='three times' in name or name == 'a FIFO beside the files', **settings
    )(change)

# Class maps


def maps(folder: Path) -> None:
    makers.masks(folder)


def one_map(array: np.ndarray | bytes) -> Change:
    def change(root: Path) -> None:
        if isinstance(array, bytes):
            (root / 'masks/one.png').write_bytes(array)
        else:
            Image.fromarray(array).save(root / 'masks/one.png')

    return change


for name, change, outcome in (
    ('valid', lambda root: None, {'images': 10}),
    ('20,000 x 20,000', one_map(black_png(20_000, 20_000, 1)), 'has more than'),
    ('16 bits with small values', one_map(np.ones((48, 64), np.uint16)), {'images': 10}),
    ('16 bits with 300', one_map(np.full((48, 64), 300, np.uint16)), 'has the value 300'),
    ('floats', lambda root: [
        Image.fromarray(np.full((48, 64), 0.5, np.float32)).save(root / 'masks/one.tif'),
        (root / 'masks/one.png').unlink(),
    ], 'has the value 0.5'),
    ('NaN', lambda root: [
        Image.fromarray(np.full((48, 64), np.nan, np.float32)).save(root / 'masks/one.tif'),
        (root / 'masks/one.png').unlink(),
    ], 'has the value nan'),
    ('RGB', one_map(np.dstack([np.full((48, 64), value, np.uint8) for value in (1, 2, 3)])), 'is a color image'),
    ('gray in three channels', one_map(np.ones((48, 64, 3), np.uint8)), {'images': 10}),
    ('empty', one_map(b''), 'is empty, truncated or not an image'),
    ('another size', one_map(np.ones((24, 32), np.uint8)), r'one\.jpg is 64 x 48 px .* but 32 x 24'),
    ('names with a byte order mark', write('classes.txt', b'\xef\xbb\xbfbackground\nbl\xc3\xa5\nred thing\n'),
     {'images': 10}),
    ('names in UTF-16', write('classes.txt', 'a\nb\nc\n'.encode('utf-16')), 'cannot be read as text in UTF-8'),
):  # fmt: skip
    settings = outcome if isinstance(outcome, dict) else {'refused': outcome}
    folder(maps, 'segmentation', name, **settings)(change)
