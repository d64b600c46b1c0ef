"""Inputs of a prediction: files of images and videos, and boxes of the objects in them."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np

from mogacore.errors import UserError

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')
VIDEO_SUFFIXES = ('.avi', '.mkv', '.mov', '.mp4', '.webm')


class UnreadableError(UserError):
    """An image or video is corrupt; within a folder, it is skipped."""


def find_inputs(source: str | Path, out_dir: str | Path | None = None) -> list[Path]:
    """Find images and videos: ``source`` itself, or all below the folder ``source``, sorted.

    Args:
        source: File or folder.
        out_dir: Folder of the results, which is excluded from the search.

    Raises:
        UserError: If there is no image or video, or ``out_dir`` is ``source``.
    """
    source = Path(source)
    inputs = sorted(source.rglob('*')) if source.is_dir() else [source]
    if out_dir and source.is_dir():
        if Path(out_dir).resolve() == source.resolve():
            raise UserError(f'--out-dir {out_dir} is the input folder: choose another')
        if source.resolve() in Path(out_dir).resolve().parents:
            inputs = [path for path in inputs if Path(out_dir).resolve() not in path.resolve().parents]
    suffixes = IMAGE_SUFFIXES + VIDEO_SUFFIXES
    inputs = [path for path in inputs if path.is_file() and path.suffix.lower() in suffixes]
    if not inputs:
        raise UserError(
            f'input {source} contains no image or video: give a file or folder with suffix {", ".join(suffixes)}'
        )
    return inputs


def output_names(inputs: list[Path], source: Path) -> dict[Path, str]:
    """Output name of each input: its path relative to ``source``, with the suffix only where names would collide."""
    relative = {path: path.relative_to(source) if source.is_dir() else Path(path.name) for path in inputs}
    kinds = {path: (name.with_suffix(''), path.suffix.lower() in VIDEO_SUFFIXES) for path, name in relative.items()}
    uses = Counter(kinds.values())
    return {path: str(relative[path] if uses[kind] > 1 else kind[0]) for path, kind in kinds.items()}


class Boxes:
    """Boxes of the objects in images and video frames, from a file; boxes without area are dropped.

    Args:
        path: A ``predictions.json`` written by :func:`mogacore.inference.predictor.infer` with a detector, or COCO
            annotations.
        class_name: Only use boxes of this class; None for all.

    Raises:
        UserError: If the file cannot be read or has another format.
    """

    def __init__(self, path: str | Path, class_name: str | None = None):
        self.path = path
        self.class_name = class_name
        try:
            content = json.loads(Path(path).read_text())
            rows = self._predicted(content) if 'predictions' in content else self._annotated(content)
            all_boxes = {key: np.array(boxes, np.float32).reshape(-1, 5) for key, boxes in rows.items()}
        except OSError as error:
            raise UserError(f'boxes file {path} cannot be read ({error.strerror}): use a JSON file') from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f'boxes file {path} has an unknown format ({type(error).__name__}: {error}): use the predictions.json '
                'of a detector, or COCO annotations with images and annotations'
            ) from None
        self.boxes: dict[tuple[Path, int | None], np.ndarray] = {
            key: boxes[(boxes[:, 2:4] > boxes[:, :2]).all(1)] for key, boxes in all_boxes.items()
        }
        self.files: dict[str, set[Path]] = {}  # paths by file name
        for file, _ in self.boxes:
            self.files.setdefault(file.name, set()).add(file)

    def _predicted(self, content: dict) -> dict[tuple[Path, int | None], list]:
        return {
            (_absolute(record.get('video') or record['image']), record.get('frame')): [
                [*instance['bbox'], instance['score']]
                for instance in record['instances']
                if self.class_name in (None, instance.get('class'))
            ]
            for record in content['predictions']
        }

    def _annotated(self, content: dict) -> dict[tuple[Path, int | None], list]:
        selected = {c['id'] for c in content.get('categories', ()) if c['name'] == self.class_name}
        files = {image['id']: _absolute(image['file_name']) for image in content['images']}
        rows: dict[tuple[Path, int | None], list] = {(file, None): [] for file in files.values()}
        for annotation in content['annotations']:
            if self.class_name is not None and annotation['category_id'] not in selected:
                continue
            if not annotation.get('iscrowd'):
                x, y, width, height = annotation['bbox']
                row = [x, y, x + width, y + height, annotation.get('score', 1)]
                rows[files[annotation['image_id']], None].append(row)
        return rows

    def _find(self, path: Path) -> Path | None:
        """The file in the boxes file that is meant by ``path``: the same path, else the only one with its name."""
        files = self.files.get(path.name, set())
        if _absolute(path) in files:
            return _absolute(path)
        if len(files) > 1:
            raise UserError(
                f'boxes file {self.path} has {len(files)} files named {path.name}, but not {path}: correct its paths'
            )
        return next(iter(files), None)

    def of(self, path: Path, frame: int | None = None) -> np.ndarray:
        """Boxes in an image or video frame, (N, 5): corners x1, y1, x2, y2 in pixels, and score."""
        file = self._find(path)
        empty = np.zeros((0, 5), np.float32)
        return empty if file is None else self.boxes.get((file, frame), empty)

    def check(self, inputs: list[Path]) -> None:
        """Raise UserError if no input has a box, or a file name is ambiguous."""
        files = {file for (file, _), boxes in self.boxes.items() if len(boxes)}
        if not files.intersection([self._find(path) for path in inputs]):
            kind = f'box of class {self.class_name}' if self.class_name else 'box'
            others = f' or the {len(inputs) - 1} other inputs' if inputs[1:] else ''
            raise UserError(
                f'boxes file {self.path} has no {kind} for {inputs[0]}{others}: run the detector on the same files, or '
                'omit --boxes to use whole images'
            )


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(path))  # unlike resolve(), keeps the name of a symbolic link
