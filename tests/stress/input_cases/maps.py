"""Class maps, and lists of files, through training and a test with a model that sees the classes in the image."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import own_data_makers as own_data
from own_data_makers import SIZE, stripes
from PIL import Image

from .core import case, train_and_test
from .pictures import black_png, encoded

PERFECT = {'mIoU': 100.0, 'aAcc': 100.0}
FIRST = [0, 1, 255]  # stripes of the first of two maps
Change = Callable[[own_data.Project], object]


def class_map(name: str, refused: str | None = None, quick: bool = False):
    """Declare a case whose function changes the project."""

    def add(change: Change) -> Change:
        def run(root):
            project = own_data.class_maps(root)
            change(project)
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # of PIL about large images
                found = train_and_test(project)
            assert {key: round(found[key], 2) for key in PERFECT} == PERFECT

        case('class maps', name, refused, quick)(run)
        return change

    return add


def stored(get: Callable[[], bytes | Image.Image | np.ndarray]) -> Change:
    """Replace the first map."""

    def change(project):
        data = get()
        data = data if isinstance(data, bytes) else encoded(data)
        (project.data / 'maps/0.png').write_bytes(data)

    return change


def values(dtype=np.uint8) -> np.ndarray:
    return stripes(FIRST).astype(dtype)


def palette() -> Image.Image:
    found = Image.fromarray(values())
    found.putpalette([value for number in range(256) for value in (number, 255 - number, 7)])
    return found


def with_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 3
    return encoded(values(), exif=exif)


def bits(project: own_data.Project) -> None:
    """Add a map of 1 bit."""
    own_data.write_maps(project, FIRST, [1, 2], [0, 1, 1])
    path = project.data / 'maps/2.png'
    Image.fromarray(np.asarray(Image.open(path)) > 0).save(path)


BAD_VALUE = r'map .*0\.png has the value {} .*but 0 to 2 and 255 are allowed for num_classes=3'
COLOR = r'map .*0\.png is a color image: store the class index'
for name, change, refused, quick in (
    ('index PNG', lambda project: None, None, True),
    ('palette', stored(palette), None, True),
    ('16 bits with small values', stored(lambda: Image.fromarray(values(np.uint16))), None, True),
    ('32 bits with small values', stored(lambda: Image.fromarray(values(np.int32), 'I')), None, False),
    ('16 bits with 258', stored(lambda: np.full(SIZE[::-1], 258, np.uint16)), BAD_VALUE.format(258), True),
    ('value beyond the classes', stored(lambda: np.full(SIZE[::-1], 3, np.uint8)), BAD_VALUE.format(3), True),
    ('value 254', stored(lambda: np.full(SIZE[::-1], 254, np.uint8)), BAD_VALUE.format(254), False),
    ('RGB', stored(lambda: np.stack([values()] * 3, -1)), COLOR, True),
    ('RGBA', stored(lambda: np.stack([values()] * 4, -1)), COLOR, False),
    ('gray with alpha', stored(lambda: Image.fromarray(np.stack([values()] * 2, -1))), COLOR, False),
    ('CMYK TIFF named .png', stored(lambda: encoded(Image.new('CMYK', SIZE), 'TIFF')), COLOR, False),
    ('JPEG named .png', stored(lambda: encoded(values(), 'JPEG', quality=30)), r'0\.png is a JPEG file', False),
    (
        'smaller than the image',
        stored(lambda: values()[::2, ::2]),
        r'0\.png is 24 x 16 px .* but its image 48 x 32',
        True,
    ),
    (
        'larger than the image',
        stored(lambda: np.kron(values(), np.ones((2, 2), np.uint8))),
        r'0\.png is 96 x 64 px',
        False,
    ),
    ('turned', stored(lambda: values().T.copy()), r'0\.png is 32 x 48 px', False),
    ('with an EXIF orientation, which is ignored', stored(with_exif), None, False),
    ('empty', stored(lambda: b''), r'image .*0\.png is empty, truncated or not an image', True),
    (
        'truncated',
        stored(lambda: encoded(values())[:-30]),
        r'image .*0\.png is empty, truncated or not an image',
        False,
    ),
    ('text', stored(lambda: b'0 1 2\n'), r'image .*0\.png is empty, truncated or not an image', False),
    ('npy named .png', stored(lambda: npy(values())), r'image .*0\.png is empty, truncated or not an image', False),
    (
        '20,000 x 20,000',
        stored(lambda: black_png(20_000, 20_000, 1)),
        r'0\.png of 20000 x 20000 px has more than',
        True,
    ),
    ('1 x 1', stored(lambda: np.zeros((1, 1), np.uint8)), r'0\.png is 1 x 1 px', False),
    ('1 bit', bits, None, False),
):
    class_map(name, refused, quick)(change)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@class_map('all ignored beside others')
def _(project):
    own_data.write_maps(project, [255], [0, 1, 2], images=[[0], [0, 1, 2]])


@class_map('floats in a TIFF', r'map .*0\.tif has the value nan')
def _(project):
    project.set(seg_map_suffix='.tif')
    for number in (0, 1):
        array = np.full(SIZE[::-1], np.nan, np.float32)
        Image.fromarray(array).save(project.data / f'maps/{number}.tif')


@class_map('fractions in a TIFF', r'map .*0\.tif has the value 0\.5')
def _(project):
    project.set(seg_map_suffix='.tif')
    for number in (0, 1):
        Image.fromarray(np.full(SIZE[::-1], 0.5, np.float32)).save(project.data / f'maps/{number}.tif')


@class_map('missing', '1 of 2 maps are not in .*, the first is 0.png')
def _(project):
    (project.data / 'maps/0.png').unlink()


@class_map('a FIFO', '1 of 2 maps are not in .*, the first is 0.png', quick=True)
def _(project):
    (project.data / 'maps/0.png').unlink()
    os.mkfifo(project.data / 'maps/0.png')


@class_map('a folder', '1 of 2 maps are not in .*, the first is 0.png')
def _(project):
    (project.data / 'maps/0.png').unlink()
    (project.data / 'maps/0.png').mkdir()


@class_map('no maps', '2 of 2 maps are not in')
def _(project):
    for path in (project.data / 'maps').iterdir():
        path.unlink()


@class_map('a map without image')
def _(project):
    (project.data / 'maps/9.png').write_bytes((project.data / 'maps/0.png').read_bytes())


@class_map('a folder of images that contains itself')
def _(project):
    (project.data / 'images/again').symlink_to('.')
    (project.data / 'maps/again').symlink_to('.')


@class_map('a folder of images that contains itself three times', quick=True)
def _(project):
    for name in ('x', 'y', 'z'):
        (project.data / f'images/{name}').symlink_to('.')
        (project.data / f'maps/{name}').symlink_to('.')


@class_map('names beyond ASCII')
def _(project):
    for folder in ('images', 'maps'):
        (project.data / folder / '0.png').rename(project.data / folder / 'ünï côdé 画.png')


@class_map('names of 250 characters')
def _(project):
    for folder in ('images', 'maps'):
        (project.data / folder / '0.png').rename(project.data / folder / f'{"n" * 246}.png')


def listed(data: bytes) -> Change:
    def change(project):
        (project.data / 'list.txt').write_bytes(data)
        project.set(ann_file='list.txt')

    return change


class_map('a list')(listed(b'0\n1\n'))
class_map('a list with line ends of Windows')(listed(b'0\r\n1\r\n'))
class_map('a list with a byte order mark', r'list\.txt starts with a byte order mark')(listed(b'\xef\xbb\xbf0\n1\n'))
class_map('a list in UTF-16', r'list\.txt cannot be read as text in UTF-8')(listed('0\n1\n'.encode('utf-16')))
class_map('a list of a missing map', r'1 of 2 images are not in')(listed(b'0\n7\n'))
class_map('an empty list', r'list\.txt is empty')(listed(b''))


@class_map('a list that is a FIFO', r'list\.txt is not a file')
def _(project):
    os.mkfifo(project.data / 'list.txt')
    project.set(ann_file='list.txt')


# Class folders and lists of labels

TOP1 = {'accuracy/top1': 100.0}


def folders(name: str, refused: str | None = None, quick: bool = False, make=own_data.class_folders):
    def add(change: Change) -> Change:
        def run(root):
            project = make(root)
            change(project)
            project.call('train')
            found = project.call('test')
            assert {key: round(found[key], 2) for key in TOP1} == TOP1

        case('class folders', name, refused, quick)(run)
        return change

    return add


folders('valid', quick=True)(lambda project: None)


@folders('a folder that contains itself')
def _(project):
    (project.data / 'train/a/again').symlink_to('.')
    check_count(project, 6)


@folders('a folder that contains itself three times', quick=True)
def _(project):
    for name in ('x', 'y', 'z'):
        (project.data / f'train/a/{name}').symlink_to('.')
    check_count(project, 6)


@folders('a folder that contains the one above it')
def _(project):
    (project.data / 'train/a/up').symlink_to('..')


def check_count(project: own_data.Project, number: int) -> None:
    from mogacore.datasets.class_folders import ClassFolders

    assert len(ClassFolders(str(project.data), 'train')) == number


@folders('class folders that are links to others')
def _(project):
    (project.data / 'train/a').rename(project.root / 'elsewhere')
    (project.data / 'train/a').symlink_to(project.root / 'elsewhere')
    check_count(project, 6)


@folders('names of classes beyond ASCII and of 250 characters')
def _(project):
    for split in ('train', 'val'):
        (project.data / split / 'b').rename(project.data / split / ('b' * 250))
        (project.data / split / 'c').rename(project.data / split / 'ç 画')


@folders('a class without images', r'folder .* has the class folder|has 4 classes, but the model has 3')
def _(project):
    for split in ('train', 'val'):
        (project.data / split / 'd').mkdir()


@folders('a hidden file and a note beside the images')
def _(project):
    (project.data / 'train/a/.DS_Store').write_bytes(b'x')
    (project.data / 'train/a/._0.png').write_bytes(b'x')
    (project.data / 'train/a/Thumbs.db').write_bytes(b'x')


@folders('a FIFO without suffix beside the images')
def _(project):
    os.mkfifo(project.data / 'train/a/pipe')


def label_list(data: bytes) -> Change:
    return lambda project: (project.data / 'val.txt').write_bytes(data)


for name, data, refused in (
    ('a list', b'a/0.png 0\nb/1.png 1\n', None),
    ('a list with a byte order mark', b'\xef\xbb\xbfa/0.png 0\n', r'val\.txt starts with a byte order mark'),
    ('a list with line ends of Windows', b'a/0.png 0\r\nb/1.png 1\r\n', None),
    ('a list in UTF-16', 'a/0.png 0\n'.encode('utf-16'), r'val\.txt cannot be read as text in UTF-8'),
    ('an empty list', b'', r'val\.txt is empty'),
    ('labels from 1', b'a/0.png 1\nc/0.png 3\n', r'val\.txt has the label 3'),
    ('a negative label', b'a/0.png -1\n', r"line 1 of .*val\.txt is 'a/0\.png -1', not a file name"),
    ('a label of 30 digits', b'a/0.png ' + b'9' * 30, r'val\.txt has the label 999'),
    ('a label of 5,000 digits', b'a/0.png ' + b'9' * 5000, r'line 1 of .*val\.txt'),
    ('a fraction as label', b'a/0.png 0.5\n', r"line 1 of .*val\.txt is 'a/0\.png 0\.5'"),
    ('no label', b'a/0.png\n', r"line 1 of .*val\.txt is 'a/0\.png'"),
    ('an empty line in the middle', b'a/0.png 0\n\nb/1.png 1\n', r'line 2 of .*val\.txt is'),
    ('a missing image', b'a/7.png 0\n', r'1 of 1 images of .*val\.txt are not in'),
    ('an image twice', b'a/0.png 0\na/0.png 0\n', None),
    ('a null byte', b'a/\x000.png 0\n', r'1 of 1 images of .*val\.txt are not in'),
):
    folders(f'list: {name}', refused, make=own_data.list_files)(label_list(data))


@folders('list: a FIFO for an image', r'1 of \d images of .* are not in', make=own_data.list_files)
def _(project):
    (project.data / 'val/a/0.png').unlink()
    os.mkfifo(project.data / 'val/a/0.png')


# Arrays as images of class folders


def arrays(name: str, refused: str | None = None, quick: bool = False):
    """The first training image is an array that ``get`` changes."""

    def add(get: Callable[[Path], object]) -> None:
        def change(project):
            for path in project.data.rglob('*.png'):
                np.save(path.with_suffix('.npy'), np.asarray(Image.open(path)))
                path.unlink()
            project.set(extensions=['.npy'])
            for dataset in project.datasets:
                dataset.pipeline[0] = dict(type='LoadArray')
            get(project.data / 'train/a/0.npy')

        folders(f'npy: {name}', refused, quick)(change)

    return add


arrays('valid')(lambda path: None)
for name, array, refused in (
    ('floats', np.zeros((4, 4, 3)), None),
    ('16 bits', np.zeros((4, 4, 3), np.uint16), None),
    ('big-endian', np.zeros((4, 4, 3), '>f4'), None),
    ('columns first', np.asfortranarray(np.zeros((4, 4, 3), np.uint8)), None),
    ('bool', np.zeros((4, 4, 3), bool), None),
    ('complex', np.zeros((4, 4, 3), complex), r'0\.npy has complex128 of shape'),
    ('texts', np.array(['a']), r'0\.npy has <U1 of shape'),
    ('times', np.zeros((4, 4), 'M8[s]'), r'0\.npy has datetime64'),
    ('records', np.zeros((4, 4), [('a', 'f4')]), r'0\.npy has \['),
    ('one dimension', np.zeros(48, np.uint8), r'0\.npy has uint8 of shape \(48,\)'),
    ('four dimensions', np.zeros((1, 4, 4, 3), np.uint8), r'0\.npy has uint8 of shape \(1, 4, 4, 3\)'),
    ('a single number', np.uint8(3), r'0\.npy has uint8 of shape \(\)'),
    ('no pixels', np.zeros((0, 4, 3), np.uint8), r'0\.npy has uint8 of shape \(0, 4, 3\)'),
    ('one channel for three', np.zeros((4, 4, 1), np.uint8), r'0\.npy of shape \(4, 4, 1\) has 1 channels'),
):
    arrays(name, refused, quick=name in ('floats', 'no pixels'))(lambda path, array=array: np.save(path, array))
