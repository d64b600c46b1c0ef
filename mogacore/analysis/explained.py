"""What an activation map explains: the prediction of a network for an image, reduced to one number.

The number is the logit of a class, of a detected box, of the pixels of a class, or of keypoints.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mogacore.errors import UserError

MATCHING_IOU = 0.5  # at this IoU, a detection in a changed image counts as the explained one


class Explained(nn.Module):
    """A network that returns one number per image: the score of the explained target.

    Args:
        network: The network, in eval mode.
        inputs: The image as the network takes it, (1, C, H, W).
        image: The same image for display, (H, W, 3) uint8 RGB.
        names: Names of the possible targets; None if they have only numbers.
    """

    what = 'class'

    def __init__(self, network: nn.Module, inputs: Tensor, image: np.ndarray, names: Sequence[str] | None):
        super().__init__()
        self.network, self.inputs, self.image = network, inputs, image
        self.names = list(names) if names else None
        self.target: int | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B, 1) of images (B, C, H, W)."""
        if torch.is_grad_enabled() and not images.requires_grad:
            images.requires_grad_()  # otherwise the maps of frozen stages get no gradient
        return self.score(images)[:, None]

    def score(self, images: Tensor) -> Tensor:
        """Scores (B,)."""
        raise NotImplementedError

    def choose(self, target: str | None) -> None:
        """Choose the target.

        Args:
            target: Name or number; None is the prediction of the network.

        Raises:
            UserError: If the target is unknown, or the network does not find it in this image.
        """
        self.target = None if target is None else self._number(target)

    def _number(self, target: str) -> int:
        if self.names and target in self.names:
            return self.names.index(target)
        if not target.isdecimal() or (self.names and int(target) >= len(self.names)):
            known = ', '.join(self.names[:20]) if self.names else 'numbers from 0'
            raise UserError(f'{self.what} {target!r} is unknown: choose from {known}')
        return int(target)

    def target_name(self) -> str:
        """Name of the chosen target, or its number if it has no name."""
        return str(self.target) if self.target is None or not self.names else self.names[self.target]

    def box(self) -> np.ndarray | None:
        """Box of the target, (x1, y1, x2, y2) in pixels of the network's input; None if it has no box."""
        return None


class ExplainedClass(Explained):
    """The logit of a class; by default the most probable class."""

    def __init__(self, *args, logits: Callable[[Tensor], Tensor]):
        super().__init__(*args)
        self.logits = logits

    def choose(self, target):
        super().choose(target)
        with torch.no_grad():
            logits = self.logits(self.inputs)[0]
        if self.target is None:
            self.target = int(logits.argmax())
        elif self.target >= len(logits):
            raise UserError(f'class {target} is out of range: choose from 0 to {len(logits) - 1}')

    def score(self, images):
        return self.logits(images)[:, self.target]


class ExplainedPixels(Explained):
    """The mean logit of an mmseg class over the pixels predicted as that class.

    The default is the class with the most pixels, other than one named ``background``.
    """

    def choose(self, target):
        super().choose(target)
        with torch.no_grad():
            labels = self.network(self.inputs, mode='tensor')[0].argmax(0)
        if self.target is None:
            counts = labels.flatten().bincount(minlength=len(self.names or ()))
            if self.names and 'background' in self.names and (counts > 0).sum() > 1:
                counts[self.names.index('background')] = 0
            self.target = int(counts.argmax())
        self.mask = labels == self.target
        if not self.mask.any():
            raise UserError(f'the network finds no {self.target_name()} in this image: choose another target')

    def score(self, images):
        return self.network(images, mode='tensor')[:, self.target, self.mask].mean(1)


class ExplainedBox(Explained):
    """The log-odds of an mmdet detection: the best one of the chosen class, by default of all classes."""

    def __init__(self, *args, samples: list):
        super().__init__(*args)
        self.samples = samples

    def detections(self, images: Tensor) -> list:
        """Predicted instances of each image, in pixels of the network's input."""
        detector: Any = self.network  # mmdet has no type annotations
        samples = [copy.deepcopy(self.samples[0]) for _ in images]
        return [sample.pred_instances for sample in detector.predict(images, samples, rescale=False)]

    def choose(self, target):
        super().choose(target)
        with torch.no_grad():
            (found,) = self.detections(self.inputs)
        if self.target is not None:
            found = found[found.labels == self.target]
        if not len(found):
            wanted = 'nothing' if self.target is None else f'no {self.target_name()}'
            raise UserError(f'the network finds {wanted} in this image: choose another target or image')
        best = found[found.scores.argmax().item()]
        self.target, self._box, self._score = best.labels.item(), best.bboxes.detach(), best.scores.item()

    def score(self, images):
        from torchvision.ops import box_iou

        scores = []
        for found in self.detections(images):
            matches = (found.labels == self.target) & (box_iou(found.bboxes.detach(), self._box)[:, 0] >= MATCHING_IOU)
            # With too much of the image hidden the detection is lost: its probability is then close to 0.
            best = found.scores[matches].max() if matches.any() else found.scores.new_tensor(0.0)
            scores.append(best.clamp(1e-6, 1 - 1e-6).logit())
        return torch.stack(scores)

    def box(self):
        return self._box[0].cpu().numpy()


class ExplainedAnchor(ExplainedBox):
    """A detection of a one-stage detector: the class logit of the anchor it comes from.

    mmdet stops gradients before it merges the boxes of the levels, so the logit is read from the head.
    """

    def choose(self, target):
        super().choose(target)
        with torch.no_grad():
            logits = self.class_logits(self.inputs)
        distances = [(level.sigmoid() - self._score).abs() for level in logits]
        self.level = min(range(len(logits)), key=lambda level: distances[level].min())
        closest = distances[self.level]
        if closest.min() > 1e-4:
            raise UserError(
                'the scores of this detector are not plain class logits: choose RetinaNet or a two-stage detector'
            )
        _, *self.place = (int(index) for index in np.unravel_index(closest.argmin().item(), closest.shape))

    def class_logits(self, images: Tensor) -> list[Tensor]:
        """Logits of the target's class, (B, anchors, h, w) per level."""
        head: Any = self.network.bbox_head  # mmdet has no type annotations
        return [
            maps.unflatten(1, (-1, head.cls_out_channels))[:, :, self.target]
            for maps in self.network(images, mode='tensor')[0]
        ]

    def score(self, images):
        anchor, row, column = self.place
        return self.class_logits(images)[self.level][:, anchor, row, column]


class ExplainedKeypoints(Explained):
    """The peak of a keypoint's heatmap in mmpose; by default the sum over all keypoints."""

    what = 'keypoint'

    def score(self, images):
        peaks = self.network(images, None, mode='tensor').amax((2, 3))
        return peaks.sum(1) if self.target is None else peaks[:, self.target]

    def target_name(self):
        return 'all keypoints' if self.target is None else super().target_name()
