"""What every task has in common in how it describes and draws its predictions."""

from __future__ import annotations

import colorsys
import uuid
import warnings
from pathlib import Path

import cv2
import numpy as np
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement

from mogacore.errors import UserError
from mogacore.files import write_figure

OVERVIEW_SIZE = 40  # images; more are too small to look at
LEGIBLE_SIDE = 400  # pixels; on a smaller image the labels, whose size is fixed, would hide it


class Task:
    """How the predictions of one library's models are requested, described and drawn.

    Args:
        visualizer: Settings of the library's visualizer; None takes ``visualizer_type``.
        meta: Meta of the data set, as its class gives it: names and colours of the classes, or of the keypoints.
        score_thr: Score from which an instance, or in a drawing a keypoint, is shown.
    """

    visualizer_type = ''
    meta_keys: tuple[str, ...] = ('classes',)  # without which the meta of a checkpoint is of no use
    draws_pictures = True
    cell_inches = 3.2  # of a picture in the overview

    def __init__(self, visualizer: dict | None, meta: dict, score_thr: float):
        self.score_thr = score_thr
        self.meta = meta
        self.classes = list(meta.get('classes') or ()) or None
        # A visualizer of the same name would be this very object; its backends would write files of their own.
        settings = dict(visualizer or {'type': self.visualizer_type}, name=uuid.uuid4().hex, vis_backends=None)
        self.visualizer = VISUALIZERS.build(settings)
        self.visualizer.dataset_meta = {'classes': self.classes, 'palette': self._palette()}

    def _palette(self) -> list | None:
        """The colours of the classes; of a data set that has none, hues as different as can be."""
        palette = list(self.meta.get('palette') or ())
        if self.classes is None or len(palette) >= len(self.classes):
            return palette or None
        hues = [i * 0.618 % 1 for i in range(len(self.classes))]
        return [tuple(round(255 * value) for value in colorsys.hsv_to_rgb(hue, 0.7, 0.95)) for hue in hues]

    def class_name(self, label: int) -> str:
        """Name of a class; its number where the data set has no names."""
        if self.classes is None:
            return str(label)
        if label >= len(self.classes):
            raise UserError(
                f'the model predicts class {label}, but there are only {len(self.classes)} class names: '
                'set test_dataloader.dataset.metainfo.classes to those it was trained on'
            )
        return self.classes[label]

    def inputs(self, image: dict, boxes: np.ndarray | None) -> list[dict]:
        """What the pipeline is given for a loaded picture."""
        return [image]

    def join(self, samples: list[BaseDataElement]) -> BaseDataElement:
        """One prediction of a picture from those for its ``inputs``."""
        return samples[0].cpu()

    def describe(self, sample: BaseDataElement) -> dict:
        """The prediction as JSON can hold it."""
        raise NotImplementedError

    def write(self, sample: BaseDataElement, out_dir: Path, name: str) -> dict:
        """Files that belong to the record, and what it says of them."""
        return {}

    def report(self) -> dict:
        """What holds for all records."""
        return {}

    def draw(self, image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
        """The picture, (H, W, 3) uint8 RGB, with the prediction; a small one is enlarged a whole number of times."""
        factor = -(-LEGIBLE_SIDE // max(image.shape[:2]))
        if factor > 1:
            image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        return self.paint(image, sample, factor)

    def paint(self, image: np.ndarray, sample: BaseDataElement, factor: int) -> np.ndarray:
        """Draw a prediction into its picture that was enlarged by ``factor``."""
        raise NotImplementedError

    def show(self, image: np.ndarray, options: dict, **predictions) -> np.ndarray:
        """Let the library draw ``predictions``."""
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', '.*out of bounds', UserWarning)  # of a box along the edge
            self.visualizer.add_datasample('', image, BaseDataElement(**predictions), draw_gt=False, **options)
        return self.visualizer._image  # get_image would render it anew, a pixel off

    def titles(self, records: list[dict]) -> list[tuple[str, str]]:
        """Title and its colour for each record's picture in the overview."""
        return [(Path(record['image']).name, 'black') for record in records]


def draw_overview(path: Path, pictures: list[Path], titles: list[tuple[str, str]], cell_inches: float) -> None:
    """Draw pictures in a grid; of many, an even choice.

    Args:
        path: PNG file to write.
        pictures: Picture files.
        titles: Title and its colour for each.
        cell_inches: Width of a picture; an inch has 100 pixels.
    """
    from matplotlib.figure import Figure
    from PIL import Image

    chosen = np.unique(np.linspace(0, len(pictures) - 1, OVERVIEW_SIZE).round().astype(int))
    num_cols = min(8, len(chosen))
    num_rows = -(-len(chosen) // num_cols)
    figure = Figure(figsize=(cell_inches * num_cols, (cell_inches + 0.3) * num_rows), layout='constrained')
    axes = figure.subplots(num_rows, num_cols, squeeze=False).ravel()
    for axis in axes:
        axis.axis('off')
    for axis, i in zip(axes, chosen, strict=False):
        with Image.open(pictures[i]) as image:
            axis.imshow(np.asarray(image.convert('RGB')))
        title, color = titles[i]
        axis.set_title(title, color=color, fontsize=11)
    write_figure(path, figure, dpi=100)
