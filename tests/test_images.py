"""The EXIF orientation in every format, decoder and place that reads images, compared with PIL's exif_transpose."""

import io
import resource
import struct
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import TRANSFORMS
from PIL import Image, ImageOps, features

import mogacore.registry  # noqa: F401, makes mmcv follow the rule
from mogacore import images
from mogacore.datasets.frame_folders import FrameFolders
from mogacore.errors import UserError
from mogacore.libraries import import_quietly

mmcv = pytest.importorskip('mmcv')

FORMATS = {'JPEG': 'jpg', 'PNG': 'png', 'TIFF': 'tif', 'WEBP': 'webp'}
if features.check('avif') and 'AVIF' in cv2.getBuildInformation():
    FORMATS['AVIF'] = 'avif'  # OpenCV 4.14 does not rotate it, as older versions do not rotate WebP
ORIENTATIONS = range(1, 9)


def picture(kind, orientation):
    """An encoded 24 x 16 image without symmetries, and its upright form (H, W, 3) RGB by PIL."""
    pixels = np.kron(np.array([[9, 60, 250], [120, 30, 180]], np.uint8), np.ones((8, 8), np.uint8))
    stored = Image.fromarray(np.stack([pixels, pixels // 2, 255 - pixels], -1))
    exif = Image.Exif()
    exif[images.ORIENTATION_TAG] = orientation
    buffer = io.BytesIO()
    settings = {'lossless': True} if kind == 'WEBP' else {'quality': 100, 'subsampling': 0} if kind == 'JPEG' else {}
    if kind == 'AVIF':
        settings = {'quality': 100, 'subsampling': '4:4:4'}
    stored.save(buffer, kind, exif=exif, **settings)
    stored.getexif()[images.ORIENTATION_TAG] = orientation
    return buffer.getvalue(), np.asarray(stored), np.asarray(ImageOps.exif_transpose(stored))


def assert_same(found, expected):
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.astype(int), expected.astype(int), atol=4)  # decoders of JPEG differ


@pytest.mark.parametrize('kind', FORMATS)
@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_every_decoder_rotates_every_orientation_in_every_format(kind, backend):
    for orientation in ORIENTATIONS:
        content, stored, upright = picture(kind, orientation)
        assert_same(mmcv.imfrombytes(content, backend=backend)[..., ::-1], upright)
        assert_same(mmcv.imfrombytes(content, channel_order='rgb', backend=backend), upright)
        gray = mmcv.imfrombytes(content, flag='grayscale', backend=backend)
        assert_same(gray, cv2.cvtColor(upright, cv2.COLOR_RGB2GRAY))
        assert_same(mmcv.imfrombytes(content, flag='color_ignore_orientation', backend=backend)[..., ::-1], stored)
        assert_same(mmcv.imfrombytes(content, flag='unchanged', backend=backend)[..., ::-1], stored)


@pytest.mark.parametrize('kind', FORMATS)
def test_every_place_that_reads_images_rotates_them(kind, tmp_path):
    import_quietly('mmpose')
    for orientation in ORIENTATIONS:
        content, stored, upright = picture(kind, orientation)
        path = tmp_path / f'clip{orientation}' / f'frame0.{FORMATS[kind]}'
        path.parent.mkdir()
        path.write_bytes(content)
        assert_same(images.read(path)[..., ::-1], upright)
        assert_same(images.read(path, ignore_orientation=True)[..., ::-1], stored)
        assert images.read_size(path) == (upright.shape[1::-1], orientation)
        assert images.read_size(path, ignore_orientation=True) == (stored.shape[1::-1], orientation)
        assert_same(mmcv.imread(path)[..., ::-1], upright)
        for step in (dict(type='LoadImageFromFile'), dict(type='mmpose.LoadImage')):
            loaded = TRANSFORMS.build(step)(dict(img_path=str(path)))
            assert_same(loaded['img'][..., ::-1], upright)
            assert loaded['img_shape'] == loaded['ori_shape'] == upright.shape[:2]
            loaded = TRANSFORMS.build(step | dict(color_type='color_ignore_orientation'))(dict(img_path=str(path)))
            assert_same(loaded['img'][..., ::-1], stored)
        if path.suffix in FrameFolders.suffixes:
            clips = FrameFolders(str(path.parent), upright.shape[:2], num_inputs=1, num_targets=1, lazy_init=True)
            assert_same(clips.read_frames(dict(frames=[str(path)]))[0], upright)


def test_files_without_or_with_broken_metadata_are_read_as_they_are():
    plain = np.arange(96, dtype=np.uint8).reshape(4, 8, 3)
    content = cv2.imencode('.png', plain)[1].tobytes()
    assert images.inspect(content)[1] == 1
    np.testing.assert_array_equal(mmcv.imfrombytes(content), plain)
    jpeg, stored, _ = picture('JPEG', 6)
    broken = jpeg.replace(b'Exif\0\0', b'Exif\0\0??', 1)
    for text in (b'', b'no image', content[:20], broken):
        assert images.inspect(text)[1] == 1
    for orientation in (0, 9, 65535):
        content, stored, _ = picture('TIFF', orientation)
        assert images.inspect(content)[1] == 1
        assert_same(mmcv.imfrombytes(content)[..., ::-1], stored)


def png_header(width, height):
    """A PNG file whose pixels are missing."""
    chunk = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + chunk + struct.pack('>I', zlib.crc32(chunk))


def test_images_of_too_many_pixels_are_refused_by_their_header(tmp_path, monkeypatch):
    path = tmp_path / 'huge.png'
    path.write_bytes(png_header(20_000, 20_000) + b'\0\0\0\0IDAT')
    start = time.perf_counter()
    with pytest.raises(
        UserError, match=r'huge\.png of 20000 x 20000 px has more than 200,000,000 pixels: reduce it, or'
    ):
        images.check_pixels(path)
    assert time.perf_counter() - start < 1
    assert images.read_size(path) == ((20_000, 20_000), 1)
    monkeypatch.setenv(images.LIMIT_VARIABLE, '400000000')
    images.check_pixels(path)
    for text in ('-1', '0', '2e8'):
        monkeypatch.setenv(images.LIMIT_VARIABLE, text)
        with pytest.raises(UserError, match=f"MOGACORE_MAX_PIXELS is '{text}'"):
            images.check_pixels(path)


def test_files_that_are_no_images_are_left_to_the_decoder(tmp_path):
    (tmp_path / 'x.png').write_text('text')
    images.check_pixels(tmp_path / 'x.png')
    images.check_pixels(Path('none.png'))
    assert images.read(tmp_path / 'x.png') is None and images.read(Path('none.png')) is None


def tiff(byte_order, is_big, orientation):
    """An uncompressed gray TIFF file of 3 x 2 px, with the values 10 to 60."""
    o, offset = byte_order, 'Q' if is_big else 'I'
    start, width = (16, 20) if is_big else (8, 12)
    fields = [(256, 3, 3), (257, 3, 2), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, None), (274, 3, orientation),
              (277, 3, 1), (278, 3, 2), (279, 4, 6)]  # fmt: skip
    count = struct.pack(f'{o}{"Q" if is_big else "H"}', len(fields))
    pixels_at = start + len(count) + width * len(fields) + struct.calcsize(f'{o}{offset}')
    body = count
    for tag, kind, value in fields:
        packed = struct.pack(f'{o}{"H" if kind == 3 else "I"}', pixels_at if value is None else value)
        body += struct.pack(f'{o}HH{offset}', tag, kind, 1) + packed.ljust(struct.calcsize(offset), b'\0')
    mark = b'II' if o == '<' else b'MM'
    header = struct.pack(f'{o}HHHQ', 43, 8, 0, start) if is_big else struct.pack(f'{o}HI', 42, start)
    return mark + header + body + struct.pack(f'{o}{offset}', 0) + bytes(range(10, 70, 10))


@pytest.mark.parametrize('byte_order, is_big', [('<', False), ('>', False), ('<', True)])  # PIL cannot read the fourth
def test_every_layout_of_tiff_is_rotated(byte_order, is_big, tmp_path):
    stored = np.arange(10, 70, 10, np.uint8).reshape(2, 3)
    for orientation in ORIENTATIONS:
        (tmp_path / 'x.tif').write_bytes(tiff(byte_order, is_big, orientation))
        expected = images.turn(stored, orientation)
        np.testing.assert_array_equal(images.read(tmp_path / 'x.tif')[..., 0], expected)
        np.testing.assert_array_equal(images.read(tmp_path / 'x.tif', ignore_orientation=True)[..., 0], stored)
        assert images.read_size(tmp_path / 'x.tif')[0] == expected.shape[::-1]
    cut = tiff(byte_order, is_big, 6)[:40]
    assert images.split_orientation(cut) == (cut, 1)


@pytest.mark.parametrize('error', [KeyError('a'), OverflowError('b'), EOFError(), ZeroDivisionError('c')])
def test_any_error_of_pil_is_that_of_a_file_that_is_no_image(monkeypatch, tmp_path, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(Image, 'open', fail)
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(OSError, match='cannot identify'), images.open_header(io.BytesIO(b'GIF89a')):
        pass
    assert limit == Image.MAX_IMAGE_PIXELS
    assert images.inspect(b'GIF89a') == (None, 1)


def test_images_of_too_many_pixels_are_refused_by_every_decoder_and_by_resizing(monkeypatch):
    content = cv2.imencode('.png', np.zeros((30, 40, 3), np.uint8))[1].tobytes()
    monkeypatch.setenv(images.LIMIT_VARIABLE, '1199')
    for decode in (images.decode, mmcv.imfrombytes, lambda data: mmcv.imfrombytes(data, backend='pillow')):
        with pytest.raises(UserError, match='40 x 30 px has more than 1,199 pixels'):
            decode(content)
    monkeypatch.setenv(images.LIMIT_VARIABLE, '1200')
    assert images.decode(content).shape == mmcv.imfrombytes(content).shape == (30, 40, 3)
    thin = np.zeros((2, 40, 3), np.uint8)
    assert mmcv.imrescale(thin, (120, 10)).shape == (6, 120, 3)
    for resize in (lambda: mmcv.imresize(thin, (1201, 1)), lambda: mmcv.imrescale(thin, 8.0)):
        with pytest.raises(UserError, match=r'40 x 2 px cannot be resized to .* less elongated shape'):
            resize()


@pytest.mark.parametrize('content', [b'', b'\x89PNG', b'\x89PNG' + bytes(100), png_header(7, 5)[:20]])
def test_the_size_of_what_is_no_image_is_unknown(content):
    assert images.inspect(content) == (None, 1)
    assert images.inspect(png_header(7, 5)) == ((7, 5), 1)


def test_a_chunk_longer_than_the_file_takes_no_memory():
    """OpenCV would take 2 GiB for the chunk before it finds that the file is too short."""
    content, _, _ = picture('PNG', 1)
    start = content.index(b'IDAT') - 4
    broken = content[:start] + (2**31 - 1).to_bytes(4, 'big') + content[start + 4 :]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for decode in (images.decode, mmcv.imfrombytes):
        assert decode(broken) is None
        assert decode(content) is not None and decode(content + b'rest of the file') is not None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # KiB


def encode(image, kind, **settings):
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


CLEAR = np.random.default_rng(1).integers(0, 256, (24, 16, 4), np.uint8)


@pytest.mark.parametrize('kind, settings', [
    ('PNG', {}), ('TIFF', {}), ('TIFF', {'compression': 'tiff_lzw'}), ('TIFF', {'tiffinfo': {0x0112: 6}}),
    ('WEBP', {'lossless': True, 'exact': True}),
])  # fmt: skip
def test_transparency_is_ignored_in_every_format(kind, settings):
    """The colors are those that were written, also where they are transparent."""
    content = encode(Image.fromarray(CLEAR), kind, **settings)
    colors = np.rot90(CLEAR[..., :3], -1) if 'tiffinfo' in settings else CLEAR[..., :3]
    for decoded in (images.decode(content), mmcv_decode(content, 'color')):
        np.testing.assert_array_equal(decoded[..., ::-1], colors)
    np.testing.assert_array_equal(images.decode(content, ignore_orientation=True)[..., ::-1], CLEAR[..., :3])


@pytest.mark.parametrize('transparent', [None, 3])
def test_gif_images_have_the_colors_of_their_palette(transparent):
    image = Image.fromarray(CLEAR[..., :3]).quantize(8)
    content = encode(image, 'GIF', **({} if transparent is None else {'transparency': transparent}))
    for decoded in (images.decode(content), mmcv_decode(content, 'color')):
        np.testing.assert_array_equal(decoded[..., ::-1], np.asarray(image.convert('RGB')))
    assert images.decode(content[:60]) is None and images.decode(b'GIF89a') is None


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'TIFF', 'WEBP', 'BMP'])
def test_gray_is_that_of_mmcv_in_every_format(kind):
    y, x = np.mgrid[:24, :16]
    image = np.stack([x * 9, y * 9, CLEAR[..., 0]], 2).astype(np.uint8)
    content = encode(Image.fromarray(image), kind)
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)  # as mmcv does without mogacore
    for decoded in (images.decode(content, gray=True), mmcv_decode(content, 'grayscale')):
        np.testing.assert_array_equal(decoded, expected)
    gray = encode(Image.fromarray(CLEAR[..., 0]), 'PNG')
    np.testing.assert_array_equal(images.decode(gray, gray=True), CLEAR[..., 0])


def mmcv_decode(content, flag):
    return mmcv.imfrombytes(content, flag, backend='cv2')
