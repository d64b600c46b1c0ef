"""Inputs of a prediction: files of images and videos, and boxes of the objects in them."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mogacore.errors import UserError
from mogacore.files import expand, read_file, walk

LARGEST_COORDINATE = 1e6  # of a box, in pixels; float32 has fractions of a pixel up to here
IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')
VIDEO_SUFFIXES = ('.avi', '.mkv', '.mov', '.mp4', '.webm')


class UnreadableError(UserError):
    """An image or video is corrupt; within a folder, it is skipped."""


def find_inputs(source: str | Path | Sequence[str | Path], out_dir: str | Path | None = None) -> list[Path]:
    """Find images and videos.

    Args:
        source: A file; a folder, for all files below it; a pattern such as ``photos/*.jpg``; a ``.txt`` file with one
            of these on each line, relative to the current folder; or several of them.
        out_dir: Folder of the results, in which nothing is searched.

    Returns:
        Each file once: those of a folder or pattern sorted, otherwise in the given order.

    Raises:
        UserError: If an input does not exist or contains no image or video, or ``out_dir`` is an input folder.
    """
    sources = [source] if isinstance(source, (str, Path)) else source
    return list(dict.fromkeys(path for item in sources for path in _find(str(item), out_dir)))


def _find(source: str, out_dir: str | Path | None, in_list: str = '') -> list[Path]:
    where = f'input {source}{in_list}'
    suffixes = IMAGE_SUFFIXES + VIDEO_SUFFIXES
    kinds = f'with suffix {", ".join(suffixes)}'
    path = Path(source)
    is_file = os.path.isfile(path)  # in contrast to Path.is_file, False for a name that is too long
    if is_file and path.suffix.lower() in suffixes:
        return [path]
    if is_file and path.suffix.lower() == '.txt' and not in_list:
        try:
            lines = read_file(path).decode('utf-8-sig').splitlines()
        except (OSError, UnicodeDecodeError):
            raise UserError(f'{where} cannot be read as text: give a list of files, one on each line') from None
        listed = [line.strip() for line in lines if line.strip()]
        if not listed:
            raise UserError(f'{where} is empty: list one file, folder or pattern on each line')
        return [found for line in listed for found in _find(line, out_dir, f' of {source}')]
    if is_file:
        raise UserError(f'{where} is no image or video: give a file {kinds}, or a .txt file that lists such files')
    if os.path.isdir(path):
        if out_dir and Path(out_dir).resolve() == path.resolve():
            raise UserError(f'--out-dir {out_dir} is the input folder: choose another')
        candidates, problem = _files_below(path), 'contains no image or video'
    elif re.match(r'[a-zA-Z][a-zA-Z0-9+.-]+://', source):
        raise UserError(f'{where} is a web address: download the file, then give its path')
    elif re.search(r'[*?[]', source):
        matches = [Path(match) for match in expand(source)]
        candidates = [file for match in matches for file in (_files_below(match) if match.is_dir() else [match])]
        problem = 'matches no image or video' if candidates else 'matches no file'
    else:
        raise UserError(f'{where} does not exist: give a file, a folder, or a pattern such as photos/*.jpg')
    found = [file for file in candidates if file.is_file() and file.suffix.lower() in suffixes]
    if out_dir and _fixed_part(path).resolve() in Path(out_dir).resolve().parents:
        found = [file for file in found if Path(out_dir).resolve() not in file.resolve().parents]
    if not found:
        raise UserError(f'{where} {problem}: give a file or folder {kinds}')
    return found


def _files_below(folder: Path) -> list[Path]:
    return sorted(Path(at, name) for at, _, names in walk(folder) for name in names)


def _fixed_part(path: Path) -> Path:
    """The folder before the first part of a pattern that has a wildcard; a path without wildcards itself."""
    while re.search(r'[*?[]', str(path)) and not path.exists():
        path = path.parent
    return path


def output_names(inputs: list[Path], source: str | Path | Sequence[str | Path]) -> dict[Path, str]:
    """Distinct output name of each input, with its suffix only where names would collide.

    A name is the path relative to the folder ``source``, or to the folder that contains all inputs.
    """
    is_folder = isinstance(source, (str, Path)) and Path(source).is_dir()
    absolute = {path: _absolute(path) for path in inputs}
    base = _absolute(str(source)) if is_folder else os.path.commonpath([path.parent for path in absolute.values()])
    whole = {path: full.relative_to(base) for path, full in absolute.items()}
    names = {path: name.with_suffix('') for path, name in whole.items()}
    while True:
        kinds = {path: (name, path.suffix.lower() in VIDEO_SUFFIXES) for path, name in names.items()}
        uses = Counter(kinds.values())
        clashing = [path for path, kind in kinds.items() if uses[kind] > 1 and names[path] != whole[path]]
        if not clashing:
            return {path: str(name) for path, name in names.items()}
        names |= {path: whole[path] for path in clashing}


class Boxes:
    """Boxes of the objects in images and video frames, from a file; boxes without area are dropped.

    Args:
        path: A ``predictions.json`` written by :func:`mogacore.inference.predictor.infer` with a detector, or COCO
            annotations.
        class_name: Only use boxes of this class; None for all.
        check: Function of the content of COCO annotations, the list of these, and the path; it raises UserError for
            faulty ones.

    Raises:
        UserError: If the file cannot be read, has another format, or fails the check.
    """

    def __init__(
        self,
        path: str | Path,
        class_name: str | None = None,
        check: Callable[[dict, list[dict], Path], None] | None = None,
    ):
        self.path = path
        self.class_name = class_name
        try:
            content = json.loads(read_file(path).decode('utf-8-sig'))
            if check is not None and 'predictions' not in content:
                check(content, content['annotations'], Path(path))
            rows = self._predicted(content) if 'predictions' in content else self._annotated(content)
            all_boxes = {key: np.array(boxes, np.float32).reshape(-1, 5) for key, boxes in rows.items()}
        except UserError:
            raise
        except OSError as error:
            raise UserError(f'boxes file {path} cannot be read ({error.strerror}): use a JSON file') from None
        except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
            raise UserError(
                f'boxes file {path} has an unknown format ({type(error).__name__}: {error}): use the predictions.json '
                'of a detector, or COCO annotations with images and annotations'
            ) from None
        for (file, _), boxes in all_boxes.items():
            bad = boxes[~(abs(boxes[:, :4]) < LARGEST_COORDINATE).all(1)]  # NaN, too
            if len(bad):
                raise UserError(
                    f'boxes file {path} has a box that is {bad[0, :4].tolist()} in {file.name}: use x1, y1, x2, y2 in '
                    'pixels of the image'
                )
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
