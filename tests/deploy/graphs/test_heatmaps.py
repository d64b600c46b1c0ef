import numpy as np
import pytest
import torch

from mogacore.deploy.graphs.heatmaps import UDP, Dark, QuarterShift
from mogacore.libraries import import_quietly


def heatmaps():
    """(3, 12, 24, 18): noisy Gaussians, some at the border or outside, and maps without a positive value."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :18]
    centers = rng.uniform(-1, [19, 25], (3, 12, 2))[..., None, None]
    maps = np.exp(-((x - centers[:, :, 0]) ** 2 + (y - centers[:, :, 1]) ** 2) / 8)
    maps += 0.01 * rng.standard_normal(maps.shape)
    for place, (row, column) in enumerate([(0, 0), (23, 17), (1, 1), (22, 16), (12, 1), (1, 9)]):
        maps[0, place, row, column] = 3
    maps[0, 7] = -1 - rng.random((24, 18))
    maps[2, 11] = -0.5 - rng.random((24, 18))
    return maps.astype(np.float32)


@pytest.mark.parametrize('decoder, settings', [(QuarterShift, {}), (Dark, {'unbiased': True}), (UDP, {})])
def test_decoders_are_those_of_mmpose(decoder, settings):
    pytest.importorskip('mmpose')
    import_quietly('mmpose')
    from mmpose.codecs import MSRAHeatmap, UDPHeatmap

    sizes = dict(input_size=(72, 96), heatmap_size=(18, 24))
    codec = UDPHeatmap(**sizes) if decoder is UDP else MSRAHeatmap(sigma=2, **sizes, **settings)
    maps = heatmaps()
    keypoints, scores = decoder(codec)(torch.from_numpy(maps))
    expected = [codec.decode(image_maps) for image_maps in maps]
    np.testing.assert_allclose(keypoints, np.concatenate([points for points, _ in expected]), rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(scores, np.concatenate([values for _, values in expected]))
