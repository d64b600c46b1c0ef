"""Image files: each goes through ``mogacore infer``, an exported file, the server, and training on class folders."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import own_data_makers as own_data
from fastapi.testclient import TestClient
from mmengine.registry import TRANSFORMS
from PIL import Image, ImageCms

from mogacore.errors import UserError
from mogacore.runtime.serve.app import create_app
from mogacore.runtime.serve.settings import Settings

from .core import as_nobody, case, cli, command
from .pictures import (
    BACK,
    RED,
    SIZE,
    Detectors,
    black_png,
    check_box,
    check_report,
    draw,
    encoded,
    interlaced,
    jpeg_of_size,
    png_header,
    turned,
)

UNREADABLE = (
    r'^image .*(cannot be read: replace it or use another|is empty, truncated or not an image: replace it)|'
    r'^the (upload|\w+ image) of [\d,]+ bytes is (not an image: send|corrupt or incomplete: send it again)|'
    r'^the upload is empty: send an image'
)
NO_FILE = r'(does not exist|contains no image or video|is no image or video|cannot be read|not found|empty, truncated)'
TOO_LARGE = r'of \d+ x \d+ px has more than 200,000,000 pixels: reduce it, or raise the limit'
Make = Callable[[Path], Path]
ENTRIES = ('infer', 'runtime', 'server', 'training')
MAKERS: dict[str, tuple[Make, dict[str, str | None], bool]] = {}


def image(name: str, refused: str | None = None, quick: bool = False, entries=ENTRIES, **other: str | None):
    """Declare a maker of an image file in a folder.

    Args:
        name: What is odd about it.
        refused: Pattern of the line of all entries; None if the rectangle is found.
        quick: Whether the test command runs it with the first of the entries.
        entries: What takes it.
        **other: Pattern of single entries.
    """

    def add(make: Make) -> Make:
        assert name not in MAKERS
        MAKERS[name] = make, {entry: other.get(entry, refused) for entry in entries}, quick
        return make

    return add


def content(name: str, get: Callable[[], bytes], suffix: str = '.png', **settings) -> None:
    """Declare an image file by its content."""
    image(name, **settings)(lambda folder: save(folder, get(), f'photo{suffix}'))


def save(folder: Path, data: bytes, name: str = 'photo.png') -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def pillow(*steps: Callable[[Image.Image], Image.Image], kind: str = 'PNG', **settings) -> Callable[[], bytes]:
    """The content of a file with the drawing after conversions."""

    def get() -> bytes:
        found = Image.fromarray(draw())
        for step in steps:
            found = step(found)
        return encoded(found, kind, **settings)

    return get


def opencv(array: np.ndarray, suffix: str = '.png', flags: tuple = ()) -> bytes:
    return cv2.imencode(suffix, array, list(flags))[1].tobytes()


def to(mode: str) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.convert(mode)


def bright() -> np.ndarray:
    """The drawing in gray: the rectangle is 230, the rest 40."""
    return draw()[..., 0]


def frames() -> list[Image.Image]:
    """The drawing, and two frames without the rectangle."""
    other = Image.new('RGB', SIZE, BACK)
    return [Image.fromarray(draw()), other, other]


def animated(kind: str, **settings) -> Callable[[], bytes]:
    first, *others = frames()
    return lambda: encoded(first, kind, save_all=True, append_images=others, **settings)


def with_alpha(alpha: int) -> Image.Image:
    found = Image.fromarray(draw()).convert('RGBA')
    found.putalpha(alpha)
    return found


def palette(transparency: int | None = None) -> bytes:
    found = Image.fromarray((bright() > 127).astype(np.uint8))
    found.putpalette([*BACK, *RED])
    return encoded(found, **({} if transparency is None else {'transparency': transparency}))


# Formats, depths and colors

content('PNG', pillow(), quick=True)
content('JPEG', pillow(kind='JPEG', quality=95), '.jpg')
content('progressive JPEG', pillow(kind='JPEG', progressive=True), '.jpg')
content('JPEG without subsampling', pillow(kind='JPEG', subsampling=0), '.JPEG')
content('CMYK JPEG', pillow(to('CMYK'), kind='JPEG', quality=95), '.jpg', quick=True)
content('gray JPEG', pillow(lambda image: Image.fromarray(bright()), kind='JPEG'), '.jpg')
content('gray PNG', pillow(lambda image: Image.fromarray(bright())), quick=True)
content('gray PNG of 16 bits', lambda: opencv(bright().astype(np.uint16) * 257), quick=True)
content('color PNG of 16 bits', lambda: opencv(draw()[..., ::-1].astype(np.uint16) * 257))
content('PNG of 1 bit', pillow(lambda image: Image.fromarray(bright() > 127)))
content('palette PNG', palette)
content('palette PNG with a transparent color', lambda: palette(0))
content('PNG with alpha', lambda: encoded(with_alpha(255)), quick=True)
content('PNG with alpha 0', lambda: encoded(with_alpha(0)))
content('gray PNG with alpha', pillow(lambda image: Image.fromarray(bright()).convert('LA')))
content('interlaced PNG', lambda: interlaced(draw()))
content(
    'PNG with a color profile', pillow(icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes())
)
content('TIFF', pillow(kind='TIFF'), '.tif')
content('TIFF with LZW', pillow(kind='TIFF', compression='tiff_lzw'), '.tiff')
content('TIFF of 16 bits', lambda: opencv(draw()[..., ::-1].astype(np.uint16) * 257, '.tiff'), '.tif')
content('TIFF of pages', animated('TIFF'), '.tif')
content('CMYK TIFF', pillow(to('CMYK'), kind='TIFF'), '.tif')
content('WebP', pillow(kind='WEBP', lossless=True), '.webp')
content('animated WebP', animated('WEBP', lossless=True), '.webp', quick=True)
content('animated PNG', animated('PNG'))
content('BMP', pillow(kind='BMP'), '.bmp')
content('PPM', pillow(kind='PPM'), '.ppm')
content('a PNG file named .jpg', pillow(), '.jpg')
content('a JPEG file named .png', pillow(kind='JPEG', quality=95))
content('upper-case suffix', pillow(), '.PNG')
content('PNG with bytes after its end', lambda: pillow()() + b'more' * 100)
content('JPEG with bytes after its end', lambda: pillow(kind='JPEG', quality=95)() + b'more' * 100, '.jpg')
for number in range(2, 9):
    content(
        f'JPEG of orientation {number}', lambda number=number: turned(number, quality=95), '.jpg', quick=number == 6
    )
for kind, suffix in (('PNG', '.png'), ('TIFF', '.tif'), ('WEBP', '.webp')):
    settings = {'lossless': True} if kind == 'WEBP' else {}
    content(f'{kind} of orientation 6', lambda kind=kind, settings=settings: turned(6, kind, **settings), suffix)
content('JPEG of orientation 9', lambda: turned(9, quality=95), '.jpg')

# Not images, or not complete

for name, get, suffix in (
    ('empty', lambda: b'', '.png'),
    ('text', lambda: b'no image\n', '.png'),
    ('a web page named .jpg', lambda: b'<!DOCTYPE html><html><body>404 Not Found</body></html>', '.jpg'),
    ('a null byte', lambda: b'\0', '.jpg'),
    ('zeros', lambda: bytes(5000), '.png'),
    ('truncated PNG', lambda: pillow()()[:90], '.png'),
    ('PNG without its end', lambda: pillow()()[:-16], '.png'),
    ('truncated JPEG', lambda: noisy_jpeg()[:-900], '.jpg'),
    ('JPEG of a header only', lambda: noisy_jpeg()[:700], '.jpg'),
    ('truncated TIFF', lambda: pillow(kind='TIFF')()[:200], '.tif'),
    ('truncated WebP', lambda: pillow(kind='WEBP', lossless=True)()[:-20], '.webp'),
    ('truncated BMP', lambda: pillow(kind='BMP')()[:60], '.bmp'),
    ('signature of PNG only', lambda: b'\x89PNG\r\n\x1a\n', '.png'),
    ('PNG with a wrong checksum', lambda: pillow()().replace(b'IDAT', b'IDAt', 1), '.png'),
    ('PNG of 0 x 0', lambda: png_header(0, 0), '.png'),
    ('a video named .png', lambda: b'RIFF\x10\0\0\0AVI LIST' + bytes(200), '.png'),
    ('SVG', lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', '.png'),
    ('HEIC named .jpg', lambda: b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(200), '.jpg'),
):  # fmt: skip
    content(name, get, suffix, refused=UNREADABLE, quick=name in ('empty', 'truncated JPEG', 'truncated PNG'))


def noisy_jpeg() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    return encoded(noise, 'JPEG', quality=90)


# Too large: nothing is decoded, which the limit of memory shows

content('PNG of 20,000 x 20,000', lambda: black_png(20_000, 20_000), refused=TOO_LARGE, quick=True)
content('gray PNG of 20,000 x 20,000', lambda: black_png(20_000, 20_000, 1), refused=TOO_LARGE)
content('PNG of 2,000,000,000 x 2', lambda: png_header(2_000_000_000, 2), refused=f'{TOO_LARGE}|{UNREADABLE}')
content('JPEG of 65,000 x 65,000', lambda: jpeg_of_size(65_000, 65_000), '.jpg', refused=TOO_LARGE)
content('PPM of 20,000 x 20,000', lambda: b'P6\n20000 20000\n255\n' + bytes(99), '.ppm', refused=TOO_LARGE)
content(
    'PNG of 14,000 x 14,000 without pixels', lambda: png_header(14_000, 14_000), refused=UNREADABLE
)  # within the limit: not complete

# Files that are not ordinary ones

FILES = ('infer', 'runtime', 'training')


@image('name of 250 characters', entries=FILES, quick=True)
def _(folder):
    return save(folder, pillow()(), f'{"n" * 246}.png')


@image('name of 255 bytes in Japanese', entries=FILES)
def _(folder):
    return save(folder, pillow()(), f'{"画" * 83}xx.png')


@image('name beyond ASCII', entries=FILES, quick=True)
def _(folder):
    return save(folder, pillow()(), 'ünï côdé 画像 😀 (copy).png')


@image('name with quotes and spaces', entries=FILES)
def _(folder):
    return save(folder, pillow()(), ' \'a" $HOME;\\ *.png')


@image('name with a line break', entries=FILES)
def _(folder):
    return save(folder, pillow()(), 'two\nlines.png')


@image('corrupt, with a line break in its name', UNREADABLE, entries=FILES, quick=True)
def _(folder):
    return save(folder, b'', 'two\nlines\x1b[31m.png')


@image('name that is not UTF-8', entries=FILES)
def _(folder):
    return save(folder, pillow()(), os.fsdecode(b'caf\xe9.png'))


@image('link to an image', entries=FILES)
def _(folder):
    target = save(folder.parent, pillow()(), 'target.bin')
    (folder / 'photo.png').symlink_to(target)
    return folder / 'photo.png'


@image('broken link', NO_FILE, entries=FILES)
def _(folder):
    (folder / 'photo.png').symlink_to('nowhere.png')
    return folder / 'photo.png'


@image('link to itself', NO_FILE, entries=FILES, quick=True)
def _(folder):
    (folder / 'photo.png').symlink_to('photo.png')
    return folder / 'photo.png'


@image('folder', NO_FILE, entries=('infer', 'runtime'))
def _(folder):
    (folder / 'photo.png').mkdir()
    return folder / 'photo.png'


@image('FIFO', NO_FILE, entries=FILES, quick=True)
def _(folder):
    os.mkfifo(folder / 'photo.png')
    return folder / 'photo.png'


@image('link to /dev/zero', NO_FILE, entries=FILES)
def _(folder):
    (folder / 'photo.png').symlink_to('/dev/zero')
    return folder / 'photo.png'


@image('link to a file whose reading fails', NO_FILE, entries=FILES)
def _(folder):
    (folder / 'photo.png').symlink_to('/proc/self/mem')
    return folder / 'photo.png'


# What the entries do with a file


def run_infer(make: Make, root: Path) -> None:
    (root / 'in').mkdir()
    detectors, path = Detectors(root), make(root / 'in')
    records = detectors.infer(path)
    check_box(*records)
    check_report('out', 1)


def run_runtime(make: Make, root: Path) -> None:
    (root / 'in').mkdir()
    detectors, path = Detectors(root), make(root / 'in')
    records = detectors.predictor().infer(path, 'out')
    check_box(*records)
    check_report('out', 1)


def run_server(make: Make, root: Path) -> None:
    (root / 'in').mkdir()
    predictor, path = Detectors(root).predictor(), make(root / 'in')
    with TestClient(create_app({'detector': predictor}, Settings())) as client:
        answer = client.post('/predict', content=path.read_bytes())
    if answer.status_code != 200:
        assert answer.status_code in (400, 413, 415), answer.text
        (error,) = answer.json().values()
        raise UserError(error)
    check_box(answer.json()['prediction'])


def run_training(make: Make, root: Path) -> None:
    """Two epochs, one of them for the check; what is loaded equals the drawing."""
    project = own_data.class_folders(root)
    path = make(project.data / 'train/a')
    project.call('train')
    load = dict(type='LoadImageFromFile')
    loaded = TRANSFORMS.build(load)(dict(img_path=str(path)))['img'][..., ::-1]
    expected = draw()
    assert loaded.shape == expected.shape
    gray = np.ptp(loaded, axis=2).max() <= 4
    wanted = np.repeat(expected[..., :1], 3, axis=2) if gray else expected
    is_red = wanted[..., 0] > 127
    assert ((loaded[..., 0] > 127) == is_red).all() or _differs_at_edges(loaded[..., 0] > 127, is_red)


def _differs_at_edges(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether masks differ by at most a pixel along the border of the rectangle, as with JPEG."""
    kernel = np.ones((3, 3), np.uint8)
    wide, narrow = (change(wanted.astype(np.uint8), kernel) > 0 for change in (cv2.dilate, cv2.erode))
    return bool((found <= wide).all() and (narrow <= found).all())


