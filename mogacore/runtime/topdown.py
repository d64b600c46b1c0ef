"""A detector and a pose model in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from mogacore.errors import UserError
from mogacore.kinds import checks_arguments

from .folders import ImagePredictor, Source, write_predictions
from .inputs import find_inputs
from .journal import Run
from .predictor import BOX_TASKS, Image, Prediction, Predictor, check_images, is_one_image
from .tasks import Result


class Model(ImagePredictor, Protocol):
    """What :class:`TopDown` needs of a model; that of a file and that of a config have it."""

    task: str
    classes: list[str] | None

    @property
    def reading(self) -> object:
        """How the model reads images; models with equal values take images that the other one has read."""

    def read(self, image: Path | np.ndarray) -> Any:
        """The image in memory, for :meth:`predict_read`. See ``predict_one`` for the argument and the errors."""

    def predict_read(self, image: Any, boxes: np.ndarray | None = None) -> tuple[np.ndarray, Result]:
        """``predict_one`` for an image that is read."""


class TopDown:
    """Keypoints of the objects that a detector finds.

    Args:
        detector: A model for detection, or its exported file.
        pose: A model for poses or hands, or its exported file. With one in PyTorch, as
            :class:`mogacore.inference.predictor.Predictor`, there is :meth:`predict_one` only.
        det_class: Class of the detector that is used; None for all.
        settings: Further arguments of :class:`Predictor` for files; tiles are for the detector.

    Raises:
        UserError: If a model is for another task, or the detector does not have the class.
    """

    @checks_arguments()
    def __init__(
        self,
        detector: Model | str | Path,
        pose: Model | str | Path,
        det_class: str | None = 'person',
        **settings: Any,
    ):
        self.detector: Any = Predictor(detector, **settings) if isinstance(detector, (str, Path)) else detector
        for_pose = {key: value for key, value in settings.items() if key not in ('tile', 'tile_overlap')}
        self.pose: Any = Predictor(pose, **for_pose) if isinstance(pose, (str, Path)) else pose
        if self.detector.task != 'detection':
            raise UserError(f'the detector is a model for {self.detector.task}: use one for detection')
        if self.pose.task not in BOX_TASKS:
            raise UserError(f'the pose model is one for {self.pose.task}: use one for pose or hands')
        if self.detector.ignore_orientation != self.pose.ignore_orientation:
            raise UserError(
                'one of the models loads images without their EXIF orientation: use the same color_type in both '
                'configs, and export both again if these are files'
            )
        names = self.detector.classes or []
        if det_class is not None and det_class not in names:
            raise UserError(
                f'the detector has no class {det_class!r}: choose from {", ".join(names)}, or no class for all'
            )
        self.label = None if det_class is None else names.index(det_class)
        self.det_class = det_class
        self.writer = self.pose.writer
        self.ignore_orientation = self.pose.ignore_orientation

    def __call__(self, image: Image | Sequence[Image]) -> Any:
        """Record of an image, or list of the records of several; see :meth:`Predictor.__call__`."""
        if is_one_image(image):
            return self.predict([image])[0].record
        return [prediction.record for prediction in self.predict(cast(Sequence[Image], image))]

    def predict(self, images: Iterable[Image], batch_size: int | None = None) -> list[Prediction]:
        """Predict the keypoints of all objects; see :meth:`Predictor.predict`."""
        given = check_images(images)
        loaded = [self.detector.load(image) for image in given]
        boxes = [self._find(image) for image in loaded]
        return self.pose.predict(loaded if self._shares_images() else given, boxes, batch_size)

    def _shares_images(self) -> bool:
        """Whether the pose model takes images that the detector has read."""
        return self.detector.reading == self.pose.reading

    def _find(self, image: Any) -> np.ndarray:
        """Boxes and scores (N, 5) of the objects of the class in an image that the detector has read, best first."""
        _, result = self.detector.predict_read(image)
        chosen = np.isin(result['labels'], result['labels'] if self.label is None else [self.label])
        boxes = np.column_stack([result['boxes'], result['scores']])[chosen]
        return boxes[(boxes[:, 2:4] > boxes[:, :2]).all(1)]

    def predict_one(self, image: Path | np.ndarray, boxes: np.ndarray | None = None) -> tuple[np.ndarray, Result]:
        """See :class:`mogacore.runtime.folders.ImagePredictor`; ``boxes`` is not used."""
        read = self.detector.read(image)
        boxes = self._find(read)
        return self.pose.predict_read(read if self._shares_images() else self.pose.read(image), boxes)

    @checks_arguments()
    def infer(self, source: Source, out_dir: str | Path, progress: Any = None, resume: bool = False) -> Sequence[dict]:
        """Predict images and videos, and write records and drawings; see :meth:`Predictor.infer`."""
        header = {'detector': str(self.detector.path), 'model': str(self.pose.path)}
        run = Run(self.settings(), resume)
        return write_predictions(
            self, source, find_inputs(source, out_dir), out_dir, header, progress=progress, run=run
        )

    def settings(self) -> dict[str, Any]:
        """What the predictions depend on besides the image, see :class:`mogacore.runtime.journal.Run`."""
        of_detector = {f'{name} of the detector': value for name, value in self.detector.settings().items()}
        return {**self.pose.settings(), **of_detector, '--box-class': self.det_class}
