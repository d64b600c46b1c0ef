"""Analyzes the predictions of a test, and writes the report."""

from __future__ import annotations

import heapq
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from mogacore import images
from mogacore.engine.config import load_config, locate_data, use_library
from mogacore.engine.data import label_class_folders
from mogacore.engine.dataset_meta import channel_order, dataset_facts, ignores_orientation, is_multi_label
from mogacore.engine.explain import user_errors
from mogacore.errors import UserError, refuse_unused
from mogacore.files import readable, writable_folder, write_json, write_text
from mogacore.inference.prediction_files import PredictionFile
from mogacore.packs import is_file
from mogacore.runtime.drawing.canvas import to_rgb
from mogacore.runtime.tasks import SCORE_THR, TASKS
from mogacore.text import shorten

from .classification import ClassificationAnalysis
from .detection import DetectionAnalysis
from .findings import Analysis, Findings
from .page import Drawn, join_panels, render
from .pose import PoseAnalysis
from .segmentation import SegmentationAnalysis

ANALYSES: dict[str, type[Analysis]] = {
    kind.task: kind for kind in (ClassificationAnalysis, DetectionAnalysis, SegmentationAnalysis, PoseAnalysis)
}
# Packages that a report needs besides those of the task library: import name -> name for pip.
NEEDED = {'jinja2': 'jinja2', 'matplotlib': 'matplotlib', 'sklearn': 'scikit-learn'}
SCOPES = {'mmpretrain': 'classification', 'mmdet': 'detection', 'mmseg': 'segmentation', 'mmpose': 'pose'}


def analyze(
    config: str,
    predictions: str | Path,
    out_dir: str | Path,
    cfg_options: dict | None = None,
    num_images: int = 12,
    score_thr: float | None = None,
) -> dict[str, Any]:
    """Compare the predictions of a test with the truth; write ``report.html`` and ``report.json`` to ``out_dir``.

    Args:
        config: The config of the test.
        predictions: File that the test wrote, see :mod:`mogacore.inference.prediction_files`.
        out_dir: Output folder; created if missing. Nothing is written to it unless the analysis succeeds.
        cfg_options: Settings that override the config's.
        num_images: Number of drawn images among the best, and among the worst.
        score_thr: Lowest score of a box that counts as predicted, or of a drawn keypoint; None for ``SCORE_THR``.

    Returns:
        The content of ``report.json``.

    Raises:
        UserError: If the predictions cannot be read, or do not fit the test set, or ``score_thr`` has no effect.
    """
    from rich.progress import Progress

    if num_images < 0:
        raise UserError(f'--num-images {num_images} is out of range: give 0 or more')
    threshold = SCORE_THR if score_thr is None else score_thr
    if not 0 <= threshold <= 1:
        raise UserError(f'--score-thr {score_thr} is out of range: use 0 to 1')
    out_dir = Path(out_dir)
    if out_dir.exists() and not out_dir.is_dir():
        raise UserError(f'--out {out_dir} is a file: give a folder')
    for module, package in NEEDED.items():
        if find_spec(module) is None:
            raise UserError(f'mogacore analyze needs {package}: run "pip install {package}"')
    file = PredictionFile(predictions)
    cfg = load_config(config, cfg_options)
    if is_multi_label(cfg):
        raise UserError(
            f'{config} predicts several classes per image, which is not analyzed: see its metrics of the test'
        )
    task = SCOPES.get(cfg.get('default_scope', ''))
    if task != file.task:
        raise UserError(
            f'{predictions} has predictions of {file.task}, but {config} is a config of '
            f'{task or cfg.get("default_scope", "another task")}: give the config of the test'
        )
    if not TASKS[file.task].has_threshold:
        refuse_unused({'--score-thr': score_thr}, f'for {file.task}')
    with user_errors(), Progress(transient=True) as progress:
        dataset = _build_dataset(cfg, file, predictions)
        analysis = ANALYSES[file.task](cfg, dataset, threshold)
        ranking = Ranking(num_images)
        for index, (names, result) in enumerate(progress.track(file, len(file), description='comparing')):
            info = dataset.get_data_info(index)
            _check_image(names, info, index, file)
            ranking.add(index, *analysis.add(names, info, result))
        findings = analysis.findings()
        drawn = {}
        for title, entries in (('worst', ranking.worst()), ('best', ranking.best())):
            tracked = progress.track(entries, description=f'drawing the {title}')
            drawn[title] = [_draw(cfg, analysis, dataset, file, index, score) for index, score in tracked]
    report = _report(config, predictions, file, analysis, findings, drawn)
    page = render(report, findings, drawn, analysis.unit)
    writable_folder(out_dir)
    write_json(out_dir / 'report.json', _finite(report))
    write_text(out_dir / 'report.html', page)
    return report


