import pytest
import torch
from torch import nn

from mogacore.deploy.graphs.layers import AdaptivePool, Enlarge, replace_sized_layers


@pytest.mark.parametrize('size', [(1, 1), (2, 2), (3, 3), (6, 6), (2, 5)])
@pytest.mark.parametrize('height, width', [(6, 6), (7, 13), (20, 11), (1, 3)])
def test_pooling_is_that_of_torch(size, height, width):
    x = torch.randn(2, 3, height, width)
    torch.testing.assert_close(AdaptivePool(size)(x), nn.AdaptiveAvgPool2d(size)(x))


def test_layers_of_one_size_are_replaced_and_others_kept():
    pytest.importorskip('mmseg')
    from mmseg.models.utils import Upsample

    keeps_height = nn.AdaptiveAvgPool2d((None, 3))
    model = nn.Sequential(
        nn.AdaptiveAvgPool2d(3),
        nn.AdaptiveAvgPool2d(1),  # a mean, which exports for every size
        keeps_height,
        nn.Sequential(Upsample(scale_factor=2, mode='bilinear', align_corners=False)),
        Upsample(scale_factor=1.5),
    )
    x = torch.randn(1, 2, 9, 7)
    expected = [layer(x) for layer in model]
    replace_sized_layers(model)
    kinds = [type(layer[0] if isinstance(layer, nn.Sequential) else layer) for layer in model]
    assert kinds == [AdaptivePool, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool2d, Enlarge, Upsample]
    for layer, before in zip(model, expected, strict=True):
        torch.testing.assert_close(layer(x), before)
