"""Predictions with an exported file: JSON records and drawings, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mogacore import images as image_files
from mogacore.errors import UserError

from .backends import open_backend
from .batches import run_batches
from .decode import DECODERS
from .drawing.canvas import to_rgb
from .inputs import UnreadableError
from .tasks import TASKS, Result, Task

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


Image = str | Path | bytes | np.ndarray | LoadedImage


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
        score_thr: Minimum score of reported instances and of drawn keypoints.

    Attributes:
        metadata: Description of the file: task, classes, preparation of images, versions, ...
        task: 'classification', 'detection', 'segmentation', 'pose' or 'hands'.
        classes: Names of the classes; None if the model has none.

    Raises:
        UserError: If the file cannot be used.
    """

    def __init__(
        self,
        path: str | Path,
        backend: str = 'auto',
        device: str = 'cpu',
        threads: int | None = None,
        score_thr: float = 0.3,
    ):
        if not 0 <= score_thr <= 1:
            raise UserError(f'score_thr {score_thr} is out of range: use 0 to 1')
        self.backend = open_backend(path, backend, device, threads)
        self.metadata: dict[str, Any] = self.backend.metadata
        self.task: str = self.metadata['task']
        if self.metadata.get('raw'):
            raise UserError(f'{path} was exported with --raw, without post-processing: export it without')
        if self.task not in DECODERS:
            raise UserError(f'{path} is a model for {self.task}, which has no predictor: use {", ".join(DECODERS)}')
        self.writer = TASKS[self.task](self.metadata, score_thr)
        self.classes = self.writer.classes
        self._decoder = DECODERS[self.task](self.metadata, self.backend.inputs)
        self._is_gray = self.metadata['input']['channels'] == 'gray'
        self.ignore_orientation: bool = self.metadata['input'].get('ignore_orientation', False)

    def __call__(self, image: Image | Sequence[Image], boxes=None) -> Any:
        """Record of an image, or list of the records of several.

        Args:
            image: Path, RGB array (H, W, 3) uint8, or content of an image file; or a list of these.
            boxes: Boxes of the objects for pose estimation, (N, 4) or (N, 5); of several images, a list of these. None
                treats each whole image as one object.

        Raises:
            UserError: If an image cannot be read.
        """
        if isinstance(image, Image):
            return self.predict([image], None if boxes is None else [boxes])[0].record
        return [prediction.record for prediction in self.predict(image, boxes)]

    def predict(
        self,
        images: Iterable[Image],
        boxes: Sequence | None = None,
        batch_size: int | None = None,
        tile: int | None = None,
    ) -> list[Prediction]:
        """Predict images.

        Args:
            images: Paths, RGB arrays (H, W, 3) uint8, contents of image files, or outputs of :meth:`load`.
            boxes: For pose estimation: boxes of the objects of each image, (N, 4) or (N, 5); None treats each whole
                image as one object.
            batch_size: Largest number of inputs that are computed together; None for 8.
            tile: Not supported yet.

        Raises:
            UserError: If an image cannot be read.
        """
        images = list(images)
        if boxes is None:
            boxes = [None] * len(images)
        if len(boxes) != len(images):
            raise UserError(f'there are boxes for {len(boxes)} images, but {len(images)} images: give a list per image')
        loaded = [self.load(image) for image in images]
        crops = [
            self._decoder.crops(image.pixels, None if rows is None else np.asarray(rows, np.float32).reshape(len(rows), -1))
            for image, rows in zip(loaded, boxes, strict=True)
        ]
        outputs = iter(
            run_batches(self.backend, self._decoder, self.metadata, list(chain.from_iterable(crops)), batch_size or 8)
        )
        predictions = []
        for image, own in zip(loaded, crops, strict=True):
            result = self._decoder.decode(own, [next(outputs) for _ in own])
            predictions.append(Prediction(self.writer, image.shown, self.writer.select(result), image.path))
        return predictions

    def load(self, image: Image) -> LoadedImage:
        """Read and decode an image for :meth:`predict`, which does so itself for images that are not loaded.

        Raises:
            UserError: If it cannot be read.
        """
        if isinstance(image, LoadedImage):
            return image
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise UserError(
                    f'the image is an array of {image.dtype} {image.shape}: use RGB images of uint8, (height, width, 3)'
                )
            return LoadedImage(image, self._to_input(image))
        path = None if isinstance(image, bytes) else Path(image)
        name = 'image' if path is None else f'image {path}'
        try:
            content = image if isinstance(image, bytes) else Path(image).read_bytes()
            image_files.check_pixels(content)
        except OSError:
            raise UnreadableError(f'{name} cannot be read: replace it or use another') from None
        except UserError as error:
            raise UnreadableError(str(error).replace('image', name, 1)) from None
        decoded = image_files.decode(content, self.ignore_orientation, self._is_gray)
        if decoded is None:
            raise UnreadableError(f'{name} cannot be read: replace it or use another')
        shown = to_rgb(decoded)
        return LoadedImage(shown, decoded[..., None] if self._is_gray else shown, path)

    def _to_input(self, image: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] if self._is_gray else image
