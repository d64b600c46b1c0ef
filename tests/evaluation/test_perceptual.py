"""LPIPS compared with its formula and with the package lpips, for an AlexNet with random weights."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mogacore.errors import UserError
from mogacore.evaluation import perceptual
from mogacore.evaluation.video import VideoPredictionMetric

# Number of the layer in torchvision's AlexNet, input and output channels, kernel, stride, padding.
CONVOLUTIONS = [(0, 3, 64, 11, 4, 2), (3, 64, 192, 5, 1, 2), (6, 192, 384, 3, 1, 1), (8, 384, 256, 3, 1, 1),
                (10, 256, 256, 3, 1, 1)]  # fmt: skip
POOLED = (3, 6)  # layers after a 3 x 3 max pooling with stride 2


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """A file in torchvision's layout, with the last layer of its classifier instead of all three."""
    state_dict = {'classifier.6.bias': torch.zeros(1000)}
    for number, inputs, outputs, kernel, *_ in CONVOLUTIONS:
        convolution = nn.Conv2d(inputs, outputs, kernel)
        state_dict |= {f'features.{number}.{name}': value for name, value in convolution.state_dict().items()}
    path = tmp_path_factory.mktemp('weights') / 'alexnet.pth'
    torch.save(state_dict, path)
    return path


def metric_of(predicted, target, weights):
    """The metric of sequences (N, T, C, H, W)."""
    metric = VideoPredictionMetric(metric=('mse', 'lpips'), lpips_weights=str(weights))
    for p, t in zip(predicted, target, strict=True):
        metric.process({}, [dict(pred_frames=torch.from_numpy(p), gt_frames=torch.from_numpy(t))])
    return metric.evaluate(len(target))['video/lpips']


def sequences(channels, num_frames=3):
    """Predictions, which exceed 0..1, and targets of two sequences."""
    rng = np.random.default_rng(0)
    target = rng.random((2, num_frames, channels, 35, 40), np.float32)
    return (target + rng.normal(0, 0.3, target.shape)).astype(np.float32), target


def features_by_formula(frame, state_dict):
    """Outputs of AlexNet's five ReLUs for a (3, H, W) frame in 0..1, each with unit length across the channels."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    x, features = ((2 * frame - 1 - mean) / std)[None], []
    for number, _, _, _, stride, padding in CONVOLUTIONS:
        x = F.max_pool2d(x, 3, 2) if number in POOLED else x
        kernel, bias = (state_dict[f'features.{number}.{name}'] for name in ('weight', 'bias'))
        x = F.conv2d(x, kernel, bias, stride, padding).relu()
        features.append(x[0] / (x[0].norm(dim=0) + 1e-10))
    return features


@pytest.mark.parametrize('channels', [1, 3])
def test_lpips_matches_its_formula(channels, weights):
    lpips = pytest.importorskip('lpips')
    predicted, target = sequences(channels)
    state_dict = torch.load(weights, weights_only=True)
    linear = torch.load(Path(lpips.__file__).parent / 'weights' / 'v0.1' / 'alex.pth', 'cpu', weights_only=True)
    distances = []
    for p, t in zip(
        predicted.clip(0, 1).reshape(6, channels, 35, 40), target.reshape(6, channels, 35, 40), strict=True
    ):
        pair = [
            features_by_formula(torch.from_numpy(frame).expand(3, -1, -1), state_dict)  # gray is repeated
            for frame in (p, t)
        ]
        distances.append(
            sum(
                ((a - b) ** 2 * linear[f'lin{level}.model.1.weight'][0]).sum(0).mean().item()
                for level, (a, b) in enumerate(zip(*pair, strict=True))
            )
        )
    assert np.ptp(distances) > 0.001
    assert metric_of(predicted, target, weights) == pytest.approx(np.mean(distances), rel=1e-4)


def test_chunks_of_frames_give_the_distances_of_the_package_frame_by_frame(weights, monkeypatch):
    """Three chunks, the last with one frame."""
    lpips = pytest.importorskip('lpips')
    network = lpips.LPIPS(net='alex', pnet_rand=True, verbose=False)
    state_dict = torch.load(weights, weights_only=True)
    torchvision_names = {name: f'features.{name.split(".", 1)[1]}' for name in network.net.state_dict()}
    network.net.load_state_dict({name: state_dict[file] for name, file in torchvision_names.items()})
    monkeypatch.setattr(perceptual, 'CHUNK', 2)
    predicted, target = sequences(3, num_frames=5)
    with torch.no_grad():
        distances = [
            network(torch.from_numpy(2 * p.clip(0, 1) - 1)[None], torch.from_numpy(2 * t - 1)[None]).item()
            for p, t in zip(predicted.reshape(10, 3, 35, 40), target.reshape(10, 3, 35, 40), strict=True)
        ]
    assert metric_of(predicted, target, weights) == pytest.approx(np.mean(distances), rel=1e-5)


def test_equal_frames_have_distance_zero(weights):
    pytest.importorskip('lpips')
    _, target = sequences(1)
    assert metric_of(target, target, weights) == 0


def test_building_the_network_leaves_the_random_numbers_of_a_run_unchanged(weights):
    pytest.importorskip('lpips')
    state = torch.get_rng_state()
    perceptual.PerceptualDistance(weights)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize('shape', [(2, 32, 32), (3, 30, 40)])
def test_frames_without_lpips_are_reported(shape, weights):
    pytest.importorskip('lpips')
    frames = np.zeros((1, 1, *shape), np.float32)
    with pytest.raises(UserError, match=f'lpips is not defined for frames of {" x ".join(map(str, shape))}'):
        metric_of(frames, frames, weights)


def test_weights_that_are_missing_or_of_another_network_are_reported(weights, tmp_path):
    pytest.importorskip('lpips')
    with pytest.raises(UserError, match=r'absent\.pth'):
        perceptual.PerceptualDistance(tmp_path / 'absent.pth')
    state_dict = torch.load(weights, weights_only=True)
    torch.save(state_dict | {'features.3.weight': torch.zeros(2, 2)}, tmp_path / 'other.pth')
    with pytest.raises(UserError, match=r'other\.pth are not the weights of AlexNet, features\.3\.weight'):
        perceptual.PerceptualDistance(tmp_path / 'other.pth')


def test_missing_package_is_reported(weights, monkeypatch):
    monkeypatch.setitem(sys.modules, 'lpips', None)
    with pytest.raises(UserError, match='needs the package lpips: run "pip install lpips"'):
        VideoPredictionMetric(metric=('lpips',), lpips_weights=str(weights))
