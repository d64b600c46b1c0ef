"""Names and colors of the classes or keypoints that a model predicts."""

from __future__ import annotations

from mmengine.config import Config
from mmengine.registry import DATASETS

from .config import leaf_datasets

# What the metainfo of a checkpoint must have to be used, by default_scope.
REQUIRED = {
    'mmpose': ('keypoint_id2name', 'flip_indices', 'keypoint_colors', 'skeleton_links', 'skeleton_link_colors'),
}


def dataset_meta(cfg: Config, container: dict) -> dict:
    """Metainfo of the training data from the checkpoint; if incomplete, that of the config's test data.

    Args:
        cfg: Loaded config.
        container: Content of the checkpoint.
    """
    meta = container.get('meta')
    saved = meta.get('dataset_meta') if isinstance(meta, dict) else None
    required = REQUIRED.get(cfg.get('default_scope', ''), ('classes',))
    if isinstance(saved, dict) and all(saved.get(key) is not None for key in required):
        return saved
    dataset = next(leaf_datasets(cfg, 'test'))
    with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
        return registry.get(dataset.type)._load_metainfo(dataset.get('metainfo'))
