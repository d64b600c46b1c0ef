"""The preprocessing inside exported files against the data preprocessors of the toolboxes."""

from importlib import import_module

import mmengine.model
import pytest
import torch

from mogacore.deploy.graphs.base import Normalize
from mogacore.deploy.source import Source
from mogacore.libraries import import_quietly

MEAN_STD = dict(mean=[123.0, 116.0, 103.0], std=[58.0, 57.0, 55.0])
CASES = [
    (None, 'BaseDataPreprocessor', {}),
    (None, 'ImgDataPreprocessor', {}),
    (None, 'ImgDataPreprocessor', dict(**MEAN_STD, bgr_to_rgb=True, pad_size_divisor=8, pad_value=3)),
    (None, 'ImgDataPreprocessor', dict(**MEAN_STD, rgb_to_bgr=True)),
    ('mmpretrain', 'ClsDataPreprocessor', dict(to_rgb=True)),
    ('mmpretrain', 'ClsDataPreprocessor', dict(**MEAN_STD, pad_size_divisor=8)),
    ('mmdet', 'DetDataPreprocessor', dict(**MEAN_STD, bgr_to_rgb=True)),
    ('mmdet', 'DetDataPreprocessor', {}),
    ('mmseg', 'SegDataPreProcessor', dict(**MEAN_STD, bgr_to_rgb=True)),
    ('mmseg', 'SegDataPreProcessor', dict(**MEAN_STD)),
    ('mmpose', 'PoseDataPreprocessor', dict(**MEAN_STD, bgr_to_rgb=True)),
]


def build(library, name, settings):
    if library is None:
        return getattr(mmengine.model, name)(**settings)
    pytest.importorskip(library)
    import_quietly(library)
    return getattr(import_module(f'{library}.models'), name)(**settings)


@pytest.mark.parametrize('loads_bgr', [True, False])
@pytest.mark.parametrize('library, name, settings', CASES)
def test_rgb_images_become_what_the_toolbox_gives_its_network(library, name, settings, loads_bgr):
    preprocessor = build(library, name, settings)
    images = torch.randint(0, 256, (2, 3, 13, 18), dtype=torch.uint8)
    loaded = images.flip(1) if loads_bgr else images
    inputs = loaded if name == 'BaseDataPreprocessor' else list(loaded)  # it does not stack
    samples = None if library == 'mmpretrain' else []
    expected = preprocessor({'inputs': inputs, 'data_samples': samples})['inputs']
    torch.testing.assert_close(Normalize(preprocessor, loads_bgr)(images), expected.float())


def test_images_of_a_network_without_preprocessor_and_frames_stay_as_they_are():
    images = torch.randint(0, 256, (2, 3, 13, 18), dtype=torch.uint8)
    assert torch.equal(Normalize(None)(images), images.float())
    from mogacore.deploy.graphs.raw import Raw
    from mogacore.models import SimVP

    model = SimVP(3, in_channels=3, spatial_dims=8, temporal_dims=16, temporal_depth=2).eval()
    frames = torch.rand(2, 3, 3, 16, 16)  # three frames, not three channels
    with torch.no_grad():
        (found,) = Raw(model, Source(model).cfg)(frames)
        torch.testing.assert_close(found, model(frames))
