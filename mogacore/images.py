"""Reading of images: one rule for the EXIF orientation in every format and decoder, and a limit on the size.

An image is rotated and flipped as its EXIF orientation says, unless the caller asks for the pixels as they are stored.
OpenCV does so for some formats only, depending on its version, and other decoders for none.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from .errors import UserError
from .packs import read_bytes

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')  # read by default
ALL_EXTENSIONS = (*EXTENSIONS, '.jpe', '.jfif', '.gif', '.avif', '.heic', '.jp2')  # of images, readable or not
LIMIT_VARIABLE = 'MOGACORE_MAX_PIXELS'
DEFAULT_LIMIT = 200_000_000
ORIENTATION_TAG = 0x0112
# For a PNG file without metadata at its start, PIL decodes the image in search of metadata at its end.
PNG_METADATA = (b'eXIf', b'Raw profile type', b'adobe.xmp')
PNG_SIGNATURE = b'\x89PNG'
PNG_SIZE = 16  # position of width and height in a PNG file
PNG_END = b'IEND'
GIF_SIGNATURE = b'GIF8'
SIXTEEN_BIT_MODES = ('I;16', 'I;16L', 'I;16B', 'I;16N')  # of Pillow
EIGHT_BIT_MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'RGBX', 'CMYK', 'YCbCr')
# Signature -> byte order, position and type of the offset of the first directory, type of its length, bytes per entry.
TIFF_LAYOUTS = {
    b'II*\0': ('<', 4, 'I', 'H', 12),
    b'MM\0*': ('>', 4, 'I', 'H', 12),
    b'II+\0': ('<', 8, 'Q', 'Q', 20),
    b'MM\0+': ('>', 8, 'Q', 'Q', 20),
}
TIFF_SHORT = 3

_limit_lock = Lock()  # of PIL's limit, a global variable


def max_pixels() -> int:
    """Largest number of pixels of an image that is accepted: the environment variable, or the default.

    Raises:
        UserError: If the variable is not a positive integer.
    """
    text = os.environ.get(LIMIT_VARIABLE, '').strip() or str(DEFAULT_LIMIT)
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f'{LIMIT_VARIABLE} is {text!r}: set it to a number of pixels, such as {DEFAULT_LIMIT}')
    return int(text)


@contextmanager
def open_header(file: Path | io.BytesIO, formats: tuple[str, ...] | None = None) -> Iterator[ImageFile.ImageFile]:
    """Open an image of any size with PIL, which reads its header only.

    Args:
        file: Image file, or its content.
        formats: Names of the accepted formats in PIL; None for all.

    Raises:
        OSError: If the file does not exist or is not an image of these formats.
    """
    with _limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            opened = Image.open(file, formats=formats)
        except OSError:
            raise
        # PIL's readers raise errors of many types for a corrupt header.
        except Exception as error:
            raise UnidentifiedImageError(f'cannot identify image file ({error})') from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with opened:
        yield opened


def check_pixels(image: str | Path | bytes) -> None:
    """Check the size of an image, a file or its content, by its header, before it is decoded.

    Raises:
        UserError: If it has more than :func:`max_pixels` pixels. A file that PIL cannot open passes.
    """
    name = 'image' if isinstance(image, bytes) else f'image {image}'
    try:
        size, _ = inspect(image if isinstance(image, bytes) else read_bytes(image))
    except OSError:
        return
    if size is not None:
        check_size(*size, name)


def check_size(width: int, height: int, name: str = 'image') -> None:
    """Raise UserError if an image has more than :func:`max_pixels` pixels."""
    if width * height > max_pixels():
        raise UserError(
            f'{name} of {width} x {height} px has more than {max_pixels():,} pixels: reduce it, or raise the '
            f'limit with the environment variable {LIMIT_VARIABLE}'
        )


def inspect(content: bytes) -> tuple[tuple[int, int] | None, int]:
    """Size of an encoded image as it is stored, and its EXIF orientation, from its header.

    Returns:
        (width, height), or None if PIL cannot open it; and the orientation, 1 to 8, which is 1 if it has none.
    """
    if content.startswith(PNG_SIGNATURE) and not any(mark in content for mark in PNG_METADATA):
        if len(content) < PNG_SIZE + 8 or content[PNG_SIZE - 4 : PNG_SIZE] != b'IHDR':
            return None, 1
        width, height = struct.unpack_from('>II', content, PNG_SIZE)
        return (width, height), 1
    size = None
    try:
        with open_header(io.BytesIO(content)) as image:
            size = image.size
            found = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # PIL raises errors of many types for corrupt files and metadata
        return size, 1
    return size, found if found in range(1, 9) else 1


def split_orientation(content: bytes, is_limited: bool = False) -> tuple[bytes, int]:
    """The encoded image in a form that decoders can be made not to rotate, and its EXIF orientation.

    OpenCV and PIL always rotate TIFF images, so that the orientation of these is set to 1.

    Args:
        content: Of an image file.
        is_limited: Check the size of the image.

    Raises:
        UserError: If ``is_limited`` and it has more than :func:`max_pixels` pixels.
    """
    size, found = inspect(content)
    if is_limited and size is not None:
        check_size(*size)
    if found == 1 or content[:4] not in TIFF_LAYOUTS:
        return content, found
    order, start, offset, count, entry_size = TIFF_LAYOUTS[content[:4]]
    changed = bytearray(content)
    try:
        (directory,) = struct.unpack_from(order + offset, content, start)
        (num_entries,) = struct.unpack_from(order + count, content, directory)
        first = directory + struct.calcsize(order + count)
        for entry in range(first, first + num_entries * entry_size, entry_size):
            tag, kind = struct.unpack_from(f'{order}HH', content, entry)
            if tag == ORIENTATION_TAG and kind == TIFF_SHORT:
                struct.pack_into(f'{order}H', changed, entry + 4 + struct.calcsize(order + offset), 1)
                return bytes(changed), found
    except struct.error:  # the file is cut off: the decoder reports it
        pass
    return content, 1  # otherwise PIL found the orientation elsewhere, where decoders do not look for it


def has_impossible_chunk(content: bytes) -> bool:
    """Whether a PNG file declares a chunk longer than the whole file; OpenCV would take that much memory for it."""
    if not content.startswith(PNG_SIGNATURE):
        return False
    position = 8  # after the whole signature
    while position + 8 <= len(content):
        length, kind = struct.unpack_from('>I4s', content, position)
        if kind == PNG_END:
            return False
        if length > len(content):
            return True
        position += 12 + length  # its length, type, data and checksum
    return False


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate and flip an image (H, W) or (H, W, C) from an EXIF orientation, 1 to 8, to upright."""
    if orientation == 1:
        return image
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def read_size(path: str | Path, ignore_orientation: bool = False) -> tuple[tuple[int, int], int]:
    """Size of an image as it is loaded, and its EXIF orientation.

    Args:
        path: Image file.
        ignore_orientation: Whether the image is loaded as it is stored.

    Returns:
        (width, height), and the orientation, 1 to 8.

    Raises:
        OSError: If the file does not exist or is not an image.
    """
    content, found = split_orientation(read_bytes(path))
    with open_header(io.BytesIO(content)) as image:
        width, height = image.size
    return ((height, width) if found >= 5 and not ignore_orientation else (width, height)), found


