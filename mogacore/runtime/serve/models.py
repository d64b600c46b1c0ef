"""The models that a server offers: their batches and records."""

from __future__ import annotations

import base64
from functools import partial
from typing import Any

import cv2
import numpy as np

from mogacore.runtime.predictor import LoadedImage, Prediction, Predictor

from .batching import Batcher
from .metrics import Metrics
from .settings import Settings

Request = tuple[LoadedImage, np.ndarray | None]  # an image, and the boxes of its objects


class ServedModel:
    """A model with its own queue and worker thread.

    Args:
        name: Name in addresses.
        predictor: The model.
        settings: Limits of the queue and the batches.
        metrics: Receives sizes and times of batches.
    """

    def __init__(self, name: str, predictor: Predictor, settings: Settings, metrics: Metrics):
        self.name = name
        self.predictor = predictor
        # More images than a file computes at a time would only wait for each other.
        max_batch = min(settings.max_batch, predictor.batch_limit or settings.max_batch)
        self.batcher = Batcher(
            self.predict, max_batch, settings.max_delay_ms / 1000, settings.max_queue, name,
            partial(metrics.observe_batch, name),
        )  # fmt: skip
        metrics.waiting.labels(name).set_function(self.batcher.__len__)

    def predict(self, requests: list[Request]) -> list[dict]:
        """Records of a batch, see :func:`record_of`."""
        images, boxes = zip(*requests, strict=True)
        predictions = self.predictor.predict(images, list(boxes), batch_size=len(images))
        return [record_of(prediction) for prediction in predictions]


def record_of(prediction: Prediction) -> dict[str, Any]:
    """The record of a prediction; a class map is added as ``map``, a PNG file of labels in base64."""
    record = dict(prediction.record)
    if prediction.class_map is not None:
        labels = prediction.class_map.astype('uint8' if prediction.class_map.max() < 256 else 'uint16')
        record['map'] = base64.b64encode(cv2.imencode('.png', labels)[1].tobytes()).decode()
    return record
