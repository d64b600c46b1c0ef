"""Predictions with an exported file: JSON records and drawings, without torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, TypeGuard, cast

import cv2
import numpy as np
from PIL import Image as PillowImage
from PIL import ImageOps

from mogacore import images as image_files
from mogacore.errors import UserError, refuse_unused
from mogacore.files import read_file, sha256
from mogacore.kinds import checks_arguments

from .backends import open_backend
from .batches import BATCH_SIZE, run_batches
from .decode import DECODERS, Crop
from .drawing.canvas import to_rgb
from .folders import Source, boxes_settings, check_resume, find_boxes, write_predictions
from .inputs import UnreadableError, find_inputs
from .journal import Run
from .sequences import write_sequences
from .tasks import SCORE_THR, TASKS, Result, Task
from .tiles import OVERLAP, check_tile, make_tiles, merge

VIDEO = 'video_prediction'
BOX_TASKS = ('pose', 'hands')


@dataclass(frozen=True)
class LoadedImage:
    """An image in memory, for the predictor that loaded it.

    Args:
        shown: The image as RGB, (H, W, 3) uint8.
        pixels: The image as the model takes it, (H, W, C).
        path: Its file; None if it was not given as one.
    """

    shown: np.ndarray
    pixels: np.ndarray
    path: Path | None = None


Content = bytes | bytearray | memoryview
Image = str | os.PathLike | Content | np.ndarray | PillowImage.Image | LoadedImage
IMAGES = 'a path, an RGB array (height, width, 3) of uint8, a Pillow image, or the content of an image file'


@dataclass
class Prediction:
    """The prediction for an image.

    Args:
        task: Describes and draws it.
        image: The image, (H, W, 3) uint8 RGB.
        result: Arrays in pixels of the image; see the classes in :mod:`mogacore.runtime.tasks`.
        path: File of the image; None if it was not given as one.
    """

    task: Task
    image: np.ndarray
    result: Result
    path: Path | None = None

    @cached_property
    def record(self) -> dict:
        """The record that ``mogacore infer`` writes to its JSON file, without names of drawings."""
        source = {} if self.path is None else {'image': str(self.path)}
        return {**source, **self.task.describe(self.result)}

    @property
    def class_map(self) -> np.ndarray | None:
        """Of a segmentation model: the class of each pixel, (H, W)."""
        return self.result.get('class_map')

    @property
    def masks(self) -> np.ndarray | None:
        """Of an instance segmentation model: (N, H, W) bool, in the order of the record's instances."""
        return self.result.get('masks')

    def draw(self) -> np.ndarray:
        """The drawing that ``mogacore infer`` writes, (H, W, 3) uint8 RGB; a small image is enlarged."""
        return self.task.draw(self.image, self.result)


