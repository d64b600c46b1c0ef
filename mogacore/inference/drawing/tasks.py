"""The task of a config."""

from __future__ import annotations

from mmengine.config import Config

from .base import Task
from .classification import Classification
from .detection import Detection
from .pose import HandPose, Pose
from .segmentation import Segmentation

# By default_scope of the config, which names the task library.
TASKS: dict[str, type[Task]] = {
    'mmpretrain': Classification,
    'mmdet': Detection,
    'mmseg': Segmentation,
    'mmpose': Pose,
}


def create_task(cfg: Config, meta: dict, score_thr: float) -> Task:
    """Create the :class:`Task` that describes and draws the predictions of a config's model."""
    settings: dict[str, float] = {}
    kind = TASKS[cfg.get('default_scope', 'mmengine')]
    decoder = cfg.model.get('head', {}).get('decoder') or {}
    if decoder.get('type') in ('Hand3DHeatmap', 'RootRelativeHeatmap') or _is_iterative(cfg):
        kind = HandPose
        if decoder.get('type') == 'Hand3DHeatmap':  # scores of the other decoder are already in 0..1
            settings['max_score'] = decoder.get('max_bound', 1.0)
    return kind(cfg.get('visualizer'), meta, score_thr, **settings)


def _is_iterative(cfg):
    return cfg.model.get('head', {}).get('type') == 'IterativeHandHead'
