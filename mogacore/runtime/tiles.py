"""Large images as overlapping tiles, and one result from those of the tiles."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mogacore.errors import UserError

from .tasks import Result

OVERLAP = 0.25  # of a tile; objects of up to this size are complete in at least one tile
TASKS = ('detection', 'segmentation')
MAX_OVERLAP_OF_BOXES = 0.5  # from which two boxes show the same object, see _overlaps
BORDER = 2  # pixels; a box that is this close to an inner border of its tile is probably cut off


@dataclass(frozen=True)
class Tile:
    """A part of an image, ``left`` to ``right`` and ``top`` to ``bottom``, and the image's ``height`` and ``width``."""

    left: int
    top: int
    right: int
    bottom: int
    height: int
    width: int

    def of(self, pixels: np.ndarray) -> np.ndarray:
        """The pixels of the tile."""
        return pixels[self.top : self.bottom, self.left : self.right]

    def cut_off(self, boxes: np.ndarray) -> np.ndarray:
        """Which boxes (N, 4) in pixels of the image touch a border of the tile within the image."""
        inner = np.array([self.left > 0, self.top > 0, self.right < self.width, self.bottom < self.height])
        distances = abs(boxes - [self.left, self.top, self.right, self.bottom])
        return ((distances < BORDER) & inner).any(1)


def check_tile(size: int | None, overlap: float, task: str) -> None:
    """Check the settings of tiles.

    Args:
        size: Side of a tile; None for whole images.
        overlap: Smallest overlap of neighbors, as a fraction of the side.
        task: Task of the model, as in the description of an exported file.

    Raises:
        UserError: If the task has no tiles, the size is below 32, or the overlap is not in 0 to 0.9.
    """
    if size is None:
        return
    if task not in TASKS:
        raise UserError(f'tile is {size}, but the model is for {task}: omit it')
    if size < 32:
        raise UserError(f'tile is {size}: use at least 32 pixels')
    if not 0 <= overlap <= 0.9:
        raise UserError(f'the overlap of tiles is {overlap}: use 0 to 0.9 of a tile')


def make_tiles(image: np.ndarray, size: int | None, overlap: float = OVERLAP) -> list[Tile]:
    """Evenly distributed tiles that cover an image, row by row.

    Args:
        image: (H, W) or (H, W, C).
        size: Side of a tile; one that exceeds the image, or None, has the size of the image.
        overlap: Smallest overlap of neighbors, as a fraction of the side.
    """
    height, width = image.shape[:2]
    tall, wide = (height, width) if size is None else (min(size, height), min(size, width))
    return [
        Tile(left, top, left + wide, top + tall, height, width)
        for top in _starts(height, tall, overlap)
        for left in _starts(width, wide, overlap)
    ]


def _starts(length: int, size: int, overlap: float) -> list[int]:
    if length <= size:
        return [0]
    number = int(np.ceil((length - size) / (size * (1 - overlap)))) + 1
    return np.linspace(0, length - size, number).round().astype(int).tolist()


def merge(tiles: list[Tile], results: list[Result]) -> Result:
    """One result for the image.

    Class maps: each pixel gets the class of the tile in which it is farthest from the border. Boxes: of two boxes of
    the same class in different tiles that show the same object, the one that is not cut off by its tile is kept, then
    the one with the higher score.
    """
    if 'class_map' in results[0]:
        return {'class_map': _merge_maps(tiles, results)}
    return _merge_boxes(tiles, results)


def _merge_maps(tiles: list[Tile], results: list[Result]) -> np.ndarray:
    merged = np.zeros((tiles[0].height, tiles[0].width), results[0]['class_map'].dtype)
    columns = _seams([(tile.left, tile.right) for tile in tiles])
    rows = _seams([(tile.top, tile.bottom) for tile in tiles])
    for tile, result in zip(tiles, results, strict=True):
        left, right = columns[tile.left]
        top, bottom = rows[tile.top]
        part = result['class_map'][top - tile.top : bottom - tile.top, left - tile.left : right - tile.left]
        merged[top:bottom, left:right] = part
    return merged


def _seams(spans: list[tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """By the start of each span: the part of it that is closer to its center than to that of a neighbor."""
    ordered = sorted(set(spans))
    cuts = [(following[0] + stop) // 2 for (_, stop), following in pairwise(ordered)]
    borders = [ordered[0][0], *cuts, ordered[-1][1]]
    return {span[0]: (borders[i], borders[i + 1]) for i, span in enumerate(ordered)}


def _merge_boxes(tiles: list[Tile], results: list[Result]) -> Result:
    offsets = [np.array([tile.left, tile.top] * 2, np.float32) for tile in tiles]
    boxes = np.concatenate([result['boxes'] + offset for result, offset in zip(results, offsets, strict=True)])
    numbers = np.repeat(np.arange(len(tiles)), [len(result['boxes']) for result in results])
    labels = np.concatenate([result['labels'] for result in results])
    scores = np.concatenate([result['scores'] for result in results])
    is_cut = np.concatenate([tile.cut_off(boxes[numbers == i]) for i, tile in enumerate(tiles)])
    kept: list[int] = []
    for i in np.lexsort((-scores, is_cut)):
        rivals = [j for j in kept if labels[j] == labels[i] and numbers[j] != numbers[i]]
        if not rivals or _overlaps(boxes[i], boxes[rivals], is_cut[i] | is_cut[rivals]).max() < MAX_OVERLAP_OF_BOXES:
            kept.append(int(i))
    merged = {'boxes': boxes[kept], 'scores': scores[kept], 'labels': labels[kept]}
    if 'masks' in results[0]:
        masks = np.zeros((len(kept), tiles[0].height, tiles[0].width), bool)
        firsts = np.cumsum([0, *(len(result['boxes']) for result in results)])
        for mask, i in zip(masks, kept, strict=True):
            tiles[numbers[i]].of(mask)[:] = results[numbers[i]]['masks'][i - firsts[numbers[i]]]
        merged['masks'] = masks
    return merged


def _overlaps(box: np.ndarray, others: np.ndarray, is_part: np.ndarray) -> np.ndarray:
    """Overlap of a box with each of (N, 4) others.

    The intersection is divided by the union, or by the smaller area where one of the two may be a part of the other
    object, ``is_part`` (N,); else a small object in front of a large one would be taken for the same.
    """
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    areas = [np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1) for boxes in (box, others)]
    shared = np.prod(np.maximum(sides, 0), axis=1)
    return shared / np.maximum(np.where(is_part, np.minimum(*areas), areas[0] + areas[1] - shared), 1e-6)
