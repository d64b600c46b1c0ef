"""What a prediction starts from: pictures, videos, and boxes of the objects in them."""

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
    """A picture or video is broken: of a folder it is left out."""


def find_inputs(source: str | Path, out_dir: str | Path | None = None) -> list[Path]:
    """The picture or video ``source``, or those in the folder ``source`` and below, sorted.

    Args:
        source: File or folder.
        out_dir: Folder of the results, which are not taken for inputs.

    Raises:
        UserError: If there is none, or ``out_dir`` is ``source``.
    """
    source = Path(source)
    inputs = sorted(source.rglob('*')) if source.is_dir() else [source]
    if out_dir and source.is_dir():
        if Path(out_dir).resolve() == source.resolve():
            raise UserError(f'--out-dir {out_dir} is the folder of the inputs: choose another')
        if source.resolve() in Path(out_dir).resolve().parents:
            inputs = [path for path in inputs if Path(out_dir).resolve() not in path.resolve().parents]
    suffixes = IMAGE_SUFFIXES + VIDEO_SUFFIXES
    inputs = [path for path in inputs if path.is_file() and path.suffix.lower() in suffixes]
    if not inputs:
        raise UserError(
            f'input {source} holds no picture and no video: give a file or folder of them ({", ".join(suffixes)})'
        )
    return inputs


def output_names(inputs: list[Path], source: Path) -> dict[Path, str]:
    """Name below the output folder for each input: its path below ``source``, with a suffix only where two agree."""
    below = {path: path.relative_to(source) if source.is_dir() else Path(path.name) for path in inputs}
    kinds = {path: (short.with_suffix(''), path.suffix.lower() in VIDEO_SUFFIXES) for path, short in below.items()}
    uses = Counter(kinds.values())
    return {path: str(below[path] if uses[kind] > 1 else kind[0]) for path, kind in kinds.items()}


class Boxes:
    """Boxes of the objects in pictures and video frames, from a file; such without an area are left out.

    Args:
        path: The ``predictions.json`` that a detector wrote here, or COCO annotations.
        class_name: Take the boxes of this class alone; None takes all.

    Raises:
        UserError: If the file is neither.
    """

    def __init__(self, path: str | Path, class_name: str | None = None):
        self.path = path
        self.class_name = class_name
        try:
            content = json.loads(Path(path).read_text())
            rows = self._predicted(content) if 'predictions' in content else self._annotated(content)
            self.boxes = {key: np.array(boxes, np.float32).reshape(-1, 5) for key, boxes in rows.items()}
        except OSError as error:
            raise UserError(f'boxes file {path} cannot be read ({error.strerror}): give a JSON file') from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f'boxes file {path} is of no known form ({type(error).__name__}: {error}): give the predictions.json '
                'of a detector, or COCO annotations with images and annotations'
            ) from None
        for key, boxes in self.boxes.items():
            self.boxes[key] = boxes[(boxes[:, 2:4] > boxes[:, :2]).all(1)]
        self.files = {}  # by name, where a file lay
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

    def _annotated(self, content: dict) -> dict[tuple[Path, None], list]:
        wanted = {c['id'] for c in content.get('categories', ()) if c['name'] == self.class_name}
        files = {image['id']: _absolute(image['file_name']) for image in content['images']}
        rows = {(file, None): [] for file in files.values()}
        for annotation in content['annotations']:
            if self.class_name is not None and annotation['category_id'] not in wanted:
                continue
            if not annotation.get('iscrowd'):
                x, y, width, height = annotation['bbox']
                row = [x, y, x + width, y + height, annotation.get('score', 1)]
                rows[files[annotation['image_id']], None].append(row)
        return rows

    def _find(self, path: Path) -> Path | None:
        """The file that the boxes are listed under: ``path`` itself, else the one of its name."""
        files = self.files.get(path.name, set())
        if _absolute(path) in files:
            return _absolute(path)
        if len(files) > 1:
            raise UserError(f'boxes file {self.path} has {len(files)} files {path.name}, none of which is {path}')
        return next(iter(files), None)

    def of(self, path: Path, frame: int | None = None) -> np.ndarray:
        """Boxes in a picture or a frame of a video, (N, 5): corners x1, y1, x2, y2 in pixels, and score."""
        return self.boxes.get((self._find(path), frame), np.zeros((0, 5), np.float32))

    def check(self, inputs: list[Path]) -> None:
        """Raise UserError if there is no box for any of the inputs, or more than one file could be meant."""
        files = {file for (file, _), boxes in self.boxes.items() if len(boxes)}
        if not files.intersection([self._find(path) for path in inputs]):
            wanted = f'box of class {self.class_name}' if self.class_name else 'box'
            raise UserError(
                f'boxes file {self.path} has no {wanted} for {inputs[0]}'
                + (f' and the {len(inputs) - 1} other inputs' if inputs[1:] else '')
                + ': let the detector predict the same files, or leave --boxes out to take each whole picture'
            )


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(path))  # a link keeps its own name


