"""From an image to the inputs of an exported file, and from its outputs to a result in pixels of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mogacore.errors import UserError

from .inputs import LARGEST_COORDINATE, UnreadableError
from .masks import paste_masks
from .preprocess import pad, prepare, resize, to_image, warp
from .tasks import Result, no_objects

GRAY = 114  # close to the mean of photos


@dataclass
class Crop:
    """An input of a file: an image, or the part of an image that shows one object.

    Args:
        pixels: (H, W, C) uint8.
        extras: Further inputs by name, the same for all crops of a batch.
        context: What :meth:`Decoder.decode` needs.
    """

    pixels: np.ndarray
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    context: tuple = ()


class Decoder:
    """Inputs and outputs of classification; base class of those of the other tasks.

    Args:
        metadata: Description of the file.
        inputs: Shape of each input by name, see :class:`mogacore.runtime.backends.Backend`.
    """

    is_batched = True  # whether outputs have the batch as first axis

    def __init__(self, metadata: dict, inputs: dict[str, tuple[int | None, ...]]):
        self.steps: list[dict] = metadata.get('preprocess') or []
        self.settings: dict = metadata.get('postprocess') or {}
        self.inputs = inputs
        height, width = inputs[metadata['input']['name']][2:]
        self.fixed = None if height is None or width is None else (height, width)

    def crops(self, pixels: np.ndarray, boxes: Sequence | None) -> list[Crop]:
        """Inputs for an image (H, W, C) uint8; ``boxes`` (N, 4) or (N, 5) are those of its objects."""
        prepared = prepare(pixels, self.steps)
        if self.fixed and prepared.shape[:2] != self.fixed:
            (height, width), wanted = prepared.shape[:2], self.fixed
            raise UnreadableError(
                f'an image of {width} x {height} px does not fit this model, which takes {wanted[1]} x {wanted[0]}: '
                'resize it, or export the model without --shape'
            )
        return [Crop(prepared)]

    def decode(self, crops: list[Crop], outputs: list[Result]) -> Result:
        """The result for an image from the outputs for its crops, without the batch axis."""
        return outputs[0]


class DetectionDecoder(Decoder):
    """Boxes, and masks of 28 x 28 probabilities that are pasted into the image."""

    is_batched = False

    def crops(self, pixels, boxes):
        height, width = pixels.shape[:2]
        prepared, scale_x, scale_y = pixels, 1.0, 1.0
        for step in self.steps:
            old_height, old_width = prepared.shape[:2]
            prepared = prepare(prepared, [step])
            if step['step'] == 'resize':  # padding does not scale
                scale_x, scale_y = scale_x * prepared.shape[1] / old_width, scale_y * prepared.shape[0] / old_height
        old_height, old_width = prepared.shape[:2]
        prepared, (shown_height, shown_width) = letter_box(prepared, self.fixed)
        scale_x, scale_y = scale_x * shown_width / old_width, scale_y * shown_height / old_height
        return [Crop(prepared, context=(height, width, scale_x, scale_y))]

    def decode(self, crops, outputs):
        (crop,), (found,) = crops, outputs
        height, width, scale_x, scale_y = crop.context
        boxes = found['boxes'] / np.array([scale_x, scale_y] * 2, np.float32)
        boxes = boxes.clip(0, np.array([width, height] * 2, np.float32))  # the file clips to the padded image
        result = {'boxes': boxes, 'scores': found['scores'], 'labels': found['labels']}
        if 'masks' in found:
            threshold = self.settings.get('mask_threshold', 0.5)
            result['masks'] = paste_masks(found['masks'], boxes, height, width, threshold)
        return result


class SegmentationDecoder(Decoder):
    """The class map at the size of the image: the file resizes its logits to its input ``output_size`` (h, w)."""

    def crops(self, pixels, boxes):
        height, width = pixels.shape[:2]
        prepared, (shown_height, shown_width) = letter_box(prepare(pixels, self.steps), self.fixed)
        # Of a padded image, the file resizes the padding, too.
        whole = round(height * prepared.shape[0] / shown_height), round(width * prepared.shape[1] / shown_width)
        return [Crop(prepared, {'output_size': np.array(whole, np.int64)}, context=(height, width))]

    def decode(self, crops, outputs):
        height, width = crops[0].context
        return {'class_map': outputs[0]['class_map'][:height, :width]}


def letter_box(image: np.ndarray, fixed: tuple[int, int] | None) -> tuple[np.ndarray, tuple[int, int]]:
    """Fit an image into the size that a file requires, with gray below or to the right.

    Args:
        image: (H, W, C) uint8.
        fixed: (h, w); None for a file of any size, which leaves the image as it is.

    Returns:
        The image, and height and width of the part of it that is not gray.
    """
    height, width = image.shape[:2]
    if fixed is None or (height, width) == fixed:
        return image, (height, width)
    scale = min(fixed[0] / height, fixed[1] / width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    image = resize(image, {'mode': 'exact', 'size': size})
    return pad(image, {'size': fixed, 'value': [GRAY] * image.shape[2]}), size


def check_boxes(boxes: Sequence | np.ndarray) -> np.ndarray:
    """Boxes of objects, (N, 4) float32, from boxes (N, 4) or (N, 5), of which the last column is a score.

    Raises:
        UserError: If they have another shape, or one is not x1 < x2, y1 < y2 in pixels of an image.
    """
    try:
        rows = np.asarray(boxes, np.float64)
    except (OverflowError, TypeError, ValueError):
        rows = np.zeros((1, 0))
    if rows.shape[:1] == (0,):
        rows = rows.reshape(0, 4)
    if rows.ndim == 2 and rows.shape[1] in (4, 5):
        rows = rows[:, :4].astype(np.float32)
        if (abs(rows) < LARGEST_COORDINATE).all() and (rows[:, 2:] > rows[:, :2]).all():
            return rows
    raise UserError('boxes are invalid: use [[x1, y1, x2, y2], ...] in pixels, x1 < x2 and y1 < y2')


class PoseDecoder(Decoder):
    """Keypoints of objects, each in a crop of its own."""

    def __init__(self, metadata, inputs):
        super().__init__(metadata, inputs)
        self.num_keypoints = len(metadata['keypoints']['names'])
        if not self.steps or self.steps[0]['step'] != 'warp':
            raise UserError('the pose model does not start with a crop of its object: export it again')

    def crops(self, pixels, boxes):
        found = []
        for box in check_boxes([[0, 0, pixels.shape[1], pixels.shape[0]]] if boxes is None else boxes):
            crop, center, size = warp(pixels, box, self.steps[0])
            found.append(Crop(prepare(crop, self.steps[1:]), context=(box, center, size)))
        return found

    def decode(self, crops, outputs):
        if not crops:
            return no_objects(self.num_keypoints)
        result = {name: np.stack([found[name] for found in outputs]) for name in outputs[0]}
        result['boxes'] = np.stack([crop.context[0] for crop in crops])
        for keypoints, crop in zip(result['keypoints'], crops, strict=True):
            keypoints[:, :2] = to_image(keypoints[:, :2], self.steps[0], *crop.context[1:])
        return result


DECODERS: dict[str, type[Decoder]] = {
    'classification': Decoder,
    'detection': DetectionDecoder,
    'segmentation': SegmentationDecoder,
    'pose': PoseDecoder,
    'hands': PoseDecoder,
}
