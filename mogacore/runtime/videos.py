"""Videos, from files or from folders of numbered frames, and sequences of their frames."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice, pairwise
from pathlib import Path

import cv2
import numpy as np

from mogacore import images, opencv
from mogacore.errors import UserError
from mogacore.files import readable
from mogacore.runtime.inputs import IMAGE_SUFFIXES, VIDEO_SUFFIXES, UnreadableError, find_inputs

DEFAULT_FPS = 25.0
ESTIMATED_SUFFIXES = ('.mkv', '.webm')  # OpenCV estimates the number of frames from duration and rate


class Video:
    """A video: iterate over it once for its frames, (H, W, 3) BGR.

    Args:
        path: Video file.

    Attributes:
        fps: Frames per second.
        num_frames: Number of frames that the file declares; None if it does not.
        num_read: Number of frames read so far.

    Raises:
        UnreadableError: If the first frame cannot be read.
    """

    def __init__(self, path: Path):
        self.path = path
        # Silence FFmpeg and OpenCV: we report corrupt videos ourselves.
        os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
        log_level = opencv.set_log_level(opencv.SILENT)
        with _utf8_name(path) as name:
            self._capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
            found, self._first = self._capture.read()
        opencv.set_log_level(log_level)
        if not found:
            raise UnreadableError(f'video {path} cannot be read: replace it or use another')
        num_frames = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.num_frames = num_frames if num_frames > 0 else None
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or DEFAULT_FPS
        self.num_read = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        frame = self._first
        while frame is not None:
            self.num_read += 1
            yield frame
            frame = self._capture.read()[1]
        self._capture.release()

    def truncation(self) -> dict | None:
        """After the last frame: the record of a video with fewer frames than it declares; None if it is complete."""
        tolerance = 1 + 0.02 * (self.num_frames or 0) if self.path.suffix.lower() in ESTIMATED_SUFFIXES else 0
        if self.num_frames is None or self.num_frames - self.num_read <= tolerance:
            return None
        return {'video': str(self.path), 'frames_expected': self.num_frames, 'frames_read': self.num_read}


class FrameFolder:
    """A video as a folder of images, with consecutive frame numbers in their names; the interface of :class:`Video`.

    Args:
        path: The folder; the frame number is the first number in a file name.

    Raises:
        UserError: If a name has no number, or the numbers are not consecutive.
    """

    fps = DEFAULT_FPS

    def __init__(self, path: Path):
        self.path = path
        numbered = sorted((frame_number(file), file.name, file) for file in _images_in(path))
        self.files = [file for *_, file in numbered]
        self.num_frames = len(self.files)
        for (number, name, _), (following, other, _) in pairwise(numbered):
            if following != number + 1:
                raise UserError(
                    f'frames {name} and {other} of {path} have the numbers {number} and {following}: number the '
                    'frames of a video consecutively, one folder per video'
                )

    def __iter__(self) -> Iterator[np.ndarray]:
        for file in self.files:
            frame = images.read(file)
            if frame is None:
                raise UserError(f'frame {file} cannot be read: replace it')
            yield frame

    def truncation(self) -> None:
        """None: every frame is read, or refused."""


def _images_in(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]


def find_videos(source: str | Path | Sequence[str | Path], out_dir: str | Path | None = None) -> list[Path]:
    """Find videos; a folder with images is one video.

    Args:
        source: Video file, folder of frames, or folder of both; or a pattern or list of them, see
            :func:`mogacore.runtime.inputs.find_inputs`.
        out_dir: Folder of the results, which is excluded from the search.

    Raises:
        UserError: If there is no video, or a file is an image.
    """
    for path in map(Path, [source] if isinstance(source, (str, Path)) else source):
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
            raise UserError(
                f'input {path} is not a video ({", ".join(VIDEO_SUFFIXES)}): use one, the folder of its frames, or '
                'omit the input'
            )
    found = find_inputs(source, out_dir)
    return sorted({path if path.suffix.lower() in VIDEO_SUFFIXES else path.parent for path in found})


def warn_if_truncated(video: Video | FrameFolder, truncated: list[dict]) -> None:
    """Print a warning about a video with fewer frames than it declares, and append its record to ``truncated``."""
    record = video.truncation()
    if record is not None:
        truncated.append(record)
        expected, found = record['frames_expected'], record['frames_read']
        print(f'warning: video {readable(video.path)} has {expected} frames, but only {found} can be read')


@dataclass
class FrameSequence:
    """Consecutive frames of a video.

    Args:
        frames: (T, C, H, W) float32 in 0..1.
        name: Video and first frame.
        start: Index of the first frame among those at the step.
    """

    frames: np.ndarray
    name: str
    start: int


def cut_sequences(
    paths: list[Path],
    num_inputs: int,
    num_targets: int,
    size: tuple[int, int, int],
    step: int = 1,
    is_bgr: bool = False,
    at_end: Callable[[Video | FrameFolder], None] = lambda video: None,
) -> Iterator[FrameSequence]:
    """Cut videos into consecutive sequences of input and target frames.

    The last sequence of a video may lack some or all target frames.

    Args:
        paths: Video files, and folders of frames.
        num_inputs: Number of frames that the network sees.
        num_targets: Number of frames that it predicts.
        size: Channels, 1 (gray) or 3, height and width, to which frames are resized.
        step: Take every ``step``-th frame.
        is_bgr: Order of the three channels.
        at_end: Called with each video after its last frame, before its last sequence.

    Raises:
        UserError: If a video is invalid or too short.
    """
    num_frames = num_inputs + num_targets
    described = 'frames' if step == 1 else f'frames at a step of {step}'
    for path in paths:
        video = FrameFolder(path) if path.is_dir() else Video(path)
        frames = islice(video, 0, None, step)
        for start in count(step=num_frames):
            taken = [_resized(frame, *size, is_bgr) for frame in islice(frames, num_frames)]
            is_last = len(taken) < num_frames
            if is_last:
                at_end(video)
            if start == 0 and len(taken) < num_inputs:
                raise UserError(
                    f'video {path} has {len(taken)} {described}, but the network needs {num_inputs}: use a longer one'
                )
            if len(taken) < num_inputs:
                break
            yield FrameSequence(np.stack(taken), f'{path}, from frame {start * step}', start)
            if is_last:
                break


def frame_number(path: Path) -> int:
    """The first number in the file name of a frame, e.g. 12 for ``image-012_120x160.png``.

    Raises:
        UserError: If there is none.
    """
    digits = re.search(r'\d+', path.stem)
    if digits is None:
        raise UserError(f'frame {path} has no number in its name: put its index within the clip into the name')
    return int(digits[0])


def _resized(frame: np.ndarray, channels: int, height: int, width: int, is_bgr: bool) -> np.ndarray:
    """Convert a frame (H, W, 3) BGR to (channels, height, width) float32 0..1: gray, RGB, or BGR."""
    if channels == 1:
        frame = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)[..., None]
    elif not is_bgr:
        frame = frame[..., ::-1]
    frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width, channels)
    return frame.transpose(2, 0, 1).astype(np.float32) / 255


def create_video(path: Path, fps: float, size: tuple[int, int]) -> cv2.VideoWriter:
    """Open an MPEG-4 file, or a WebM file, which browsers play, for writing.

    In an MPEG-4 file, an odd width or height loses its last pixel.

    Raises:
        UserError: If the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # MPEG-4 stores the rate as a 16-bit fraction: above 65 fps, three decimals overflow it.
    codec = cv2.VideoWriter.fourcc(*('VP80' if path.suffix == '.webm' else 'mp4v'))
    with _utf8_name(path) as name:
        writer = cv2.VideoWriter(name, cv2.CAP_FFMPEG, codec, fps if fps < 65 else round(fps, 2), size)
    if not writer.isOpened():
        raise UserError(
            f'cannot write video {path} with {size[0]} x {size[1]} px at {fps} fps: choose another --out-dir'
        )
    return writer


@contextmanager
def _utf8_name(path: Path) -> Iterator[str]:
    """A name of a file to open that OpenCV accepts: if the path is not UTF-8, that of a temporary link to it."""
    try:
        yield os.fsencode(path).decode()
    except UnicodeDecodeError:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / f'video{path.suffix}'
            link.symlink_to(path.absolute())
            yield str(link)
