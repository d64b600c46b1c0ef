"""The task that belongs to a config."""

from __future__ import annotations

from mmengine.config import Config

from .base import Task
from .classification import Classification
from .detection import Detection
from .pose import HandPose, Pose
from .segmentation import Segmentation

# By the library that the configs of a task name as default_scope.
TASKS: dict[str, type[Task]] = {
    'mmpretrain': Classification,
    'mmdet': Detection,
    'mmseg': Segmentation,
    'mmpose': Pose,
}


def create_task(cfg: Config, meta: dict, score_thr: float) -> Task:
    """What tells and draws the predictions of a config's model; see :class:`Task`."""
    kind, settings = TASKS[cfg.get('default_scope', 'mmengine')], {}
    decoder = cfg.model.get('head', {}).get('decoder') or {}
    if decoder.get('type') in ('Hand3DHeatmap', 'RootRelativeHeatmap') or _is_iterative(cfg):
        kind = HandPose
        if decoder.get('type') == 'Hand3DHeatmap':  # the other one's scores are shares already
            settings['max_score'] = decoder.get('max_bound', 1.0)
    return kind(cfg.get('visualizer'), meta, score_thr, **settings)


def _is_iterative(cfg):
    return cfg.model.get('head', {}).get('type') == 'IterativeHandHead'
