"""Predictions of many images and videos, written to a folder: ``predictions.json`` and drawings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from mogacore import machine
from mogacore.errors import UserError
from mogacore.files import PARTIAL_SUFFIX, readable, sha256, short_name, writable_folder, write_png

from .drawing.overview import chosen_images, draw_overview
from .features import FeatureFile
from .inputs import VIDEO_SUFFIXES, Boxes, UnreadableError, output_names
from .journal import Journal, Run, stamp
from .report import Records, write_report
from .tasks import Result, Task
from .tiles import TASKS
from .videos import Video, create_video, warn_if_truncated

Source = str | Path | Sequence[str | Path]


class ImagePredictor(Protocol):
    """What predicts an image; both the PyTorch models and the exported files have one."""

    writer: Task
    ignore_orientation: bool

    def predict_one(self, image: Path | np.ndarray, boxes: np.ndarray | None) -> tuple[np.ndarray, Result]:
        """The image as RGB (H, W, 3) uint8, and its result, which may have ``features`` (C,) of the whole image.

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


def boxes_settings(boxes: str | Path | None, box_class: str | None) -> dict[str, Any]:
    """What predictions depend on if they use boxes, see :class:`mogacore.runtime.journal.Run`."""
    return {'--boxes': boxes and sha256(boxes), '--box-class': box_class}


def check_resume(resume: bool) -> None:
    """Raise UserError if a run of a video predictor, which is short, is to be resumed."""
    if resume:
        raise UserError('--resume is for images and videos that are predicted frame by frame: omit it')


def write_predictions(
    predictor: ImagePredictor,
    source: Source,
    inputs: list[Path],
    out_dir: str | Path,
    header: dict[str, Any],
    boxes: Boxes | None = None,
    progress: Any = None,
    run: Run | None = None,
) -> Sequence[dict]:
    """Predict images and videos; write ``predictions.json``, the drawings and an overview.

    Until the end, the folder ``unfinished`` has the records, so that a run that was stopped can be resumed.

    Args:
        predictor: The model. A result may have ``features`` (C,); they are written to ``features.npy`` (records, C)
            float32, and the paths of the images to ``names`` of ``features.json``.
        source: Images, videos, folders, patterns or lists of them.
        inputs: The files in ``source``, see :func:`mogacore.runtime.inputs.find_inputs`.
        out_dir: Output folder; created if missing.
        header: First fields of the JSON file.
        boxes: Boxes of the objects, for pose estimation.
        progress: Shows the progress; None for no display.
        run: How the run is shared and resumed; None for a single process that starts from the beginning.

    Returns:
        One record per image or frame, as written to the JSON file, from which each is read when it is used. In another
        process than the first of a team, an empty list.

    Raises:
        UserError: If no input can be read, the only one is invalid, the folder has a stopped run that is not to be
            resumed or has other settings, or the disk is full.
    """
    out_dir, run = writable_folder(out_dir), run or Run()
    team, progress = run.team, progress or Progress()
    names = output_names(inputs, source)
    is_one_file = isinstance(source, (str, Path)) and inputs == [Path(source)]
    try:
        journal = Journal(out_dir, run)
        try:
            todo = [path for path in names if not journal.has(path, names[path])]
            if len(todo) < len(names) and team.rank == 0:
                print(f'resuming: {len(names) - len(todo)} of {len(names)} inputs are done')
            for path in progress.track(todo[team.rank :: team.size], description='predicting'):
                _predict_input(predictor, path, names[path], out_dir, boxes, journal, progress, is_one_file)
        finally:
            journal.close()
        team.wait()
        records = _finish(predictor, source, list(names), out_dir, header, journal) if team.rank == 0 else []
        team.wait()
    except Exception as error:
        failure = machine.explain(error)
        if failure is None:
            raise
        tiles = f', or predict parts with --tile ({", ".join(TASKS)})' if failure.what == machine.MEMORY[0] else ''
        raise UserError(f'{failure}{tiles}, then continue with --resume') from error
    return records


def _predict_input(
    predictor: ImagePredictor,
    path: Path,
    name: str,
    out_dir: Path,
    boxes: Boxes | None,
    journal: Journal,
    progress: Any,
    is_one_file: bool,
) -> None:
    """Predict an image or video, and add it to the journal; an unreadable one is skipped unless it is the only one."""
    before, number = stamp(path), 0
    truncated: list[dict] = []
    try:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            found = write_video(predictor, path, out_dir, name, boxes, progress, truncated)
        else:
            found = iter([write_image(predictor, path, out_dir, name, boxes)])
        for record, features in found:
            journal.add(record, features)
            number += 1
    except UnreadableError as error:
        if is_one_file:
            raise
        print(f'warning: {readable(str(error))}; skipped')
        number = 0
    journal.finish(path, name, before, number, next(iter(truncated), None))