def open_video(path: Path) -> tuple[float, int | None, Iterator[np.ndarray]]:
    """Frames per second of a video, their number where the file tells it, and the frames, (H, W, 3) BGR.

    Raises:
        UnreadableError: If there is no first frame.
    """
    # Quiet: that a video is broken is said by our own line.
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
    log_level = opencv.set_log_level(opencv.SILENT)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    found, first = capture.read()
    opencv.set_log_level(log_level)
    if not found:
        raise UnreadableError(f'video {path} cannot be read: give another, or fetch it again')

    def frames():
        frame = first
        while frame is not None:
            yield frame
            frame = capture.read()[1]
        capture.release()

    num_frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return capture.get(cv2.CAP_PROP_FPS) or 25.0, num_frames if num_frames > 0 else None, frames()


def sequences_of_videos(paths: list[Path], cfg: Config) -> Iterator[dict]:
    """Sequences that follow each other in videos, as the data sets of video prediction give them.

    The last sequence of a video may lack some or all of the frames to predict.

    Args:
        paths: Video files; pictures are refused.
        cfg: Config of a video predictor: ``input_shape`` (T, C, H, W) and ``model.num_targets``.

    Raises:
        UserError: If the network does not predict pictures, or a file is none of a video or too short.
    """
    num_inputs, channels, height, width = cfg.input_shape
    num_frames = num_inputs + (cfg.model.get('num_targets') or num_inputs)
    if channels not in (1, 3) or cfg.test_dataloader.dataset.type in ('TaxiBJ', 'WeatherBench'):
        raise UserError('this network predicts no pictures: leave the input out to predict sequences of its test set')
    for path in paths:
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            raise UserError(f'input {path} is no video: give one ({", ".join(VIDEO_SUFFIXES)}), or leave the input out')
        *_, frames = open_video(path)
        for start in count(step=num_frames):
            taken = [_resized(frame, channels, height, width) for frame in islice(frames, num_frames)]
            if start == 0 and len(taken) < num_inputs:
                raise UserError(
                    f'video {path} has {len(taken)} frames, the network needs {num_inputs}: give a longer one'
                )
            if len(taken) < num_inputs:
                break
            sequence = torch.from_numpy(np.stack(taken))
            sample = BaseDataElement(
                gt_frames=sequence[num_inputs:], metainfo=dict(name=f'{path}, from frame {start}', sample_idx=start)
            )
            yield dict(inputs=sequence[:num_inputs], data_samples=sample)


def _resized(frame: np.ndarray, channels: int, height: int, width: int) -> np.ndarray:
    """A frame (H, W, 3) BGR as (channels, height, width) float32 0..1, grey or RGB."""
    frame = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)[..., None] if channels == 1 else frame[..., ::-1]
    frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width, channels)
    return frame.transpose(2, 0, 1).astype(np.float32) / 255


def create_video(path: Path, fps: float, size: tuple[int, int]) -> cv2.VideoWriter:
    """A writer of MPEG-4; of an odd width or height it leaves the last pixel out.

    Raises:
        UserError: If the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # MPEG-4 holds the rate as a fraction with 16 bits: three decimals of more than 65 do not fit.
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*'mp4v'), fps if fps < 65 else round(fps, 2), size
    )
    if not writer.isOpened():
        raise UserError(
            f'video {path} of {size[0]} x {size[1]} at {fps} fps cannot be written: choose another --out-dir'
        )
    return writer
