"""Predictions for images and videos: JSON records and drawings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate, pseudo_collate
from mmengine.dist import barrier, get_rank, get_world_size
from mmengine.registry import DATASETS, METRICS, TRANSFORMS
from rich.progress import Progress

from mogacore import images
from mogacore.checkpoint import content_hash
from mogacore.datasets.checks.coco_files import check_annotations
from mogacore.engine.check_config import check_keys
from mogacore.engine.check_kinds import check_parts
from mogacore.engine.config import as_list, leaf_datasets, load_config, locate_data, restored_scope
from mogacore.engine.dataset_meta import channel_order, dataset_facts, dataset_meta
from mogacore.engine.explain import user_errors
from mogacore.engine.launch import close_process_group, init_process_group
from mogacore.engine.numbers import check_batch
from mogacore.engine.trained import load_trained
from mogacore.errors import UserError, refuse_unused
from mogacore.files import writable_folder
from mogacore.kinds import checks_arguments
from mogacore.runtime.drawing.canvas import to_rgb
from mogacore.runtime.drawing.filmstrips import sequence_rows
from mogacore.runtime.folders import boxes_settings, check_resume, find_boxes, write_predictions
from mogacore.runtime.inputs import UnreadableError, find_inputs
from mogacore.runtime.journal import Run, Team
from mogacore.runtime.report import write_report
from mogacore.runtime.sequences import check_num_sequences, draw_overview, draw_sequence
from mogacore.runtime.tasks import SCORE_THR, TASKS, Result
from mogacore.runtime.tiles import OVERLAP, Tile, check_tile, make_tiles, merge
from mogacore.runtime.topdown import TopDown
from mogacore.runtime.videos import find_videos, warn_if_truncated
from mogacore.text import type_name

from .features import BackboneMaps
from .samples import SAMPLES, create_samples
from .sequences import sequences_of_videos

LONGEST_WAIT_S = 7 * 24 * 3600  # of a process that has finished its share for the others, for example on long videos


class ImageLoader:
    """Loads single images and prepares them with the test pipeline of a config.

    Args:
        cfg: Loaded config.

    Attributes:
        channel_order: Of the images of the test set, see :func:`mogacore.engine.dataset_meta.channel_order`.
    """

    def __init__(self, cfg: Config):
        self.channel_order = channel_order(cfg)
        # Single images have no annotations to load.
        dataset = next(leaf_datasets(cfg, 'test'))
        steps = [step for step in dataset.pipeline if 'Annotations' not in step['type']]
        if 'LoadImage' in steps[0]['type']:
            load = steps.pop(0)
        else:  # the data set contains decoded images
            color_type = 'grayscale' if self.channel_order == 'gray' else 'color'
            load = dict(type='LoadImageFromFile', color_type=color_type)
        self.load_step = TRANSFORMS.build(load)
        self.pipeline = Compose(steps)

    def load(self, image: Path | np.ndarray) -> dict:
        """Convert an image file, or a frame (H, W, 3) BGR, to an input of the pipeline.

        Raises:
            UnreadableError: If the image is corrupt, or too large to be loaded.
        """
        if isinstance(image, np.ndarray):
            if self.load_step.color_type.startswith('gray'):
                image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
            if self.load_step.to_float32:
                image = image.astype(np.float32)
            return dict(img=image, img_path=None, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        try:
            images.check_pixels(image)
            return self.load_step(dict(img_path=str(image)))
        except UserError as error:
            raise UnreadableError(str(error)) from None
        except (AssertionError, OSError, ValueError, cv2.error) as error:
            raise UnreadableError(f'image {image} cannot be read: replace it or use another') from error

    def prepare(self, item: dict) -> dict:
        """Apply the pipeline, without its loading step, to an item of :meth:`load`.

        The image gets the channel order of the test set.

        Raises:
            UnreadableError: If the image cannot be resized.
        """
        height, width = item['img'].shape[:2]
        if self.channel_order == 'rgb':
            item = dict(item, img=cv2.cvtColor(item['img'], cv2.COLOR_BGR2RGB))
        try:
            return self.pipeline(item)
        except UserError as error:
            raise UnreadableError(f'image {item["img_path"] or "frame"}: {error}') from error
        except cv2.error as error:
            raise UnreadableError(
                f'image {item["img_path"] or "frame"} of {width} x {height} px cannot be resized as the test pipeline '
                f'does ({error.err or error.msg}): pad or cut it to a less elongated shape'
            ) from error


class Predictor(ImageLoader):
    """A trained model that predicts single images.

    Args:
        config: Config file or loaded config; its test pipeline prepares the images.
        checkpoint: Weight file; it must match the model exactly.
        device: torch device; None for a GPU if available.
        score_thr: Minimum score of reported instances and of drawn keypoints, for tasks that have such a threshold.
        tile: For detection and segmentation of large images: side in pixels of the overlapping tiles that are
            predicted separately; None predicts whole images.
        tile_overlap: Smallest overlap of neighboring tiles, as a fraction of a tile.
        with_features: Add ``features`` to the results of :meth:`predict_one`, see
            :func:`mogacore.inference.features.pool`.

    Attributes:
        task: 'classification', 'detection', 'segmentation', 'pose' or 'hands'.
        classes: Names of the classes; None if the model has none.

    Raises:
        UserError: If the weight file does not match the config, or the task is not supported.
    """

    @checks_arguments()
    def __init__(
        self,
        config: str | Config,
        checkpoint: str,
        device: str | None = None,
        score_thr: float = SCORE_THR,
        tile: int | None = None,
        tile_overlap: float = OVERLAP,
        with_features: bool = False,
    ):
        cfg = config if isinstance(config, Config) else load_config(config)
        self._checkpoint = checkpoint
        self._settings = {
            'config': hashlib.sha256(json.dumps(cfg.to_dict(), default=str).encode()).hexdigest(),
            '--score-thr': score_thr,
            '--tile': tile,
            '--tile-overlap': tile_overlap,
            '--save-features': with_features,
        }
        scope = cfg.get('default_scope', 'mmengine')
        if scope not in SAMPLES:
            raise UserError(f'predictions of {scope} models cannot be drawn: use a config for {", ".join(SAMPLES)}')
        if scope == 'mmpose' and cfg.model.type != 'TopdownPoseEstimator':
            raise UserError(f'{cfg.model.type} does not accept boxes: use a config with a TopdownPoseEstimator')
        self.model, container = load_trained(cfg, checkpoint, device)
        self.samples = create_samples(cfg, dataset_meta(cfg, container))
        self.writer = self.samples.task(dataset_facts(self.samples.meta), score_thr)
        self.classes = self.writer.classes
        self.task = next(name for name, task in TASKS.items() if task is self.samples.task)
        check_tile(tile, tile_overlap, self.task)
        self.tile, self.tile_overlap = tile, tile_overlap
        self._maps = BackboneMaps(self.model) if with_features else None
        super().__init__(cfg)
        self.ignore_orientation = self.load_step.color_type not in ('color', 'grayscale')

    @torch.no_grad()
    def __call__(self, image: dict, boxes: np.ndarray | None = None) -> Result:
        """Predict an image.

        Args:
            image: Output of :meth:`load`.
            boxes: Boxes of the objects, (N, 5), for pose estimation; None to treat the whole image as one object.

        Returns:
            The prediction in pixels of the image, as ``writer`` describes it.
        """
        data = [self.prepare(item) for item in self.samples.inputs(dict(image), boxes)]
        return self.writer.select(self.samples.result(self.model.test_step(pseudo_collate(data)) if data else []))

    def predict_one(self, image: Path | np.ndarray, boxes: np.ndarray | None = None) -> tuple[np.ndarray, Result]:
        """See :class:`mogacore.runtime.folders.ImagePredictor`."""
        return self.predict_read(self.read(image), boxes)

    @property
    def reading(self) -> object:
        """See :class:`mogacore.runtime.topdown.Model`."""
        return repr(self.load_step)

    def read(self, image: Path | np.ndarray) -> tuple[np.ndarray, dict]:
        """The image as it is shown, and as :meth:`load` returns it."""
        loaded = self.load(image)
        return to_rgb(loaded['img'] if isinstance(image, Path) else image), loaded

    def predict_read(
        self, image: tuple[np.ndarray, dict], boxes: np.ndarray | None = None
    ) -> tuple[np.ndarray, Result]:
        """See :class:`mogacore.runtime.topdown.Model`."""
        shown, loaded = image
        tiles = make_tiles(loaded['img'], self.tile, self.tile_overlap)
        if len(tiles) > 1:
            found = [self(_part(loaded, tile)) for tile in tiles]
            return shown, self.writer.select(merge(tiles, found))
        result = self(loaded, boxes)
        return shown, result if self._maps is None else {**result, 'features': self._maps.pooled()}

    def settings(self) -> dict[str, Any]:
        """What the predictions depend on besides the image, see :class:`mogacore.runtime.journal.Run`."""
        return {'checkpoint': content_hash(self._checkpoint) or str(self._checkpoint), **self._settings}


def _part(image: dict, tile: Tile) -> dict:
    """The part of a loaded image that a tile shows."""
    pixels = np.ascontiguousarray(tile.of(image['img']))
    return dict(image, img=pixels, img_shape=pixels.shape[:2], ori_shape=pixels.shape[:2])


@restored_scope()
@user_errors()
@checks_arguments()
def infer(
    config: str,
    checkpoint: str,
    source: str | Path | Sequence[str | Path] | None,
    out_dir: str | Path,
    boxes: str | Path | None = None,
    box_class: str | None = None,
    score_thr: float | None = None,
    cfg_options: dict | None = None,
    device: str | None = None,
    num_sequences: int | None = None,
    detector: Sequence[str] | None = None,
    tile: int | None = None,
    tile_overlap: float | None = None,
    save_features: bool = False,
    resume: bool = False,
    launcher: str = 'none',
) -> Sequence[dict]:
    """Predict images and videos, or future frames of videos; write ``predictions.json`` and drawings to ``out_dir``.

    Args:
        config: Config file.
        checkpoint: Weight file.
        source: Images, videos, folders, patterns or lists of them, see
            :func:`mogacore.runtime.inputs.find_inputs`. For a video predictor, videos and folders of the numbered
            frames of one, or None for sequences of the config's test set.
        out_dir: Output folder; created if missing.
        boxes: File for :class:`mogacore.runtime.inputs.Boxes`, for pose estimation; None to treat each whole image
            as one object.
        box_class: Only use boxes of this class, of ``boxes`` or ``detector``.
        score_thr: Minimum score of reported instances and of drawn keypoints; None for ``SCORE_THR``.
        cfg_options: Settings that override the config.
        device: torch device; None for a GPU if available.
        num_sequences: Maximum number of predicted sequences, for a video predictor; None for ``NUM_SEQUENCES``.
        detector: Config and weight file of a detector that finds the objects, for pose estimation.
        tile: For detection, ``detector`` and segmentation: see :class:`Predictor`.
        tile_overlap: See :class:`Predictor`; None for ``OVERLAP``.
        save_features: Write the pooled features of each image, see
            :func:`mogacore.runtime.folders.write_predictions`.
        resume: Continue a run in ``out_dir`` that was stopped; without one, start.
        launcher: What started the processes, which share the inputs: none, pytorch, slurm or mpi.

    Returns:
        One record per image, frame or sequence, as written to the JSON file. Those of images and frames are read from
        the file when they are used; in another process than the first, there are none.

    Raises:
        UserError: If an input is missing, invalid, or does not match the config, settings exclude each other or have no
            effect, the folder has a run that was stopped and is not to be resumed, or the disk is full.
    """
    if score_thr is not None and not 0 <= score_thr <= 1:
        raise UserError(f'--score-thr {score_thr} is out of range: use 0 to 1')
    cfg = load_config(config, cfg_options)
    check_keys(cfg)
    check_parts(cfg, 'infer')
    takes_boxes = cfg.get('default_scope') == 'mmpose'
    _check_settings(cfg, takes_boxes, boxes, detector, tile, save_features, launcher)
    if tile is None:
        refuse_unused({'--tile-overlap': tile_overlap}, 'without --tile')
    if cfg.model.type == 'SimVP':
        refuse_unused({'--box-class': box_class, '--score-thr': score_thr}, 'for video prediction')
        check_resume(resume)
        videos = [] if source is None else find_videos(source, out_dir)
        sequences, cut = infer_sequences(cfg, checkpoint, videos, writable_folder(out_dir), num_sequences, device)
        report = {'config': str(config), 'checkpoint': str(checkpoint), 'predictions': sequences}
        write_report(out_dir, report | ({'truncated': cut} if cut else {}))
        return sequences
    refuse_unused({'--num-sequences': num_sequences}, 'except for video prediction')
    if source is None:
        raise UserError('the input is missing: give images, videos, or folders of them')
    inputs = find_inputs(source, out_dir)
    object_boxes = None if detector else find_boxes(boxes, box_class, inputs, takes_boxes, check_annotations)
    init_process_group(launcher, timeout_s=LONGEST_WAIT_S)
    header: dict[str, Any] = {'config': str(config), 'checkpoint': str(checkpoint)}
    tiles: dict[str, Any] = dict(tile=tile, tile_overlap=OVERLAP if tile_overlap is None else tile_overlap)
    threshold = SCORE_THR if score_thr is None else score_thr
    model: Predictor | TopDown
    if detector:
        header['detector'] = {'config': str(detector[0]), 'checkpoint': str(detector[1])}
        finder = Predictor(detector[0], detector[1], device, threshold, **tiles)
        model = TopDown(finder, Predictor(cfg, checkpoint, device, threshold), box_class)
    else:
        model = Predictor(cfg, checkpoint, device, threshold, **tiles, with_features=save_features)
        if not model.writer.has_threshold:
            refuse_unused({'--score-thr': score_thr}, f'on a model for {model.task}')
    run = Run(
        {**model.settings(), **({} if detector else boxes_settings(boxes, box_class))},
        resume,
        Team(get_rank(), get_world_size(), barrier),
    )
    with Progress(disable=run.team.rank > 0) as progress:
        records = write_predictions(model, source, inputs, out_dir, header, object_boxes, progress, run)
    close_process_group()
    return records


def _check_settings(
    cfg: Config,
    takes_boxes: bool,
    boxes: str | Path | None,
    detector: Sequence[str] | None,
    tile: int | None,
    save_features: bool,
    launcher: str,
) -> None:
    """Raise UserError for settings that the model does not take, or that exclude each other."""
    if detector and not takes_boxes:
        raise UserError(f'--detector {detector[0]} is only for pose estimation: omit it')
    if detector and boxes is not None:
        raise UserError('--detector and --boxes exclude each other: omit one')
    if save_features and (detector or boxes is not None or tile is not None):
        raise UserError('--save-features is for whole images: omit --tile, --boxes and --detector')
    if cfg.model.type == 'SimVP':
        given = {'--boxes': boxes, '--tile': tile, '--save-features': save_features}
        for name, value in given.items():
            if value not in (None, False):
                raise UserError(f'{name} is not for video prediction: omit it')
        if launcher != 'none':
            raise UserError('--launcher is not for video prediction, which predicts few sequences: omit it')


def infer_sequences(
    cfg: Config, checkpoint: str, videos: list[Path], out_dir: Path, num_sequences: int | None, device: str | None
) -> tuple[list[dict], list[dict]]:
    """Predict future frames; draw each sequence to ``drawn/NNNNN.png`` and ``.gif``, the first to ``predictions.png``.

    Args:
        cfg: Config of a video predictor.
        checkpoint: Weight file.
        videos: Video files and folders of frames; if empty, evenly spaced sequences of the config's test set.
        out_dir: Output folder.
        num_sequences: Maximum number of predicted sequences; None for ``NUM_SEQUENCES``.
        device: torch device; None for a GPU if available.

    Returns:
        One record per sequence. ``sequence`` identifies it; ``metrics`` are those of the config's
        VideoPredictionMetric and of repeating the last frame, or None if it has none or the video ends before the last
        predicted frame. And the records of truncated videos, see :meth:`mogacore.runtime.videos.Video.truncation`.
    """
    num_sequences = check_num_sequences(num_sequences)
    model, _ = load_trained(cfg, checkpoint, device)
    own = [item for item in as_list(cfg.get('test_evaluator')) if type_name(item['type']) == 'VideoPredictionMetric']
    evaluator = dict(own[0], copy_last=True) if own else None
    items: Iterable[dict]
    truncated: list[dict] = []
    if videos:
        items = list(
            islice(sequences_of_videos(videos, cfg, partial(warn_if_truncated, truncated=truncated)), num_sequences)
        )
        meta = dict(channel_order=cfg.test_dataloader.dataset.get('channel_order', 'rgb'))
    else:
        locate_data(cfg, 'test')
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        chosen = np.unique(np.linspace(0, len(dataset) - 1, num_sequences).round().astype(int))
        items, meta = (dataset[int(i)] for i in chosen), dataset.metainfo
    records, strips = [], []
    for number, item in enumerate(items):
        if not videos:
            check_batch({'inputs': [item['inputs']], 'data_samples': [item['data_samples']]}, dataset)
        known = item['data_samples'].pop('gt_frames') if videos else None  # fewer than predicted at the end of a video
        batch = default_collate([item])
        with torch.no_grad():
            sample = model.test_step(batch)[0].to('cpu')
        if known is not None:
            sample.gt_frames = known
        rows = sequence_rows(item['inputs'], sample.pred_frames, sample.gt_frames, meta)
        files, strip = draw_sequence(out_dir, number, rows)
        strips.append(strip)
        records.append({'sequence': sample.name, **files, 'metrics': None})
        if evaluator and len(sample.gt_frames) == len(sample.pred_frames):
            metric = METRICS.build(evaluator)
            metric.dataset_meta = meta
            metric.process(batch, [sample.to_dict()])
            records[-1]['metrics'] = metric.evaluate(size=1)
    draw_overview(out_dir, strips)
    return records, truncated