def read(path: str | Path, ignore_orientation: bool = False) -> np.ndarray | None:
    """Read an image with OpenCV as (H, W, 3) BGR uint8; None if it is missing or corrupt.

    Raises:
        UserError: If it has more than :func:`max_pixels` pixels.
    """
    try:
        content = read_bytes(path)
    except OSError:
        return None
    try:
        return decode(content, ignore_orientation)
    except UserError as error:
        raise UserError(str(error).replace('image', f'image {path}', 1)) from None


def decode(content: bytes, ignore_orientation: bool = False, gray: bool = False) -> np.ndarray | None:
    """Decode an image as (H, W, 3) BGR uint8, or as (H, W) if ``gray``; None if it is corrupt.

    Transparency is ignored, as by :func:`from_pillow`: OpenCV would mix it into the colors of TIFF and GIF images. Gray
    of a color file is OpenCV's, as in mmcv; for JPEG files it differs by several levels from gray made of the colors.

    Raises:
        UserError: If it has more than :func:`max_pixels` pixels.
    """
    if not content or has_impossible_chunk(content):
        return None
    content, found = split_orientation(content, is_limited=True)
    if _is_for_pillow(content):
        image = _decode_with_pillow(content)
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if gray and image is not None else image
    else:
        flag = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    return image if image is None or ignore_orientation else turn(image, found)


def _is_for_pillow(content: bytes) -> bool:
    """Whether the image may have transparency that OpenCV mixes into the colors."""
    if content[:4] not in TIFF_LAYOUTS:
        return content.startswith(GIF_SIGNATURE)
    try:
        with open_header(io.BytesIO(content), ('TIFF',)) as image:
            return image.mode in ('RGBA', 'RGBX')
    except OSError:
        return False