class Ranking:
    """The samples with the lowest and with the highest values.

    Args:
        number: How many of each.
    """

    def __init__(self, number: int):
        self.number = number
        self.entries: list[tuple[int, float, float]] = []

    def add(self, index: int, value: float, weight: float) -> None:
        """Add a sample; among equal values, those of large weights come first at both ends."""
        if math.isfinite(value):
            self.entries.append((index, value, weight))

    def worst(self) -> list[tuple[int, float]]:
        """Indices and values, the lowest first."""
        found = heapq.nsmallest(self.number, self.entries, key=lambda entry: (entry[1], -entry[2], entry[0]))
        return [entry[:2] for entry in found]

    def best(self) -> list[tuple[int, float]]:
        """Indices and values, the highest first."""
        found = heapq.nsmallest(self.number, self.entries, key=lambda entry: (-entry[1], -entry[2], entry[0]))
        return [entry[:2] for entry in found]


def _build_dataset(cfg: Config, file: PredictionFile, path: str | Path) -> BaseDataset:
    """The test set, after a check that it has as many samples and the same names as the predictions."""
    locate_data(cfg, 'test')
    label_class_folders(cfg, 'test', cfg.get('train_dataloader'))
    use_library(cfg)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    advice = 'give the config and the options of the test'
    if len(dataset) != len(file):
        raise UserError(
            f'{path} has predictions for {len(file)} samples, but the test set of {cfg.filename} has {len(dataset)}: '
            f'{advice}'
        )
    facts = dataset_facts(dataset.metainfo)
    own = {'classes': facts['classes'], 'keypoints': facts['keypoints'] and facts['keypoints']['names']}
    for kind, names in own.items():
        saved = file.header.get(kind)
        if names and saved and names != saved:
            raise UserError(
                f'{path} has predictions of {len(saved)} {kind} ({shorten(saved, 5)}), but the test set has '
                f'{len(names)} ({shorten(names, 5)}): {advice}'
            )
    return dataset


def _check_image(names: dict, info: dict, index: int, file: PredictionFile) -> None:
    """Compare file name and folder of an image, since data may have been moved; and check that it exists."""
    saved, own = names.get('image'), info.get('img_path')
    if Path(saved or '').parts[-2:] != Path(own or '').parts[-2:]:
        raise UserError(
            f'line {index + 2} of {file.path} is for image {saved}, but the test set has {own} in its place: give the '
            'config and the options of the test'
        )
    if own and not is_file(own):
        raise UserError(f'image {own} of the test set is missing: restore it')


def _read_image(cfg: Config, info: dict) -> np.ndarray:
    if not info.get('img_path'):  # a data set of decoded images
        decoded = np.asarray(info['img'])
        return decoded if channel_order(cfg) == 'rgb' else to_rgb(decoded)
    image = images.read(info['img_path'], ignores_orientation(cfg))
    if image is None:
        raise UserError(f'image {info["img_path"]} cannot be read: replace it')
    return to_rgb(image)


def _draw(
    cfg: Config, analysis: Analysis, dataset: BaseDataset, file: PredictionFile, index: int, score: float
) -> Drawn:
    info, (_, result) = dataset.get_data_info(index), file[index]
    image = join_panels(analysis.panels(_read_image(cfg, info), info, result), analysis.panel_width)
    name = readable(info.get('img_path') or f'sample {index}')
    return Drawn(index, name, score, analysis.caption(info, result, score), image)


def _report(
    config: str,
    predictions: str | Path,
    file: PredictionFile,
    analysis: Analysis,
    findings: Findings,
    drawn: dict[str, list[Drawn]],
) -> dict[str, Any]:
    reported = file.header.get('metrics') or {}
    return {
        'config': str(config),
        'checkpoint': file.header.get('checkpoint'),
        'predictions': str(predictions),
        'task': file.task,
        f'num_{analysis.unit}s': len(file),
        'score_thr': analysis.score_thr,
        'scores': findings.scores,
        'evaluator': reported,
        'notes': _differences(findings.scores, reported, analysis.decimals),
        **{name: table.rows for name, table in findings.tables.items()},
        **{
            title: [{'sample': one.index, 'image': one.name, 'score': one.score} for one in ones]
            for title, ones in drawn.items()
        },
    }


def _differences(scores: dict[str, float], reported: dict[str, float], decimals: int | None) -> list[str]:
    """What the test reported otherwise, with the scores rounded as by its evaluator."""
    notes = []
    for name, value in reported.items():
        own = scores.get(name.rpartition('/')[2])
        if own is None or not isinstance(value, (int, float)) or math.isnan(own) or math.isnan(value):
            continue
        tolerance = 1e-4 * max(1.0, abs(value)) if decimals is None else 0.51 * 10**-decimals
        if abs(own - value) > tolerance:
            notes.append(
                f'{name} was {value:.6g} in the test, but is {own:.6g} here: the annotations or the settings of the '
                'evaluator are not those of the test'
            )
    return notes


def _finite(value: Any) -> Any:
    """The report with null in place of numbers that JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
