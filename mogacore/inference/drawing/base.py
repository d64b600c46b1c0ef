"""Base class of the tasks: how predictions are described and drawn."""

from __future__ import annotations

import colorsys
import uuid
import warnings
from pathlib import Path

import cv2
import numpy as np
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement

from mogacore import images as image_files
from mogacore.errors import UserError
from mogacore.files import readable, write_figure

OVERVIEW_SIZE = 40  # images; more would be too small to recognize
LEGIBLE_SIDE = 400  # pixels; labels have a fixed size and would cover a smaller image


class Task:
    """How the predictions of one library's models are requested, described and drawn.

    Args:
        visualizer: Settings of the library's visualizer; None for ``visualizer_type`` with its defaults.
        meta: Metainfo of the data set: names and colors of the classes or keypoints.
        score_thr: Minimum score of reported instances and of drawn keypoints.
    """

    visualizer_type = ''
    meta_keys: tuple[str, ...] = ('classes',)  # required in the metainfo of a checkpoint
    draws_images = True
    cell_inches = 3.2  # width of an image in the overview

    def __init__(self, visualizer: dict | None, meta: dict, score_thr: float):
        self.score_thr = score_thr
        self.meta = meta
        self.classes = list(meta.get('classes') or ()) or None
        # mmengine returns the existing visualizer for a known name, and backends would write additional files.
        settings = dict(visualizer or {'type': self.visualizer_type}, name=uuid.uuid4().hex, vis_backends=None)
        self.visualizer = VISUALIZERS.build(settings)
        self.visualizer.dataset_meta = {'classes': self.classes, 'palette': self._palette()}

    def _palette(self) -> list | None:
        """The colors of the classes; if the data set has none, evenly distributed hues."""
        palette = list(self.meta.get('palette') or ())
        if self.classes is None or len(palette) >= len(self.classes):
            return palette or None
        hues = [i * 0.618 % 1 for i in range(len(self.classes))]
        return [tuple(round(255 * value) for value in colorsys.hsv_to_rgb(hue, 0.7, 0.95)) for hue in hues]

    def class_name(self, label: int) -> str:
        """Name of a class; its index if the data set has no names."""
        if self.classes is None:
            return str(label)
        if label >= len(self.classes):
            raise UserError(
                f'the model predicts class {label}, but there are only {len(self.classes)} class names: '
                'set test_dataloader.dataset.metainfo.classes to the classes of the training data'
            )
        return self.classes[label]

    def inputs(self, image: dict, boxes: np.ndarray | None) -> list[dict]:
        """Inputs of the pipeline for a loaded image."""
        return [image]

    def join(self, samples: list[BaseDataElement]) -> BaseDataElement:
        """Merge the predictions for the ``inputs`` of an image."""
        return samples[0].cpu()

    def describe(self, sample: BaseDataElement) -> dict:
        """The prediction as JSON-serializable values."""
        raise NotImplementedError

    def write(self, sample: BaseDataElement, out_dir: Path, name: str) -> dict:
        """Write additional files; return the fields that refer to them in the record."""
        return {}

    def report(self) -> dict:
        """Fields of the report that apply to all records."""
        return {}

    def draw(self, image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
        """Draw the prediction on an image (H, W, 3) uint8 RGB; a small image is enlarged by an integer factor."""
        factor = -(-LEGIBLE_SIDE // max(image.shape[:2]))
        if factor > 1:
            image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        return self.paint(image, sample, factor)

    def paint(self, image: np.ndarray, sample: BaseDataElement, factor: int) -> np.ndarray:
        """Draw a prediction on its image, which has been enlarged by ``factor``."""
        raise NotImplementedError

    def show(self, image: np.ndarray, options: dict, **predictions) -> np.ndarray:
        """Draw ``predictions`` with the library's visualizer."""
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', '.*out of bounds', UserWarning)  # for a box at the border
            self.visualizer.add_datasample('', image, BaseDataElement(**predictions), draw_gt=False, **options)
        return self.visualizer._image  # get_image() would render it again, shifted by a pixel

    def titles(self, records: list[dict]) -> list[tuple[str, str]]:
        """Title and title color of each record's image in the overview."""
        return [(readable(Path(record['image']).name), 'black') for record in records]


def draw_overview(
    path: Path,
    images: list[Path],
    titles: list[tuple[str, str]],
    cell_inches: float,
    ignore_orientation: bool = False,
) -> None:
    """Draw images in a grid; if there are too many, an evenly spaced selection.

    Args:
        path: PNG file to write.
        images: Image files.
        titles: Title and title color of each image.
        cell_inches: Width of an image; an inch has 100 pixels.
        ignore_orientation: Draw the images as they are stored, without their EXIF orientation.
    """
    from matplotlib.figure import Figure

    chosen = np.unique(np.linspace(0, len(images) - 1, OVERVIEW_SIZE).round().astype(int))
    num_cols = min(8, len(chosen))
    num_rows = -(-len(chosen) // num_cols)
    figure = Figure(figsize=(cell_inches * num_cols, (cell_inches + 0.3) * num_rows), layout='constrained')
    axes = figure.subplots(num_rows, num_cols, squeeze=False).ravel()
    for axis in axes:
        axis.axis('off')
    for axis, i in zip(axes, chosen, strict=False):
        image = image_files.read(images[i], ignore_orientation)
        if image is not None:  # otherwise only another decoder knows the format
            axis.imshow(image[..., ::-1])
        title, color = titles[i]
        axis.set_title(title, color=color, fontsize=11, parse_math=False)
    write_figure(path, figure, dpi=100)
