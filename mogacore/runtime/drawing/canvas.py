"""Labels, colors and regions on images (H, W, 3) uint8 RGB."""

from __future__ import annotations

import colorsys
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

LEGIBLE_SIDE = 400  # pixels; labels have a minimum size and would cover a smaller image
Color = tuple[int, int, int]
# Pillow's own font has the letters of European languages; for others, the first of these that the system has.
WIDE_FONTS = ('NotoSansCJK-Regular.ttc', 'DejaVuSans.ttf', 'Arial Unicode.ttf', 'arial.ttf')


def enlargement(image: np.ndarray, side: int = LEGIBLE_SIDE) -> int:
    """Integer factor by which an image has to be enlarged for its longer side to have at least ``side`` pixels."""
    return max(1, -(-side // max(image.shape[:2])))


def enlarged(image: np.ndarray) -> np.ndarray:
    """A copy of an image (H, W, 3) uint8, enlarged by :func:`enlargement`."""
    factor = enlargement(image)
    return image.copy() if factor == 1 else cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def thickness(image: np.ndarray) -> int:
    """Width in pixels of a thin line that is visible in an image of this size."""
    return max(1, round(max(image.shape[:2]) / 300))


def text_height(image: np.ndarray) -> int:
    """Font size in pixels that is legible in an image of this size."""
    return int(np.clip(round(max(image.shape[:2]) / 36), 12, 36))


def make_palette(palette: list | None, num_classes: int) -> list[Color]:
    """The given colors if there are enough of them, otherwise evenly distributed hues."""
    if palette and len(palette) >= num_classes:
        return [(int(red), int(green), int(blue)) for red, green, blue in palette]
    colors = [colorsys.hsv_to_rgb(i * 0.618 % 1, 0.7, 0.95) for i in range(num_classes)]
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in colors]


@lru_cache(maxsize=32)
def _font(size: int, wide: bool) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for name in WIDE_FONTS if wide else ():
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def font(size: int, text: str) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font of ``size`` pixels that has the characters of a text, as far as the system has one."""
    return _font(size, any(ord(character) > 0x17F for character in text))


def text_width(text: str, size: int) -> int:
    """Width in pixels of a line of text."""
    return int(np.ceil(font(size, text).getlength(text)))


def shortened(text: str, size: int, width: int) -> str:
    """A line of text, cut off with an ellipsis so that it fits into ``width`` pixels."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(f'{text}…', size) > width:
        text = text[:-1]
    return f'{text}…'


def draw_text(image: np.ndarray, text: str, x: int, y: int, size: int, color: Color = (0, 0, 0)) -> None:
    """Draw a line of text in place; (x, y) is its upper left corner, ``size`` the font size in pixels."""
    left, top = max(0, x), max(0, y)
    region = image[top : y + round(1.4 * size), left : x + text_width(text, size) + 2]
    if not region.size:
        return
    picture = Image.fromarray(region)
    ImageDraw.Draw(picture).text((x - left, y - top), text, fill=color, font=font(size, text))
    region[:] = np.asarray(picture)


def draw_label(
    image: np.ndarray, text: str, x: float, y: float, color: Color, size: int, centered: bool = False
) -> None:
    """Draw text on a filled box of ``color`` in place, in black or white, whichever has more contrast.

    Args:
        image: Image to draw on.
        text: One line.
        x: Left end of the box, or its center.
        y: Lower end of the box, or its center. The box is moved into the image where it would exceed it.
        color: Color of the box.
        size: Font size in pixels.
        centered: Whether (x, y) is the center of the box.
    """
    margin = max(2, size // 5)
    width, height = text_width(text, size) + 2 * margin, round(1.25 * size) + margin
    left, top = (x - width / 2, y - height / 2) if centered else (x, y - height)
    left = round(max(0, min(left, image.shape[1] - width)))
    top = round(max(0, min(top, image.shape[0] - height)))
    image[top : top + height, left : left + width] = color
    red, green, blue = color
    is_bright = 0.299 * red + 0.587 * green + 0.114 * blue > 140
    draw_text(image, text, left + margin, top + margin // 2, size, (0, 0, 0) if is_bright else (255, 255, 255))


def blend(image: np.ndarray, mask: np.ndarray, color: Color, opacity: float) -> None:
    """Color the pixels of a mask (H, W) bool in place, translucently."""
    image[mask] = np.round(image[mask] * (1 - opacity) + np.array(color) * opacity).astype(np.uint8)


def outline(image: np.ndarray, mask: np.ndarray, color: Color, width: int) -> None:
    """Draw the contours of a mask (H, W) bool in place."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, contours, -1, color, width, cv2.LINE_AA)


def enlarge_mask(mask: np.ndarray, factor: int) -> np.ndarray:
    """Repeat each element of (H, W) ``factor`` times along both axes."""
    return mask.repeat(factor, 0).repeat(factor, 1) if factor > 1 else mask


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Convert an image as read by OpenCV (gray, BGR or BGRA) to RGB uint8."""
    image = image.astype(np.uint8)
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)
