"""Predictions of many images and videos, written to a folder: ``predictions.json`` and drawings."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from mogacore.errors import UserError
from mogacore.files import readable, writable_folder, write_png, write_text

from .drawing.overview import draw_overview
from .inputs import VIDEO_SUFFIXES, Boxes, UnreadableError, output_names
from .tasks import Result, Task
from .videos import Video, create_video, warn_if_truncated

Source = str | Path | Sequence[str | Path]


class ImagePredictor(Protocol):
    """What predicts an image; both the PyTorch models and the exported files have one."""

    writer: Task
    ignore_orientation: bool

    def predict_one(self, image: Path | np.ndarray, boxes: np.ndarray | None) -> tuple[np.ndarray, Result]:
        """The image as RGB (H, W, 3) uint8, and its result.

        Args:
            image: File, or frame (H, W, 3) BGR uint8.
            boxes: Boxes of the objects, (N, 5), for pose estimation; None to treat the whole image as one object.

        Raises:
            UnreadableError: If the image is corrupt, too large, or cannot be resized.
        """


class Progress:
    """Shows no progress; :class:`rich.progress.Progress` has the same method."""

    def track(self, items: Iterable, total: float | None = None, description: str = '') -> Iterable:
        """The items."""
        return items


def find_boxes(
    boxes: str | Path | None,
    box_class: str | None,
    inputs: list[Path],
    takes_boxes: bool,
    check: Callable[[dict, list[dict], Path], None] | None = None,
) -> Boxes | None:
    """Boxes of the objects in the inputs from a file; None without one.

    See :class:`mogacore.runtime.inputs.Boxes` for ``check``.

    Raises:
        UserError: If the file is invalid, has no box for any input, or the model takes no boxes.
    """
    if boxes is None:
        if box_class is not None:
            raise UserError(f'--box-class {box_class} chooses from boxes: add --boxes, or omit it')
        return None
    if not takes_boxes:
        raise UserError(f'--boxes {boxes} is only for pose estimation: omit it')
    found = Boxes(boxes, box_class, check)
    found.check(inputs)
    return found


def write_predictions(
    predictor: ImagePredictor,
    source: Source,
    inputs: list[Path],
    out_dir: str | Path,
    header: dict[str, Any],
    boxes: Boxes | None = None,
    progress: Any = None,
) -> list[dict]:
    """Predict images and videos; write ``predictions.json``, the drawings and an overview.

    Args:
        predictor: The model.
        source: Images, videos, folders, patterns or lists of them.
        inputs: The files in ``source``, see :func:`mogacore.runtime.inputs.find_inputs`.
        out_dir: Output folder; created if missing.
        header: First fields of the JSON file.
        boxes: Boxes of the objects, for pose estimation.
        progress: Shows the progress; None for no display.

    Returns:
        One record per image or frame, as written to the JSON file.

    Raises:
        UserError: If no input can be read, or the only one is invalid.
    """
    out_dir = writable_folder(out_dir)
    progress = progress or Progress()
    is_one_file = isinstance(source, (str, Path)) and inputs == [Path(source)]
    records: list[dict] = []
    unreadable: list[str] = []
    truncated: list[dict] = []
    for path, name in progress.track(output_names(inputs, source).items(), description='predicting'):
        is_video = path.suffix.lower() in VIDEO_SUFFIXES
        try:
            if is_video:
                records += write_video(predictor, path, out_dir, name, boxes, progress, truncated)
            else:
                records.append(write_image(predictor, path, out_dir, name, boxes))
        except UnreadableError as error:
            if is_one_file:
                raise
            print(f'warning: {readable(str(error))}; skipped')
            unreadable.append(str(path))
    if not records:
        place = source if isinstance(source, (str, Path)) else ' '.join(map(str, source))
        raise UserError(f'none of the {len(inputs)} files in {place} can be read: use others')

    report = {**header, **predictor.writer.report(), 'predictions': records}
    if unreadable:
        report['unreadable'] = unreadable
    if truncated:
        report['truncated'] = truncated
    write_report(out_dir, report)
    of_images = [record for record in records if 'image' in record]
    if of_images:
        files = [out_dir / record['drawn'] if 'drawn' in record else Path(record['image']) for record in of_images]
        writer = predictor.writer
        titles = writer.titles(of_images)
        draw_overview(out_dir / 'predictions.png', files, titles, writer.cell_width, predictor.ignore_orientation)
    return records


def write_report(out_dir: str | Path, report: dict) -> None:
    """Write ``predictions.json`` with each list of numbers on one line."""
    text = re.sub(
        r'\[\n([\s\d.eE,+-]+)\]', lambda match: f'[{" ".join(match[1].split())}]', json.dumps(report, indent=2)
    )
    write_text(Path(out_dir) / 'predictions.json', text + '\n')


def write_image(predictor: ImagePredictor, path: Path, out_dir: Path, name: str, boxes: Boxes | None) -> dict:
    """Predict an image, draw it to ``drawn/<name>.png``, and return its record."""
    writer = predictor.writer
    image, result = predictor.predict_one(path, boxes.of(path) if boxes else None)
    record = {'image': str(path), **writer.describe(result), **writer.write(result, out_dir, name)}
    if writer.draws_images:
        record['drawn'] = f'drawn/{name}.png'
        write_png(out_dir / record['drawn'], writer.draw(image, result))
    return record


def write_video(
    predictor: ImagePredictor,
    path: Path,
    out_dir: Path,
    name: str,
    boxes: Boxes | None,
    progress: Any,
    truncated: list[dict],
) -> list[dict]:
    """Predict each frame of a video, draw them to ``<name>.mp4``, and return their records.

    A video with fewer frames than it declares is reported, and its record is appended to ``truncated``.
    """
    target = out_dir / f'{name}.mp4'
    if target.resolve() == path.resolve():
        raise UserError(f'the output video would overwrite {path}: choose another --out-dir')
    video = Video(path)
    writer, output = predictor.writer, None
    records: list[dict] = []
    try:
        for frame in progress.track(video, total=video.num_frames, description=readable(path.name)):
            index = len(records)
            image, result = predictor.predict_one(frame, boxes.of(path, index) if boxes else None)
            files = writer.write(result, out_dir, f'{name}/{index:06}')
            records.append({'video': str(path), 'frame': index, **writer.describe(result), **files})
            drawn = writer.draw(image, result)
            height = frame.shape[0]
            width = round(drawn.shape[1] * height / drawn.shape[0])  # wider than the frame if views are added to it
            if output is None:
                output = create_video(target, video.fps, (width, height))
            drawn = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA)
            output.write(drawn[..., ::-1])
    finally:
        if output is not None:
            output.release()
    warn_if_truncated(video, truncated)
    return records