class Predictor:
    """A model exported by ``mogacore export``.

    Several threads may share one.

    Args:
        path: ``.onnx``, or ``.xml`` with its ``.bin`` file in the same folder.
        backend: 'onnxruntime' or 'openvino'; 'auto' takes the first that is installed and reads the file.
        device: 'cpu', or with onnxruntime 'cuda', 'tensorrt' or 'coreml'.
        threads: Number of CPU threads; None for the default of the backend.
        score_thr: Minimum score of reported instances and of drawn keypoints, for models that have such a threshold.
        tile: Default of ``tile`` of :meth:`predict`, also for :meth:`infer`.
        tile_overlap: Smallest overlap of neighboring tiles, as a fraction of a tile.
        precision: 'fp32', or with openvino 'bf16', see :func:`mogacore.runtime.backends.open_backend`.

    Attributes:
        metadata: Description of the file: task, classes, preparation of images, versions, ...
        task: 'classification', 'detection', 'segmentation', 'pose', 'hands' or 'video_prediction'.
        classes: Names of the classes; None if the model has none.
        is_gray: Whether the model takes gray images.
        ignore_orientation: Whether images are loaded as they are stored, without their EXIF orientation.

    Raises:
        UserError: If the file cannot be used.
    """

    @checks_arguments(besides=['path'])
    def __init__(
        self,
        path: str | Path,
        backend: str = 'auto',
        device: str = 'cpu',
        threads: int | None = None,
        score_thr: float = SCORE_THR,
        tile: int | None = None,
        precision: str = 'fp32',
        tile_overlap: float = OVERLAP,
    ):
        if not 0 <= score_thr <= 1:
            raise UserError(f'score_thr {score_thr} is out of range: use 0 to 1')
        self.backend = open_backend(path, backend, device, threads, precision)
        self.metadata: dict[str, Any] = self.backend.metadata
        self.task: str = self.metadata['task']
        if self.metadata.get('raw'):
            raise UserError(f'{path} was exported with --raw, without post-processing: export it without')
        if self.task not in (*DECODERS, VIDEO):
            raise UserError(f'{path} is a model for {self.task}, which has no predictor: use {", ".join(DECODERS)}')
        self.classes: list[str] | None = self.metadata.get('classes')
        if self.task in BOX_TASKS and not (self.metadata.get('keypoints') or {}).get('names'):
            raise UserError(f'the description in {path} lacks the names of the keypoints: export the model again')
        check_tile(tile, tile_overlap, self.task)
        self.path, self.tile, self.tile_overlap = Path(path), tile, tile_overlap
        if self.task != VIDEO:
            self.writer = TASKS[self.task](self.metadata, score_thr)
            self._decoder = DECODERS[self.task](self.metadata, self.backend.inputs)
        self.is_gray: bool = self.metadata['input']['channels'] == 'gray'
        self.ignore_orientation: bool = self.metadata['input'].get('ignore_orientation', False)

    @property
    def has_threshold(self) -> bool:
        """Whether ``score_thr`` has an effect."""
        return self.task != VIDEO and self.writer.has_threshold

    @property
    def batch_limit(self) -> int | None:
        """Largest number of images that the file computes at a time; None for any."""
        return self.backend.inputs[self.metadata['input']['name']][0]

    def __call__(self, image: Image | Sequence[Image], boxes=None) -> Any:
        """Record of an image, or list of the records of several.

        Args:
            image: Path, RGB array (H, W, 3) uint8, Pillow image, or content of an image file; or a list of these.
            boxes: Boxes of the objects for pose estimation, (N, 4) or (N, 5); of several images, a list of these. None
                treats each whole image as one object.

        Raises:
            UserError: If an image cannot be read.
        """
        if is_one_image(image):
            return self.predict([image], None if boxes is None else [boxes])[0].record
        return [prediction.record for prediction in self.predict(cast(Sequence[Image], image), boxes)]

    @checks_arguments(besides=['images'])
    def predict(
        self,
        images: Iterable[Image],
        boxes: Sequence | None = None,
        batch_size: int | None = None,
        tile: int | None = None,
    ) -> list[Prediction]:
        """Predict images.

        Args:
            images: Paths, RGB arrays (H, W, 3) uint8, Pillow images, contents of image files, or outputs of
                :meth:`load`.
            boxes: For pose estimation: boxes of the objects of each image, (N, 4) or (N, 5); None treats each whole
                image as one object.
            batch_size: Largest number of inputs that are computed together; None for ``BATCH_SIZE``.
            tile: For detection and segmentation of large images: side in pixels of the overlapping tiles that are
                predicted separately; None for that of the predictor, without which whole images are predicted.

        Raises:
            UserError: If an image cannot be read, a setting is out of range, or the model takes no boxes.
        """
        self._require_images()
        tile = self.tile if tile is None else tile
        check_tile(tile, self.tile_overlap, self.task)
        if batch_size is not None and batch_size < 1:
            raise UserError(f'batch_size is {batch_size}: use 1 or more')
        loaded = [self.load(image) for image in check_images(images)]
        if boxes is None:
            boxes = [None] * len(loaded)
        if len(boxes) != len(loaded):
            raise UserError(f'there are boxes for {len(boxes)} images, but {len(loaded)} images: give a list per image')
        if self.task not in BOX_TASKS and any(rows is not None for rows in boxes):
            raise UserError(f'boxes are only for pose estimation, but the model is for {self.task}: omit them')
        tiles = [make_tiles(image.pixels, tile, self.tile_overlap) for image in loaded]
        crops = [
            self._crops(image, tile.of(image.pixels), rows)
            for image, parts, rows in zip(loaded, tiles, boxes, strict=True)
            for tile in parts
        ]
        every = list(chain.from_iterable(crops))
        outputs = iter(run_batches(self.backend, self._decoder, self.metadata, every, batch_size or BATCH_SIZE))
        results = iter([self.writer.select(self._decoder.decode(own, [next(outputs) for _ in own])) for own in crops])
        predictions = []
        for image, parts in zip(loaded, tiles, strict=True):
            found = [next(results) for _ in parts]
            merged = self.writer.select(merge(parts, found)) if len(parts) > 1 else found[0]
            predictions.append(Prediction(self.writer, image.shown, merged, image.path))
        return predictions

    def _crops(self, image: LoadedImage, pixels: np.ndarray, boxes: Any) -> list[Crop]:
        try:
            return self._decoder.crops(pixels, boxes)
        except UnreadableError as error:
            raise UnreadableError(f'image {image.path}: {error}' if image.path else str(error)) from None

    def predict_one(self, image: Path | np.ndarray, boxes: np.ndarray | None = None) -> tuple[np.ndarray, Result]:
        """See :class:`mogacore.runtime.folders.ImagePredictor`."""
        return self.predict_read(self.read(image), boxes)

    @property
    def reading(self) -> object:
        """See :class:`mogacore.runtime.topdown.Model`."""
        return self.is_gray, self.ignore_orientation

    def read(self, image: Path | np.ndarray) -> LoadedImage:
        """See :class:`mogacore.runtime.topdown.Model`."""
        return self.load(image if isinstance(image, Path) else image[..., ::-1])

    def predict_read(self, image: LoadedImage, boxes: np.ndarray | None = None) -> tuple[np.ndarray, Result]:
        """See :class:`mogacore.runtime.topdown.Model`."""
        (found,) = self.predict([image], [boxes])
        return found.image, found.result

    @checks_arguments()
    def infer(
        self,
        source: Source,
        out_dir: str | Path,
        boxes: str | Path | None = None,
        box_class: str | None = None,
        num_sequences: int | None = None,
        progress: Any = None,
        resume: bool = False,
    ) -> Sequence[dict]:
        """Predict images and videos; write what ``mogacore infer`` writes: ``predictions.json`` and drawings.

        Args:
            source: Images, videos, folders, patterns or lists of them, see
                :func:`mogacore.runtime.inputs.find_inputs`. For a video predictor, videos and folders of the numbered
                frames of one.
            out_dir: Output folder; created if missing.
            boxes: File for :class:`mogacore.runtime.inputs.Boxes`, for pose estimation; None to treat each whole image
                as one object.
            box_class: Only use boxes of this class.
            num_sequences: Maximum number of predicted sequences, for a video predictor; None for ``NUM_SEQUENCES``.
            progress: An object with the method ``track`` of :class:`rich.progress.Progress`; None for no display.
            resume: Continue a run in the folder that was stopped; without one, start.

        Returns:
            One record per image, frame or sequence, as written to the JSON file.

        Raises:
            UserError: If an input is missing, invalid, or does not match the model, a setting has no effect on it, or
                the folder has a run that was stopped and is not to be resumed.
        """
        header = {'model': str(self.path), 'config': self.metadata.get('config')}
        if self.task != VIDEO:
            refuse_unused({'--num-sequences': num_sequences}, f'on a model for {self.task}')
        inputs = [] if self.task == VIDEO else find_inputs(source, out_dir)
        found = find_boxes(boxes, box_class, inputs, self.task in BOX_TASKS)
        if self.task == VIDEO:
            check_resume(resume)
            _, num_inputs, channels, *_ = next(iter(self.backend.inputs.values()))
            shape = num_inputs, channels, *self.metadata['input']['size'][-2:]
            num_targets = self.backend.outputs['frames'][1] or num_inputs or 1
            settings = self.metadata.get('postprocess') or {}
            return write_sequences(
                self.predict_frames, settings, shape, num_targets, source, out_dir, header, num_sequences
            )
        run = Run({**self.settings(), **boxes_settings(boxes, box_class)}, resume)
        return write_predictions(self, source, inputs, out_dir, header, found, progress, run)

    def settings(self) -> dict[str, Any]:
        """What the predictions depend on besides the image, see :class:`mogacore.runtime.journal.Run`."""
        return {
            'model': sha256(self.path),
            '--score-thr': self.writer.score_thr,
            '--tile': self.tile,
            '--tile-overlap': self.tile_overlap,
        }

    def predict_frames(self, frames: np.ndarray) -> np.ndarray:
        """Predict the next frames of videos.

        Args:
            frames: (B, T, C, H, W) float32 in the range of the training data.

        Returns:
            (B, T', C, H, W) in the same range.

        Raises:
            UserError: If the model does not predict frames, or the frames have another shape.
        """
        if self.task != VIDEO:
            raise UserError(f'the model is for {self.task}: use predict')
        name, shape = next(iter(self.backend.inputs.items()))
        frames = np.asarray(frames, np.float32)
        if frames.ndim != 5 or any(size not in (None, own) for own, size in zip(frames.shape, shape, strict=True)):
            wanted = ' x '.join('any' if size is None else str(size) for size in shape)
            raise UserError(f'the frames have the shape {frames.shape}, but the model takes {wanted}')
        return self.backend.run({name: frames})['frames']

    def _require_images(self) -> None:
        if self.task == VIDEO:
            raise UserError('the model predicts frames of videos, not images: use predict_frames or infer')

    def load(self, image: Image) -> LoadedImage:
        """Read and decode an image for :meth:`predict`, which does so itself for images that are not loaded.

        Raises:
            UserError: If it cannot be read.
        """
        if isinstance(image, LoadedImage):
            return image
        if isinstance(image, PillowImage.Image):
            image = self._from_pillow(image)
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise UserError(
                    f'the image is an array of {image.dtype} {image.shape}: use RGB images of uint8, (height, width, 3)'
                )
            return LoadedImage(image, self._to_input(image))
        if isinstance(image, Content):
            return self._decode(bytes(image), 'image')
        if not isinstance(image, (str, os.PathLike)):
            raise UserError(f'the image is of type {type(image).__name__}: give {IMAGES}')
        path = Path(image)
        try:
            content = read_file(path)
        except FileNotFoundError:
            raise UnreadableError(f'image {path} not found: check the path') from None
        except (OSError, ValueError) as error:  # the latter for a path with a zero byte
            reason = getattr(error, 'strerror', None) or error
            raise UnreadableError(f'image {path} cannot be read ({reason}): use another') from None
        return self._decode(content, f'image {path}', path)

    def _decode(self, content: bytes, name: str, path: Path | None = None) -> LoadedImage:
        try:
            decoded = image_files.decode(content, self.ignore_orientation, self.is_gray)
        except UserError as error:
            raise UnreadableError(str(error).replace('image', name, 1)) from None
        if decoded is None:
            raise UnreadableError(f'{name} cannot be read: replace it or use another')
        shown = to_rgb(decoded)
        return LoadedImage(shown, decoded[..., None] if self.is_gray else shown, path)

    def _from_pillow(self, image: PillowImage.Image) -> np.ndarray:
        """An image as RGB (H, W, 3) uint8, turned as its EXIF orientation says, as :meth:`_decode` does."""
        image_files.check_size(*image.size)
        try:
            return image_files.from_pillow(image if self.ignore_orientation else ImageOps.exif_transpose(image))
        except UserError:
            raise
        except (OSError, SyntaxError, ValueError) as error:  # Pillow reads files when it needs their pixels
            raise UnreadableError(f'the Pillow image cannot be read ({error}): replace it or use another') from None

    def _to_input(self, image: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] if self.is_gray else image


def is_one_image(image: object) -> TypeGuard[Image]:
    """Whether an argument is one image and not several; what is neither is reported as one."""
    if isinstance(image, np.ndarray):
        return image.ndim != 4
    return isinstance(image, Image) or not isinstance(image, Iterable)


def check_images(images: Iterable[Image]) -> list[Image]:
    """The images as a list.

    Raises:
        UserError: If it is a single image.
    """
    if is_one_image(images):
        raise UserError(f'predict takes a list of images, but got one object of type {type(images).__name__}')
    return list(images)