def _finish(
    predictor: ImagePredictor, source: Source, inputs: list[Path], out_dir: Path, header: dict, journal: Journal
) -> Records:
    """Write the report and the overview from the journal, and remove it."""
    done = journal.done()
    entries = [done[str(path)] for path in inputs]
    if not any(entry.records for entry in entries):
        journal.remove()
        place = source if isinstance(source, (str, Path)) else ' '.join(map(str, source))
        raise UserError(f'none of the {len(inputs)} files in {place} can be read: use others')
    with FeatureFile(out_dir) as features:
        report = {**header, **predictor.writer.report(), 'predictions': features.collect(entries, journal)}
        if unreadable := [entry.input for entry in entries if not entry.records]:
            report['unreadable'] = unreadable
        if truncated := [entry.truncated for entry in entries if entry.truncated]:
            report['truncated'] = truncated
        records = write_report(out_dir, report)
    firsts = np.cumsum([0, *(entry.records for entry in entries)])
    is_image = [entry.records and Path(entry.input).suffix.lower() not in VIDEO_SUFFIXES for entry in entries]
    if any(is_image):
        _draw_overview(predictor, records.subset(firsts[:-1][np.array(is_image, bool)]), out_dir)
    journal.remove()
    return records


def _draw_overview(predictor: ImagePredictor, of_images: Records, out_dir: Path) -> None:
    writer, chosen = predictor.writer, chosen_images(len(of_images))
    shown = [of_images[number] for number in chosen]
    files = [out_dir / record['drawn'] if 'drawn' in record else Path(record['image']) for record in shown]
    titles = writer.titles(shown, of_images)
    draw_overview(out_dir / 'predictions.png', files, titles, writer.cell_width, predictor.ignore_orientation)


def write_image(
    predictor: ImagePredictor, path: Path, out_dir: Path, name: str, boxes: Boxes | None
) -> tuple[dict, np.ndarray | None]:
    """Predict an image, draw it to ``drawn/<name>.png``, and return its record and its features."""
    writer = predictor.writer
    image, result = predictor.predict_one(path, boxes.of(path) if boxes else None)
    features = result.pop('features', None)
    record = {'image': str(path), **writer.describe(result), **writer.write(result, out_dir, name)}
    if writer.draws_images:
        record['drawn'] = f'drawn/{name}.png'
        write_png(out_dir / record['drawn'], writer.draw(image, result))
    return record, features


def write_video(
    predictor: ImagePredictor,
    path: Path,
    out_dir: Path,
    name: str,
    boxes: Boxes | None,
    progress: Any,
    truncated: list[dict],
) -> Iterator[tuple[dict, np.ndarray | None]]:
    """Predict each frame of a video, draw them to ``<name>.mp4``, and yield their records and features.

    The video gets its name when it is complete. One with fewer frames than it declares is reported, and its record is
    appended to ``truncated``.
    """
    target = out_dir / f'{name}.mp4'
    if target.resolve() == path.resolve():
        raise UserError(f'the output video would overwrite {path}: choose another --out-dir')
    video = Video(path)
    writer, output = predictor.writer, None
    ending = f'{PARTIAL_SUFFIX}{target.suffix}'
    partial = target.with_name(f'{short_name(target.stem, ending)}{ending}')  # the suffix decides the format
    try:
        for index, frame in enumerate(progress.track(video, total=video.num_frames, description=readable(path.name))):
            image, result = predictor.predict_one(frame, boxes.of(path, index) if boxes else None)
            features = result.pop('features', None)
            files = writer.write(result, out_dir, f'{name}/{index:06}')
            yield {'video': str(path), 'frame': index, **writer.describe(result), **files}, features
            drawn = writer.draw(image, result)
            if output is None:  # other frames may have another size, which OpenCV would leave out
                height = frame.shape[0]
                size = round(drawn.shape[1] * height / drawn.shape[0]), height  # wider if views are added to the frame
                output = create_video(partial, video.fps, size)
            drawn = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
            output.write(drawn[..., ::-1])
        if output is not None:
            output.release()
            os.replace(partial, target)
    finally:
        if output is not None:
            output.release()
        partial.unlink(missing_ok=True)
    warn_if_truncated(video, truncated)