RUNS = dict(infer=run_infer, runtime=run_runtime, server=run_server, training=run_training)
for name, (make, outcomes, is_quick) in MAKERS.items():
    for position, (entry, refused) in enumerate(outcomes.items()):
        is_chosen = is_quick and position == len(name) % len(outcomes)  # one of the entries
        case(f'images: {entry}', name, refused, is_chosen)(lambda root, make=make, entry=entry: RUNS[entry](make, root))


# Folders and lists of images


def sources(name: str, refused: str | None = None, quick: bool = False):
    """Declare a case that gets two detectors and the folder ``in`` with one good image."""

    def add(run: Callable[[Detectors], object]) -> None:
        def prepared(root: Path) -> None:
            (root / 'in').mkdir()
            save(root / 'in', pillow()(), 'good.png')
            run(Detectors(root))

        case('folders of images', name, refused, quick)(prepared)

    return add


def names_of(records) -> list[str]:
    return [Path(record['image']).name for record in records]


@sources('good and bad files', quick=True)
def _(detectors):
    save(Path('in'), b'', 'empty.png')
    save(Path('in'), noisy_jpeg()[:-900], 'cut.jpg')
    save(Path('in'), b'text', 'note.md')
    os.mkfifo('in/pipe.png')
    Path('in/folder.png').mkdir()
    Path('in/loop.png').symlink_to('loop.png')
    records = detectors.infer('in')
    assert names_of(records) == ['good.png']
    check_box(*records)
    assert check_report('out', 1)['unreadable'] == ['in/cut.jpg', 'in/empty.png']


