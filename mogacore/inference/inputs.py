"""Inputs of a prediction: images, videos, and boxes of the objects in them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
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
