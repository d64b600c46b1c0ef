import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import TINY_ARCH
from torch import nn

from mogacore.analysis import receptive_field as module
from mogacore.analysis.classifiers import ModelSpec
from mogacore.analysis.receptive_field import mean_frequency, order_spectra, receptive_field, side_holding
from mogacore.errors import UserError
from mogacore.models import MogaNetClassifier


def test_field_of_a_convolution_is_its_kernel():
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    field, center = receptive_field(conv, conv, torch.randn(4, 1, 9, 9))
    kernel = conv.weight.detach()[0, 0].abs().double()
    expected = np.zeros((9, 9))
    expected[3:6, 3:6] = kernel / kernel.sum()
    np.testing.assert_allclose(field, expected, rtol=1e-5)
    assert center == (4, 4)


def test_center_of_a_cell_over_several_pixels():
    pool = nn.AvgPool2d(4)
    field, center = receptive_field(pool, pool, torch.randn(1, 3, 12, 8))
    assert center == (5.5, 5.5)  # row 1 of 3, column 1 of 2
    assert np.count_nonzero(field) == 16 and field[4:8, 4:8].sum() == pytest.approx(1)


def test_center_of_a_cell_of_strided_convolutions():
    """With kernels of 3 and a padding of 1, cell i sees the pixels around i times the stride."""
    layers = nn.Sequential(*(nn.Conv2d(1, 1, 3, 2, 1, bias=False) for _ in range(3)))
    for layer in layers:
        nn.init.ones_(layer.weight)
    field, center = receptive_field(layers, layers, torch.randn(1, 1, 64, 48))
    assert center == (32, 24)  # row 4 of 8, column 3 of 6
    rows, columns = np.nonzero(field)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (32 - 7, 32 + 7, 24 - 7, 24 + 7)


def test_side_of_the_square_that_contains_a_share():
    field = np.full((7, 7), 1 / 49)
    for share, side in ((1 / 49, 1), (9 / 49, 3), (10 / 49, 5), (1.0, 7)):
        assert side_holding(field, (3, 3), share - 1e-9) == side
    assert side_holding(field, (2.5, 2.5), 3.9 / 49) == 2  # the four pixels around a corner


def test_the_squares_in_the_figure_are_centered_on_the_cell_and_have_the_reported_sides(monkeypatch):
    figures = []
    monkeypatch.setattr(module, 'write_figure', lambda path, figure, **settings: figures.append(figure))
    sides = {'0.2': 3.0, '0.5': 5.0, '0.95': 7.0}
    field = np.full((9, 8), 1 / 72)
    module.draw_fields(
        {'a': (field, (4.0, 3.5))}, {'models': {'a': {'layer': 'norm4', 'side': sides}}}, 'unused.png'
    )  # fmt: skip
    axis = figures[0].axes[0]
    boxes = [patch.get_bbox() for patch in axis.patches]
    assert [(box.width, box.height) for box in boxes] == [(side, side) for side in sides.values()]
    assert {((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2) for box in boxes} == {(3.5, 4.0)}
    assert axis.get_xlim() == (-0.5, 7.5) and axis.get_ylim() == (8.5, -0.5)  # the image, not the squares


def test_a_layer_that_ignores_the_image_is_reported():
    class Apart(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Conv2d(1, 1, 1)

        def forward(self, x):
            return self.part(x * 0)

    network = Apart()
    with pytest.raises(UserError, match='does not depend'):
        receptive_field(network, network.part, torch.randn(1, 1, 5, 5))


def test_mean_frequency_of_waves():
    x = torch.arange(16, dtype=torch.float64)
    wave = torch.cos(2 * math.pi * x / 4).expand(1, 1, 16, 16) + 5
    assert mean_frequency(wave) == pytest.approx(1 / 4)
    both = wave + 2 * torch.cos(2 * math.pi * x / 8).view(1, 1, 16, 1)
    assert mean_frequency(both) == pytest.approx((1 / 4 + 4 / 8) / 5)
    assert mean_frequency(torch.ones(2, 3, 1, 1)) is None


def test_orders_sum_to_the_output_of_the_convolution():
    """Shares computed from each part of the weights of the mixing convolution."""
    network = MogaNetClassifier(3, arch=TINY_ARCH, layer_scale_init=1.0).eval()
    images = torch.randn(2, 3, 64, 64)
    value = network.blocks3[0].attn.value
    kept = {}
    handle = value.PW_conv.register_forward_hook(lambda m, args, out: kept.update(x=args[0], y=out))
    found = order_spectra(network, network, images)
    handle.remove()
    assert [row['layer'] for row in found] == [
        'blocks1.0.attn.value', 'blocks2.0.attn.value', 'blocks3.0.attn.value', 'blocks3.1.attn.value',
        'blocks4.0.attn.value',
    ]  # fmt: skip
    ends = np.cumsum((0, *value.split_dims))
    maps = []
    for start, end in pairwise(ends):
        part = torch.zeros_like(kept['x'])
        part[:, start:end] = kept['x'][:, start:end]
        maps.append(nn.functional.conv2d(part, value.PW_conv.weight))
    bias = value.PW_conv.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(sum(maps) + bias, kept['y'], rtol=1e-4, atol=1e-5)
    energies = [one.var((0, 2, 3), unbiased=False).sum().item() for one in maps]
    np.testing.assert_allclose(found[2]['share'], np.array(energies) / sum(energies), rtol=1e-4)
    assert all(0 < f <= math.sqrt(0.5) for f in found[2]['frequency'])
    with pytest.raises(UserError, match='no multi-order'):
        order_spectra(nn.Conv2d(3, 3, 1), nn.Identity(), images)


def test_report_and_drawings(tmp_path, monkeypatch):
    class Stub:
        def __init__(self, label):
            self.spec, self.images = ModelSpec(label, label, None), [(torch.randn(1, 3, 64, 64), 0)] * 5
            self.network = MogaNetClassifier(3, arch=TINY_ARCH).eval()

        def __call__(self, images):
            return self.network(images)

    monkeypatch.setattr(module, 'open_classifiers', lambda *args: [Stub('a'), Stub('b')])
    module.run([], tmp_path, num_images=3, size=96)
    report = json.loads((tmp_path / 'receptive_field.json').read_text())
    assert report['models']['a']['size'] == [96, 96] and report['models']['b']['images'] == 3
    sides = list(report['models']['a']['side'].values())
    assert 0 < sides[0] <= sides[1] <= sides[2]
    assert len(report['models']['a']['orders']) == 5
    assert (tmp_path / 'receptive_field.png').stat().st_size > 1000 and (tmp_path / 'orders.png').stat().st_size > 1000
