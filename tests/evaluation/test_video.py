"""Metrics of predicted frames compared with their formulas."""

import math

import numpy as np
import pytest
import torch

from mogacore.errors import UserError
from mogacore.evaluation.video import VideoPredictionMetric, psnr, ssim

SHAPE = (3, 2, 12, 14)  # T, C, H, W


@pytest.fixture
def frames():
    """Predictions, which exceed 0..1, and targets of five sequences."""
    rng = np.random.default_rng(0)
    target = rng.random((5, *SHAPE), np.float32)
    return (target + rng.normal(0, 0.3, target.shape)).astype(np.float32), target


def evaluate(predicted, target, meta=None, inputs=None, **settings):
    metric = VideoPredictionMetric(**settings)
    metric.dataset_meta = meta
    for start in (0, 2):  # one batch of two, one with the rest
        part = slice(start, 2 if start == 0 else None)
        samples = [
            dict(pred_frames=torch.from_numpy(p), gt_frames=torch.from_numpy(t))
            for p, t in zip(predicted[part], target[part], strict=True)
        ]
        metric.process({'inputs': None if inputs is None else inputs[part]}, samples)
    return metric.evaluate(len(target))


def ssim_by_formula(x, y, data_range):
    """Structural similarity of two (H, W) frames: 7 x 7 window, sample covariance, without the border."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for top in range(x.shape[0] - 6):
        for left in range(x.shape[1] - 6):
            a, b = x[top : top + 7, left : left + 7].ravel(), y[top : top + 7, left : left + 7].ravel()
            (var_a, cov), (_, var_b) = np.cov(a, b)
            luminance = (2 * a.mean() * b.mean() + c1) / (a.mean() ** 2 + b.mean() ** 2 + c1)
            values.append(luminance * (2 * cov + c2) / (var_a + var_b + c2))
    return np.mean(values)


def test_all_metrics_match_their_formulas(frames):
    predicted, target = (array.astype(np.float64) for array in frames)
    found = evaluate(*frames, metric=('mse', 'mae', 'rmse', 'ssim', 'psnr'))
    difference = predicted - target
    mse = (difference**2).sum((2, 3, 4)).mean()
    clipped = predicted.clip(0, 1)
    similarity = [
        ssim_by_formula(clipped[n, t, c], target[n, t, c], 2.0) for n in range(5) for t in range(3) for c in range(2)
    ]
    noise = ((clipped - target) ** 2).mean((2, 3, 4))
    expected = {
        'video/mse': mse,
        'video/mae': np.abs(difference).sum((2, 3, 4)).mean(),
        'video/rmse': math.sqrt(mse),
        'video/ssim': np.mean(similarity),
        'video/psnr': np.mean(20 * np.log10(1 / np.sqrt(noise))),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name


def test_metrics_of_a_constant_error_match_values_worked_by_hand():
    target = np.full((2, *SHAPE), 0.5, np.float32)
    predicted = target + np.float32(0.25)
    found = evaluate(predicted, target, metric=('mse', 'mae', 'rmse'))
    assert found == pytest.approx({'video/mse': 2 * 12 * 14 / 16, 'video/mae': 2 * 12 * 14 / 4, 'video/rmse': 21**0.5})
    found = evaluate(predicted, target, metric=('mse', 'mae', 'rmse'), spatial_norm=True)
    assert found == pytest.approx({'video/mse': 1 / 16, 'video/mae': 1 / 4, 'video/rmse': 1 / 4})


def test_a_data_range_of_one_gives_a_lower_similarity(frames):
    predicted, target = 0.1 * frames[0][0].clip(0, 1), 0.1 * frames[1][0]
    narrow = np.mean([ssim_by_formula(p, t, 1.0) for p, t in zip(predicted[:, 0], target[:, 0], strict=True)])
    assert ssim(predicted[:, :1], target[:, :1]) > narrow + 0.01
    assert ssim(target, target) == pytest.approx(1)


def test_exactly_predicted_frames_have_infinite_psnr(frames):
    assert psnr(frames[1][0], frames[1][0]) == math.inf


def test_weather_metrics_are_in_physical_units_per_variable_and_averaged(frames):
    predicted, target = frames
    meta = dict(mean=[270.0, 5.0], std=[10.0, 2.0])
    found = evaluate(*frames, meta, metric=('mse', 'mae', 'rmse'), spatial_norm=True, groups=dict(t=1, u=1))
    errors = (predicted - target).astype(np.float64) * np.array([10.0, 2.0]).reshape(-1, 1, 1)
    for channel, name in enumerate('tu'):
        mse = (errors[:, :, channel] ** 2).mean()
        assert found[f'video/{name}_mse'] == pytest.approx(mse)
        assert found[f'video/{name}_rmse'] == pytest.approx(math.sqrt(mse))
        assert found[f'video/{name}_mae'] == pytest.approx(np.abs(errors[:, :, channel]).mean())
    for metric in ('mse', 'mae', 'rmse'):
        mean = (found[f'video/t_{metric}'] + found[f'video/u_{metric}']) / 2
        assert found[f'video/{metric}'] == pytest.approx(mean)


def test_repeating_the_last_frame_is_reported_as_a_baseline(frames):
    _, target = frames
    inputs = torch.rand(5, 4, *SHAPE[1:])
    found = evaluate(*frames, inputs=inputs, metric=('mse',), copy_last=True)
    last = inputs[:, -1:].numpy().astype(np.float64)
    assert found['video/copy_last_mse'] == pytest.approx(((last - target) ** 2).sum((2, 3, 4)).mean())
    assert found['video/mse'] == evaluate(*frames, metric=('mse',))['video/mse']
    assert evaluate(*frames, metric='mse') == evaluate(*frames, metric=('mse',))


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(metric=('snr',)), "metric 'snr' is unknown: choose from mse, mae"),
        (dict(metric=()), 'metric is empty'),
        (dict(groups=dict(t=2)), 'ssim and psnr cannot be computed per group'),
        (dict(metric=('lpips',), lpips_weights='alexnet.pth', groups=dict(t=2)), 'lpips cannot be computed per group'),
        (dict(metric=('lpips',)), 'the metric lpips needs lpips_weights'),
        (dict(lpips_weights='alexnet.pth'), 'lpips_weights is alexnet.pth, but metric does not contain lpips'),
    ],
)
def test_invalid_settings_are_reported(settings, message):
    with pytest.raises(UserError, match=message):
        VideoPredictionMetric(**settings)


def test_groups_that_do_not_add_up_are_reported(frames):
    with pytest.raises(UserError, match='do not add up to the 2 channels'):
        evaluate(*frames, metric=('mse',), groups=dict(t=3))


@pytest.mark.parametrize('num_predicted', [1, 4])
def test_frames_that_numpy_would_broadcast_are_reported(frames, num_predicted):
    predicted = np.zeros((5, num_predicted, *SHAPE[1:]), np.float32)
    with pytest.raises(UserError, match=rf'are \({num_predicted}, 2, 12, 14\), but the target frames \(3, 2, 12, 14\)'):
        evaluate(predicted, frames[1], metric=('mse',))


@pytest.mark.parametrize('size', [(6, 14), (12, 6)])
def test_frames_smaller_than_the_window_of_ssim_are_reported(frames, size):
    small = [array[..., : size[0], : size[1]] for array in frames]
    with pytest.raises(UserError, match=rf'{size[0]} x {size[1]} px are smaller than the window .* ssim, 7 px'):
        evaluate(*small)
    assert evaluate(*small, metric=('mse',))['video/mse'] > 0
    assert -1 < evaluate(*[array[..., :7, :7] for array in frames], metric=('ssim',))['video/ssim'] < 1
