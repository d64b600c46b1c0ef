"""What an activation map explains: a network with an image, as one number per task.

The number is the logit of a class, of a detected box, of the pixels of a class, or of keypoints.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mogacore.errors import UserError

MATCHING_IOU = 0.5  # from which a detection of a changed picture is the one that is explained


class Explained(nn.Module):
    """A network with a picture, as one number for each image of a batch.

    Args:
        network: The network, in eval mode.
        inputs: The picture as the network takes it, (1, C, H, W).
        picture: The same to look at, (H, W, 3) uint8 RGB.
        names: Names of what can be explained; None where there are only numbers.
    """

    what = 'class'

    def __init__(self, network: nn.Module, inputs: Tensor, picture: np.ndarray, names: Sequence[str] | None):
        super().__init__()
        self.network, self.inputs, self.picture = network, inputs, picture
        self.names = list(names) if names else None
        self.target: int | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B, 1) of images (B, C, H, W)."""
        if torch.is_grad_enabled() and not images.requires_grad:
            images.requires_grad_()  # else maps of frozen stages would get no gradient
        return self.score(images)[:, None]

    def score(self, images: Tensor) -> Tensor:
        """Scores (B,)."""
        raise NotImplementedError

    def choose(self, target: str | None) -> None:
        """Decide what is explained: a name or number of the user's, or None for what the network says itself.

        Raises:
            UserError: If there is no such thing, or not in this picture.
        """
        self.target = None if target is None else self._number(target)

    def _number(self, target: str) -> int:
        if self.names and target in self.names:
            return self.names.index(target)
        if not target.isdecimal() or (self.names and int(target) >= len(self.names)):
            known = ', '.join(self.names[:20]) if self.names else 'the numbers from 0'
            raise UserError(f'{self.what} {target!r} is unknown: choose from {known}')
        return int(target)

    def target_name(self) -> str:
        return self.names[self.target] if self.names else str(self.target)

    def box(self) -> np.ndarray | None:
        """Box of the target in pixels of the picture, x1 y1 x2 y2, where it has one."""
        return None


class ExplainedClass(Explained):
    """The logit of a class of a classifier; by itself, of the most probable."""

    def __init__(self, *args, logits: Callable[[Tensor], Tensor]):
        super().__init__(*args)
        self.logits = logits

    def choose(self, target):
        super().choose(target)
        with torch.no_grad():
            logits = self.logits(self.inputs)[0]
        if self.target is None:
            self.target = logits.argmax().item()
        elif self.target >= len(logits):
            raise UserError(f'class {target} does not fit: the network tells {len(logits)}, from 0')

    def score(self, images):
        return self.logits(images)[:, self.target]


class ExplainedPixels(Explained):
    """The mean logit of a class of mmseg over the pixels that the network gives it; by itself, of the class with most
    pixels, a class named background aside."""

    def choose(self, target):
        super().choose(target)
        with torch.no_grad():
            labels = self.network(self.inputs, mode='tensor')[0].argmax(0)
        if self.target is None:
            counts = labels.flatten().bincount(minlength=len(self.names or ()))
            if self.names and 'background' in self.names and (counts > 0).sum() > 1:
                counts[self.names.index('background')] = 0
            self.target = counts.argmax().item()
        self.mask = labels == self.target
        if not self.mask.any():
            raise UserError(f'the network sees no {self.target_name()} in this picture: choose another target')

    def score(self, images):
        return self.network(images, mode='tensor')[:, self.target, self.mask].mean(1)


class ExplainedBox(Explained):
    """The log-odds of a detection of mmdet; by itself, of the best, else of the best of a class."""

    def __init__(self, *args, samples: list):
        super().__init__(*args)
        self.samples = samples

    def detections(self, images: Tensor) -> list:
        """Instances of each image, in pixels of the network's input."""
        samples = [copy.deepcopy(self.samples[0]) for _ in images]
        return [sample.pred_instances for sample in self.network.predict(images, samples, rescale=False)]

    def choose(self, target):
        super().choose(target)
        with torch.no_grad():
            (found,) = self.detections(self.inputs)
        if self.target is not None:
            found = found[found.labels == self.target]
        if not len(found):
            wanted = 'nothing' if self.target is None else f'no {self.target_name()}'
            raise UserError(f'the network finds {wanted} in this picture: choose another')
        best = found[found.scores.argmax().item()]
        self.target, self._box, self._score = best.labels.item(), best.bboxes.detach(), best.scores.item()

    def score(self, images):
        from torchvision.ops import box_iou

        scores = []
        for found in self.detections(images):
            is_it = (found.labels == self.target) & (box_iou(found.bboxes.detach(), self._box)[:, 0] >= MATCHING_IOU)
            # Lost when too much of the picture is hidden: then its probability is next to none.
            best = found.scores[is_it].max() if is_it.any() else found.scores.new_tensor(0.0)
            scores.append(best.clamp(1e-6, 1 - 1e-6).logit())
        return torch.stack(scores)

    def box(self):
        return self._box[0].cpu().numpy()


class ExplainedAnchor(ExplainedBox):
    """As before, of a one-stage detector: the class logit of the anchor that the detection came from.

    mmdet cuts gradients before it merges the boxes of the levels, so the logit is taken where it arises.
    """

    def choose(self, target):
        super().choose(target)
        with torch.no_grad():
            logits = self.class_logits(self.inputs)
        distances = [(one.sigmoid() - self._score).abs() for one in logits]
        self.level = min(range(len(logits)), key=lambda level: distances[level].min())
        closest = distances[self.level]
        if closest.min() > 1e-4:
            raise UserError('the scores of this detector are more than class logits: choose a RetinaNet or two stages')
        _, *self.place = (int(index) for index in np.unravel_index(closest.argmin().item(), closest.shape))

    def class_logits(self, images: Tensor) -> list[Tensor]:
        """Logits of the target's class, (B, anchors, h, w) a level."""
        num_classes = self.network.bbox_head.cls_out_channels
        return [
            maps.unflatten(1, (-1, num_classes))[:, :, self.target] for maps in self.network(images, mode='tensor')[0]
        ]

    def score(self, images):
        anchor, row, column = self.place
        return self.class_logits(images)[self.level][:, anchor, row, column]


class ExplainedKeypoints(Explained):
    """The peak of a keypoint's heatmap of mmpose; by itself, the sum over all keypoints."""

    what = 'keypoint'

    def score(self, images):
        peaks = self.network(images, None, mode='tensor').amax((2, 3))
        return peaks.sum(1) if self.target is None else peaks[:, self.target]

    def target_name(self):
        return 'all keypoints' if self.target is None else super().target_name()