@sources('only bad files', 'none of the 2 files in in can be read')
def _(detectors):
    Path('in/good.png').write_bytes(b'')
    save(Path('in'), b'x', 'other.png')
    detectors.infer('in')


@sources('a folder that contains itself by a link')
def _(detectors):
    Path('in/again').symlink_to('.')
    Path('in/also').symlink_to('..')
    assert names_of(detectors.infer('in')) == ['good.png']


@sources('a pattern in a folder that contains itself twice', quick=True)
def _(detectors):
    for name in ('again', 'also', 'third'):
        Path('in', name).symlink_to('.')
    assert names_of(detectors.infer('in/**/*.png')) == ['good.png']


@sources('an empty folder', 'contains no image or video')
def _(detectors):
    Path('empty').mkdir()
    detectors.infer('empty')


@sources('a folder without the right to read it', 'folder locked cannot be read .Permission denied.: allow it')
def _(detectors):
    Path('locked').mkdir(mode=0o700)
    save(Path('locked'), pillow()())
    os.chmod('.', 0o777)
    with as_nobody():
        detectors.infer('locked')


@sources('an image without the right to read it', UNREADABLE)
def _(detectors):
    Path('in/good.png').chmod(0)
    os.chmod('.', 0o777)
    with as_nobody():
        detectors.infer('in/good.png')


