"""Models by name in mmpretrain and in the inferencers of mmdet, mmseg and mmpose, after ``import mogacore``."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import fill_by_name

import mogacore.registry  # noqa: F401, the safe loader
from mogacore.errors import UserError
from mogacore.libraries import import_quietly
from mogacore.locations import find_config
from mogacore.published import load_results

IMAGE = np.random.default_rng(0).integers(0, 255, (96, 128, 3)).astype('uint8')


PUBLISHED = {
    r.config.rpartition('/')[2].removesuffix('.py')
    for r in load_results()
    if r.config.startswith('classification/') and r.metrics
}


def test_mmpretrain_lists_our_models():
    """If mogacore is imported first, as here, or last."""
    pytest.importorskip('mmpretrain')
    import_quietly('mmpretrain')
    from mmpretrain import list_models

    assert set(list_models('*moganet*')) == PUBLISHED
    code = 'import mmpretrain, mogacore; print(*mmpretrain.list_models("*moganet*"), sep="\\n")'
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=True)
    assert {line for line in done.stdout.splitlines() if line.startswith('moganet')} == PUBLISHED


def test_a_model_of_mmpretrain_without_published_weights_says_so():
    pytest.importorskip('mmpretrain')
    import_quietly('mmpretrain')
    from mmpretrain import get_model, list_models

    name = 'moganet-xlarge_finetune_8xb16-accu4_in1k-384'
    assert name in list_models('moganet')
    with torch.device('meta'), pytest.raises(UserError, match=f'no weights are published for {name}: give a file'):
        get_model(name, pretrained=True)


# Library, name, inferencer, and a part of the model's head.
CASES = {
    'mmdet': ('retinanet_moganet-xtiny_fpn_1x_coco', 'bbox_head.retina_cls.weight'),
    'mmseg': ('semantic-fpn_moganet-xtiny_80k_ade20k-512x512', 'decode_head.conv_seg.weight'),
    'mmpose': ('td-hm_moganet-xtiny_210e_coco-256x192', 'head.final_layer.weight'),
}


def inferencer_of(library, model, **settings):
    if library == 'mmdet':
        from mmdet.apis import DetInferencer

        return DetInferencer(model, device='cpu', show_progress=False, **settings)
    if library == 'mmseg':
        from mmseg.apis import MMSegInferencer

        return MMSegInferencer(model, device='cpu', **settings)
    from mmpose.apis.inferencers import Pose2DInferencer

    return Pose2DInferencer(model, device='cpu', det_model='whole_image', show_progress=False, **settings)


@pytest.mark.parametrize('library', CASES)
def test_inferencers_know_our_models(library, tmp_path, monkeypatch):
    """They build the config of a name and load its published weights."""
    pytest.importorskip(library)
    import_quietly(library)
    from mmengine.infer import BaseInferencer
    from mmengine.registry import MODELS, DefaultScope

    name, key = CASES[library]
    names = BaseInferencer.list_models(library, r'.*moganet')
    assert name in names and not set(names) & {other for other, _ in CASES.values() if other != name}
    result = next(r for r in load_results() if r.config.endswith(f'/{name}.py') and r.weights)
    config = find_config(result.config)
    from mmengine.config import Config

    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope(library):
        state = fill_by_name(MODELS.build(cfg.model)).state_dict()
    # mmpose 0.x named its head keypoint_head.
    old = {n.replace('head.', 'keypoint_head.', 1) if library == 'mmpose' else n: v for n, v in state.items()}
    torch.save({'meta': {}, 'state_dict': old}, tmp_path / result.weights_file)
    asked = []

    def fetch(url, folder=None):
        asked.append(url)
        return tmp_path / result.weights_file

    monkeypatch.setattr('mogacore.checkpoint.sources.fetch', fetch)
    inferencer = inferencer_of(library, name)
    assert asked == [result.weights] and inferencer.cfg.filename == str(config.resolve())
    loaded = inferencer.model.state_dict()
    assert torch.equal(loaded[key], state[key])
    assert all(torch.equal(loaded[n], value) for n, value in state.items() if n in loaded)
    if library == 'mmpose':  # the images of the others are large
        torch.save({'meta': {}, 'state_dict': state}, tmp_path / 'own.pth')
        other = inferencer_of(library, str(config), weights=str(tmp_path / 'own.pth'))
        found, expected = (next(run(IMAGE))['predictions'][0][0]['keypoints'] for run in (inferencer, other))
        assert np.array_equal(found, expected)


def test_an_inferencer_without_published_weights_says_so():
    pytest.importorskip('mmdet')
    import_quietly('mmdet')
    name = 'cascade-mask-rcnn_moganet-large_fpn_4conv1fc-giou_ms-3x_coco'
    with pytest.raises(UserError, match=f'no weights are published for {name}: give a file as weights'):
        inferencer_of('mmdet', name)
