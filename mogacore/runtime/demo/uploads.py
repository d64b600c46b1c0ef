"""What the demo page does with an upload: predict and draw an image, or the frames of a video."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from mogacore.errors import UserError
from mogacore.images import check_pixels
from mogacore.runtime.inputs import VIDEO_SUFFIXES, UnreadableError
from mogacore.runtime.predictor import Predictor
from mogacore.runtime.videos import Video, create_video

VIDEO_SIDE = 640  # pixels; encoding larger frames for a browser takes longer than predicting them


@dataclass
class Outcome:
    """The result for an upload.

    Args:
        records: One record per image or frame.
        time_ms: Mean time to predict one, without reading and drawing.
        drawn: The drawn image, (H, W, 3) uint8 RGB; None for a video.
        video: The drawn video; None for an image.
        is_cut: Whether the video has more frames than were predicted.
    """

    records: list[dict]
    time_ms: float
    drawn: np.ndarray | None = None
    video: Path | None = None
    is_cut: bool = False


def predict_upload(
    predictor: Predictor,
    path: Path,
    folder: Path,
    max_frames: int,
    on_frame: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Predict and draw an image or a video.

    Args:
        predictor: The model.
        path: Uploaded file.
        folder: Folder for the drawn video.
        max_frames: Largest number of frames of a video.
        on_frame: Called with the number of predicted frames and of all.

    Raises:
        UserError: If the file is neither an image nor a video, is corrupt or too large.
    """
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return _predict_video(predictor, path, folder, max_frames, on_frame)
    content = path.read_bytes()
    check_pixels(content)
    try:
        image = predictor.load(content)
    except UnreadableError:
        raise UserError(f'{path.name} cannot be read: use an image, or a video ({", ".join(VIDEO_SUFFIXES)})') from None
    start = time.perf_counter()
    (prediction,) = predictor.predict([image])
    time_ms = 1000 * (time.perf_counter() - start)
    return Outcome([{'image': path.name, **prediction.record}], time_ms, prediction.draw())


def _predict_video(
    predictor: Predictor, path: Path, folder: Path, max_frames: int, on_frame: Callable[[int, int], None]
) -> Outcome:
    try:
        video = Video(path)
    except UserError:
        raise UserError(f'video {path.name} cannot be read: use another one') from None
    target, writer = folder / f'{path.stem}.webm', None
    outcome, seconds = Outcome([], 0.0, video=target), 0.0
    frames = iter(video)
    try:
        for index, frame in enumerate(islice(frames, max_frames)):
            image = predictor.load(np.ascontiguousarray(frame[..., ::-1]))
            start = time.perf_counter()
            (prediction,) = predictor.predict([image])
            seconds += time.perf_counter() - start
            outcome.records.append({'video': path.name, 'frame': index, **prediction.record})
            drawn = prediction.draw()
            if writer is None:
                scale = min(1, VIDEO_SIDE / max(drawn.shape[:2]))
                size = round(drawn.shape[1] * scale), round(drawn.shape[0] * scale)
                writer = create_video(target, video.fps, size)
            writer.write(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)[..., ::-1])
            on_frame(index + 1, min(max_frames, video.num_frames or max_frames))
        outcome.is_cut = next(frames, None) is not None
    finally:
        if writer is not None:
            writer.release()
    outcome.time_ms = 1000 * seconds / len(outcome.records)
    return outcome