def _decode_with_pillow(content: bytes) -> np.ndarray | None:
    try:
        with open_header(io.BytesIO(content)) as image:
            return np.ascontiguousarray(from_pillow(image)[..., ::-1])
    except Exception:  # Pillow raises errors of many types for corrupt files
        return None


def from_pillow(image: Image.Image) -> np.ndarray:
    """Pixels of a Pillow image as it is stored, (H, W, 3) RGB uint8, without transparency.

    Raises:
        UserError: If it has more than 8 bits per channel, except gray with 16, or colors that have no RGB.
        OSError, SyntaxError, ValueError: If its file is corrupt, which Pillow reads when it needs the pixels.
    """
    if image.mode in SIXTEEN_BIT_MODES:  # Pillow would clip values above 255
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, 2)
    if image.mode not in EIGHT_BIT_MODES:
        raise UserError(f'the Pillow image has the mode {image.mode}: convert it to RGB with 8 bits per channel')
    return np.asarray(image.convert('RGB'))


# Flag of mmcv for its OpenCV backend -> ignore_orientation and gray of decode.
MMCV_FLAGS = {
    'color': (False, False),
    'grayscale': (False, True),
    'color_ignore_orientation': (True, False),
    'grayscale_ignore_orientation': (True, True),
}


def register() -> None:
    """Make mmcv, with which every task library reads images, follow the rules of this module with each of its backends.

    The color types 'color' and 'grayscale' rotate; 'color_ignore_orientation', 'grayscale_ignore_orientation' and
    'unchanged' do not.
    """
    import mmcv
    import mmcv.image
    import mmcv.image.io as mmcv_io

    Image.MAX_IMAGE_PIXELS = max_pixels()  # PIL's own limit is lower
    if not hasattr(mmcv_io.imfrombytes, 'follows_exif'):
        decode = _upright(mmcv_io.imfrombytes, lambda: mmcv_io.imread_backend)
        for module in (mmcv, mmcv.image, mmcv_io):
            module.imfrombytes = decode
        resize = _limited(mmcv.image.geometric.imresize)
        for module in (mmcv, mmcv.image, mmcv.image.geometric):
            module.imresize = resize


def _upright(original: Callable, default_backend: Callable[[], str]) -> Callable:
    """Wrap mmcv's ``imfrombytes``; with OpenCV as its backend, :func:`decode` takes its place."""

    @wraps(original)
    def imfrombytes(content, flag='color', channel_order='bgr', backend=None):
        flag = {cv2.IMREAD_COLOR: 'color', cv2.IMREAD_GRAYSCALE: 'grayscale'}.get(flag, flag)
        content, backend = bytes(content), backend or default_backend()
        if backend == 'cv2' and flag in MMCV_FLAGS:
            image = decode(content, *MMCV_FLAGS[flag])
            # As in mmcv, other flags ignore the channel order.
            if image is not None and flag == 'color' and channel_order == 'rgb':
                return np.ascontiguousarray(image[..., ::-1])
            return image
        if has_impossible_chunk(content):
            if backend == 'pillow':
                raise OSError('image file is truncated')  # as PIL says it
            return None
        content, found = split_orientation(content, is_limited=True)
        if flag not in ('color', 'grayscale'):
            return original(content, flag, channel_order, backend)
        # Two backends never rotate, and have no flag for it.
        kept = flag if backend in ('turbojpeg', 'tifffile') else f'{flag}_ignore_orientation'
        image = original(content, kept, channel_order, backend)
        return None if image is None else turn(image, found)

    imfrombytes.follows_exif = True  # type: ignore[attr-defined]
    return imfrombytes


def _limited(resize: Callable) -> Callable:
    """Wrap mmcv's ``imresize``, since an elongated image may become much larger, such as 1 x 5000 px 256 times."""

    @wraps(resize)
    def imresize(img, size, *args, **kwargs):
        check_resized(img.shape[1::-1], size)
        return resize(img, size, *args, **kwargs)

    return imresize


def check_resized(before: Sequence[int], after: Sequence[int]) -> None:
    """Raise UserError if resizing gives an image of more than :func:`max_pixels` pixels; sizes are (width, height)."""
    if after[0] * after[1] > max_pixels():
        (width, height), (new_width, new_height) = before, after
        raise UserError(
            f'an image of {width} x {height} px cannot be resized to {new_width} x {new_height} px, more than '
            f'{max_pixels():,} pixels: pad or cut it to a less elongated shape'
        )
