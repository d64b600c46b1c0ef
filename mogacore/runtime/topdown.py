"""A detector and a pose model in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from mogacore.errors import UserError

from .folders import ImagePredictor, Source, write_predictions
from .inputs import find_inputs
from .journal import Run
from .predictor import Image, Prediction, Predictor, check_images, is_one_image
from .tasks import Result


class Model(ImagePredictor, Protocol):
    """What :class:`TopDown` needs of a model; that of a file and that of a config have it."""

    task: str
    classes: list[str] | None


class TopDown:
    """Keypoints of the objects that a detector finds.

    Args:
        detector: A model for detection, or its exported file. A model in PyTorch, as
            :class:`mogacore.inference.predictor.Predictor`, has :meth:`predict_one` only.
        pose: A model for poses or hands, or its exported file.
        det_class: Class of the detector that is used; None for all.
        settings: Further arguments of :class:`Predictor` for files.

    Raises:
        UserError: If a model is for another task, or the detector does not have the class.
    """

    def __init__(
        self,
        detector: Model | str | Path,
        pose: Model | str | Path,
        det_class: str | None = 'person',
        **settings: Any,
    ):
        self.detector: Any = Predictor(detector, **settings) if isinstance(detector, (str, Path)) else detector
        self.pose: Any = Predictor(pose, **settings) if isinstance(pose, (str, Path)) else pose
        if self.detector.task != 'detection':
            raise UserError(f'the detector is a model for {self.detector.task}: use one for detection')
        if self.pose.task not in ('pose', 'hands'):
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
        boxes = [self._boxes(self.detector.predict([image], tile=self.detector.tile)[0].result) for image in loaded]
        is_shared = self.detector.is_gray == self.pose.is_gray
        return self.pose.predict(loaded if is_shared else given, boxes, batch_size)

    def _boxes(self, result: Result) -> np.ndarray:
        """Boxes and scores (N, 5) of the detected objects of the class, best first."""
        chosen = np.isin(result['labels'], result['labels'] if self.label is None else [self.label])
        boxes = np.column_stack([result['boxes'], result['scores']])[chosen]
        return boxes[(boxes[:, 2:4] > boxes[:, :2]).all(1)]

    def predict_one(self, image: Path | np.ndarray, boxes: np.ndarray | None = None) -> tuple[np.ndarray, Result]:
        """See :class:`mogacore.runtime.folders.ImagePredictor`; ``boxes`` is not used."""
        if isinstance(self.detector, Predictor) and isinstance(self.pose, Predictor):
            (found,) = self.predict([image if isinstance(image, Path) else image[..., ::-1]])
            return found.image, found.result
        return self.pose.predict_one(image, self._boxes(self.detector.predict_one(image, None)[1]))

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