@sources('an output folder without the right to write', 'folder out cannot be (written|created)')
def _(detectors):
    Path('out').mkdir(mode=0o755)
    with as_nobody():
        detectors.infer('in')


@sources('the same image twice, by a link')
def _(detectors):
    Path('in/link.png').symlink_to('good.png')
    records = detectors.infer('in')
    assert names_of(records) == ['good.png', 'link.png']
    for record in records:
        check_box(record)


@sources('names that differ by their suffix')
def _(detectors):
    save(Path('in'), pillow(kind='JPEG', quality=95)(), 'good.jpg')
    save(Path('in'), pillow(kind='BMP')(), 'good.bmp')
    records = detectors.infer('in')
    assert len({record['drawn'] for record in records}) == 3
    check_report('out', 3)


@sources('long names that differ by their suffix', r'name .*(too long|File name too long)')
def _(detectors):
    Path('in/good.png').rename(f'in/{"n" * 251}.png')
    save(Path('in'), pillow(kind='BMP')(), f'{"n" * 251}.bmp')
    detectors.infer('in')


@sources('folders of 200 levels')
def _(detectors):
    folder = Path('in', *['d'] * 200)
    folder.mkdir(parents=True)
    Path('in/good.png').rename(folder / 'good.png')
    (record,) = detectors.infer('in')
    check_box(record)


