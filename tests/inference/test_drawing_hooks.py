"""Drawings of a test."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement
from PIL import Image

from mogacore.engine.config import Config, show_predictions
from mogacore.inference.hooks import ShowPredictionsHook

IMAGES = ('a/0.png', 'b/0.png', 'b/0.jpg', 'b/1.png', 'c.d/0.png')
DRAWINGS = {'a/0.png', 'b/0.png.png', 'b/0.jpg.png', 'b/1.png', 'c.d/0.png'}
# Library, its hook, and the drawings that images of several objects have in addition.
HOOKS = [
    ('mmpretrain', 'VisualizationHook', set()),
    ('mmdet', 'DetVisualizationHook', set()),
    ('mmseg', 'SegVisualizationHook', set()),
    ('mmpose', 'PoseVisualizationHook', {'a/0_1.png'}),
]


class Images(list):
    def get_data_info(self, index):
        return dict(img_path=str(self[index]))


class Visualizer:
    """Draws nothing; writes the image as the libraries' visualizers do."""

    def add_datasample(self, name, image, data_sample=None, out_file=None, **settings):
        Path(out_file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(out_file)

    def visualize_cls(self, image, data_sample, out_file=None, **settings):
        self.add_datasample('', image, out_file=out_file)

    def set_dataset_meta(self, meta):
        """Called by mmpose's hook."""


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('library, kind, more', HOOKS)
def test_images_of_equal_names_have_drawings_of_their_own(library, kind, more, tmp_path, monkeypatch):
    module = pytest.importorskip(f'{library}.engine.hooks.visualization_hook')
    sample_type = BaseDataElement
    if library == 'mmpose':
        from mmpose.structures import PoseDataSample as sample_type
    monkeypatch.setattr(module.Visualizer, 'get_current_instance', Visualizer)
    paths = [tmp_path / 'data' / name for name in IMAGES]
    for value, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (4, 4), (10 * value,) * 3).save(path)
    cfg = Config(dict(default_hooks=dict(visualization=dict(type=kind))))
    show_predictions(cfg, str(tmp_path / 'shown'))
    settings = cfg.default_hooks.visualization
    assert settings.pop('type') == 'ShowPredictionsHook'
    settings.hook.type = f'{library}.{kind}'
    hook = ShowPredictionsHook(**settings)
    dataset = Images(paths)
    runner = SimpleNamespace(
        test_dataloader=SimpleNamespace(dataset=dataset), test_evaluator=SimpleNamespace(dataset_meta={})
    )
    hook.before_test(runner)
    objects = paths + paths[:1] * len(more)
    for number, path in enumerate(objects):
        image = np.asarray(Image.open(path)).transpose(2, 0, 1).copy()
        batch = dict(inputs=[torch.from_numpy(image)], data_samples=[])
        hook.after_test_iter(runner, number, batch, [sample_type(metainfo=dict(img_path=str(path)))])
    files = [path for path in (tmp_path / 'shown').rglob('*') if path.is_file()]
    shown = {str(path.relative_to(tmp_path / 'shown')): path for path in files}
    assert set(shown) == DRAWINGS | more
    drawn = sorted(np.asarray(Image.open(path)).max() for path in shown.values())
    assert drawn == pytest.approx(sorted(10 * paths.index(path) for path in objects), abs=1)
