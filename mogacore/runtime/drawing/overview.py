"""The overview: many images in a grid, each with a title."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from mogacore import images as image_files
from mogacore.files import write_png

from .canvas import Color, draw_text, shortened, text_width

MAX_IMAGES = 40  # more would be too small to recognize
MAX_COLUMNS = 8
GAP = 8  # pixels between images
TEXT_SIZE = 14
COLORS: dict[str, Color] = {'black': (0, 0, 0), 'red': (210, 0, 0)}


def chosen_images(number: int) -> list[int]:
    """Which of a number of images are drawn: if there are too many, an evenly spaced selection."""
    return np.unique(np.linspace(0, number - 1, MAX_IMAGES).round().astype(int)).tolist()


def draw_overview(
    path: Path,
    files: list[Path],
    titles: list[tuple[str, str]],
    cell_width: int,
    ignore_orientation: bool = False,
) -> None:
    """Draw images in a grid; if there are too many, an evenly spaced selection.

    Args:
        path: PNG file to write.
        files: Image files.
        titles: Title and title color, 'black' or 'red', of each image.
        cell_width: Width and largest height of an image in pixels.
        ignore_orientation: Draw the images as they are stored, without their EXIF orientation.
    """
    chosen = chosen_images(len(files))
    images = (_read(files[i], ignore_orientation) for i in chosen)  # one after the other, since they may be large
    write_png(path, draw_grid(images, [titles[i] for i in chosen], cell_width))


def draw_grid(
    images: Iterable[np.ndarray],
    titles: Sequence[tuple[str, str]],
    cell_width: int,
    num_cols: int = MAX_COLUMNS,
) -> np.ndarray:
    """Draw images in a grid, row by row, as (H, W, 3) uint8 RGB.

    Args:
        images: Images (H, W, 3) uint8 RGB of any size.
        titles: Title, of one or more lines, and title color, 'black' or 'red', of each image.
        cell_width: Width and largest height of an image in pixels.
        num_cols: Largest number of images in a row.
    """
    num_cols = min(num_cols, len(titles))
    lines = max(title.count('\n') + 1 for title, _ in titles)
    drawn = [_cell(image, title, cell_width, lines) for image, title in zip(images, titles, strict=True)]
    rows = []
    for start in range(0, len(drawn), num_cols):
        cells = drawn[start : start + num_cols]
        height = max(cell.shape[0] for cell in cells)
        row = np.full((height, num_cols * (cell_width + GAP) + GAP, 3), 255, np.uint8)
        for column, cell in enumerate(cells):
            left = GAP + column * (cell_width + GAP)
            row[: cell.shape[0], left : left + cell_width] = cell
        rows.append(row)
    return np.concatenate(rows)


def _read(file: Path, ignore_orientation: bool) -> np.ndarray:
    """Image of a file in RGB; white if only another decoder knows the format."""
    image = image_files.read(file, ignore_orientation)
    return np.full((1, 1, 3), 255, np.uint8) if image is None else image[..., ::-1]


def _cell(image: np.ndarray, title: tuple[str, str], width: int, lines: int) -> np.ndarray:
    """An image of ``width`` pixels below its title."""
    line_height = round(1.35 * TEXT_SIZE)
    scale = width / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    enlarge = cv2.INTER_NEAREST if scale >= 2 else cv2.INTER_CUBIC
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else enlarge)
    top = GAP + lines * line_height
    cell = np.full((top + size[1], width, 3), 255, np.uint8)
    left = (width - size[0]) // 2
    cell[top:, left : left + size[0]] = image
    text_lines = title[0].split('\n')
    for number, line in enumerate(text_lines):
        text = shortened(line, TEXT_SIZE, width)
        y = top - (len(text_lines) - number) * line_height
        draw_text(cell, text, (width - text_width(text, TEXT_SIZE)) // 2, y, TEXT_SIZE, COLORS[title[1]])
    return cell
