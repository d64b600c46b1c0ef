"""Inputs of a prediction: images, videos, and boxes of the objects in them."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from glob import glob
from itertools import count, islice
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement

from mogacore import opencv
from mogacore.errors import UserError

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
    if path.is_file() and path.suffix.lower() in suffixes:
        return [path]
    if path.is_file() and path.suffix.lower() == '.txt' and not in_list:
        try:
            lines = path.read_text(encoding='utf-8').splitlines()
        except (OSError, UnicodeDecodeError):
            raise UserError(f'{where} cannot be read as text: give a list of files, one on each line') from None
        listed = [line.strip() for line in lines if line.strip()]
        if not listed:
            raise UserError(f'{where} is empty: list one file, folder or pattern on each line')
        return [found for line in listed for found in _find(line, out_dir, f' of {source}')]
    if path.is_file():
        raise UserError(f'{where} is no image or video: give a file {kinds}, or a .txt file that lists such files')
    if path.is_dir():
        if out_dir and Path(out_dir).resolve() == path.resolve():
            raise UserError(f'--out-dir {out_dir} is the input folder: choose another')
        candidates, problem = sorted(path.rglob('*')), 'contains no image or video'
    elif re.match(r'[a-zA-Z][a-zA-Z0-9+.-]+://', source):
        raise UserError(f'{where} is a web address: download the file, then give its path')
    elif re.search(r'[*?[]', source):
        matches = [Path(match) for match in sorted(glob(source, recursive=True))]
        candidates = [file for match in matches for file in (sorted(match.rglob('*')) if match.is_dir() else [match])]
        problem = 'matches no image or video' if candidates else 'matches no file'
    else:
        raise UserError(f'{where} does not exist: give a file, a folder, or a pattern such as photos/*.jpg')
    found = [file for file in candidates if file.is_file() and file.suffix.lower() in suffixes]
    if out_dir and _fixed_part(path).resolve() in Path(out_dir).resolve().parents:
        found = [file for file in found if Path(out_dir).resolve() not in file.resolve().parents]
    if not found:
        raise UserError(f'{where} {problem}: give a file or folder {kinds}')
    return found


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


def open_video(path: Path) -> tuple[float, int | None, Iterator[np.ndarray]]:
    """Open a video.

    Returns:
        Frames per second; number of frames, None if the file does not contain it; the frames, (H, W, 3) BGR.

    Raises:
        UnreadableError: If the first frame cannot be read.
    """
    # Silence FFmpeg and OpenCV: we report corrupt videos ourselves.
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
    log_level = opencv.set_log_level(opencv.SILENT)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    found, first = capture.read()
    opencv.set_log_level(log_level)
    if not found:
        raise UnreadableError(f'video {path} cannot be read: replace it or use another')

    def frames():
        frame = first
        while frame is not None:
            yield frame
            frame = capture.read()[1]
        capture.release()

    num_frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return capture.get(cv2.CAP_PROP_FPS) or 25.0, num_frames if num_frames > 0 else None, frames()


def sequences_of_videos(paths: list[Path], cfg: Config) -> Iterator[dict]:
    """Cut videos into consecutive sequences, in the format of the video prediction data sets.

    Frame step and channel order are those of the config's test set. The last sequence of a video may lack some or all
    target frames.

    Args:
        paths: Video files; images are refused.
        cfg: Config of a video predictor: ``input_shape`` (T, C, H, W) and ``model.num_targets``.

    Raises:
        UserError: If the network does not predict images, or a file is not a video or too short.
    """
    num_inputs, channels, height, width = cfg.input_shape
    num_frames = num_inputs + (cfg.model.get('num_targets') or num_inputs)
    if channels not in (1, 3) or cfg.test_dataloader.dataset.type in ('TaxiBJ', 'WeatherBench'):
        raise UserError('this network does not predict images: omit the input to predict sequences of its test set')
    dataset = cfg.test_dataloader.dataset
    step, is_bgr = dataset.get('frame_step', 1), dataset.get('channel_order') == 'bgr'
    described = 'frames' if step == 1 else f'frames at a step of {step}'
    for path in paths:
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            raise UserError(f'input {path} is not a video ({", ".join(VIDEO_SUFFIXES)}): use one, or omit the input')
        *_, frames = open_video(path)
        frames = islice(frames, 0, None, step)
        for start in count(step=num_frames):
            taken = [_resized(frame, channels, height, width, is_bgr) for frame in islice(frames, num_frames)]
            if start == 0 and len(taken) < num_inputs:
                raise UserError(
                    f'video {path} has {len(taken)} {described}, but the network needs {num_inputs}: use a longer one'
                )
            if len(taken) < num_inputs:
                break
            sequence = torch.from_numpy(np.stack(taken))
            meta = dict(name=f'{path}, from frame {start * step}', sample_idx=start)
            sample = BaseDataElement(gt_frames=sequence[num_inputs:], metainfo=meta)
            yield dict(inputs=sequence[:num_inputs], data_samples=sample)


def _resized(frame: np.ndarray, channels: int, height: int, width: int, is_bgr: bool) -> np.ndarray:
    """Convert a frame (H, W, 3) BGR to (channels, height, width) float32 0..1: gray, RGB, or BGR."""
    if channels == 1:
        frame = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)[..., None]
    elif not is_bgr:
        frame = frame[..., ::-1]
    frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width, channels)
    return frame.transpose(2, 0, 1).astype(np.float32) / 255


def create_video(path: Path, fps: float, size: tuple[int, int]) -> cv2.VideoWriter:
    """Open an MPEG-4 file for writing; an odd width or height loses its last pixel.

    Raises:
        UserError: If the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # MPEG-4 stores the rate as a 16-bit fraction: above 65 fps, three decimals overflow it.
    codec = cv2.VideoWriter.fourcc(*'mp4v')
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, fps if fps < 65 else round(fps, 2), size)
    if not writer.isOpened():
        raise UserError(
            f'cannot write video {path} with {size[0]} x {size[1]} px at {fps} fps: choose another --out-dir'
        )
    return writer