@sources('a list in UTF-8 with a byte order mark', quick=True)
def _(detectors):
    Path('list.txt').write_bytes(b'\xef\xbb\xbfin/good.png\r\n\r\n')
    check_box(*detectors.infer('list.txt'))


@sources('a list in UTF-16', 'input list.txt cannot be read as text')
def _(detectors):
    Path('list.txt').write_text('in/good.png', encoding='utf-16')
    detectors.infer('list.txt')


@sources('an empty list', 'input list.txt is empty')
def _(detectors):
    Path('list.txt').write_text('\n \n')
    detectors.infer('list.txt')


@sources('a list of a missing file', 'input in/none.png of list.txt does not exist')
def _(detectors):
    Path('list.txt').write_text('in/good.png\nin/none.png\n')
    detectors.infer('list.txt')


@sources('a list that is a FIFO', 'does not exist|is no image or video')
def _(detectors):
    os.mkfifo('list.txt')
    detectors.infer('list.txt')


@sources('a name with a null byte', 'input in/a.+ does not exist')
def _(detectors):
    detectors.infer('in/a\0.png')


@sources('a name of 300 characters', 'does not exist')
def _(detectors):
    detectors.infer(f'in/{"n" * 300}.png')


@sources('an animated GIF', 'is no image or video')
def _(detectors):
    detectors.infer(save(Path('in'), animated('GIF')(), 'moves.gif'))


@sources('a corrupt image through the command', UNREADABLE)
def _(detectors):
    save(Path('in'), b'', 'bad.png')
    # The detector exists in this process only: the command refuses the weights of no config before the image.
    from mogacore.cli import infer as infer_command

    cli(infer_command.main, detectors.config, detectors.weights, 'in/bad.png', '--out-dir', 'out')


@sources('an image of 20,000 x 20,000 through the command', TOO_LARGE)
def _(detectors):
    from mogacore.runtime import command as runtime_command

    save(Path('in'), black_png(20_000, 20_000), 'huge.png')
    cli(runtime_command.main, 'infer', str(detectors.exported), 'in/huge.png', '--out-dir', 'out')


@sources('a FIFO through the command in a process of its own', 'input in/pipe.png does not exist')
def _(detectors):
    os.mkfifo('in/pipe.png')
    command('infer', detectors.config, detectors.weights, 'in/pipe.png', '--out-dir', 'out')
