"""Metrics of predicted frames against their formulas, written out."""

import math

import numpy as np
import pytest
import torch

from mogacore.errors import UserError
from mogacore.evaluation.video import VideoPredictionMetric, psnr, ssim

SHAPE = (3, 2, 12, 14)  # T, C, H, W


@pytest.fixture
def frames():
    """Predictions beyond 0..1, and targets within, of five sequences."""
    rng = np.random.default_rng(0)
    target = rng.random((5, *SHAPE), np.float32)
    return (target + rng.normal(0, 0.3, target.shape)).astype(np.float32), target


def evaluate(predicted, target, meta=None, inputs=None, **settings):
    metric = VideoPredictionMetric(**settings)
    metric.dataset_meta = meta
    for start in (0, 2):  # batches of two and of the rest
        part = slice(start, 2 if start == 0 else None)
        samples = [
            dict(pred_frames=torch.from_numpy(p), gt_frames=torch.from_numpy(t))
            for p, t in zip(predicted[part], target[part], strict=True)
        ]
        metric.process({'inputs': None if inputs is None else inputs[part]}, samples)
    return metric.evaluate(len(target))


def ssim_written_out(x, y, data_range):
    """Structural similarity of two (H, W) frames: a window of 7, sample covariance, the border left out."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for top in range(x.shape[0] - 6):
        for left in range(x.shape[1] - 6):
            a, b = x[top : top + 7, left : left + 7].ravel(), y[top : top + 7, left : left + 7].ravel()
            (var_a, cov), (_, var_b) = np.cov(a, b)
            luminance = (2 * a.mean() * b.mean() + c1) / (a.mean() ** 2 + b.mean() ** 2 + c1)
            values.append(luminance * (2 * cov + c2) / (var_a + var_b + c2))
    return np.mean(values)


def test_all_metrics_agree_with_their_formulas(frames):
    predicted, target = (array.astype(np.float64) for array in frames)
    found = evaluate(*frames, metric=('mse', 'mae', 'rmse', 'ssim', 'psnr'))
    difference = predicted - target
    mse = (difference**2).sum((2, 3, 4)).mean()
    clipped = predicted.clip(0, 1)
    similarity = [
        ssim_written_out(clipped[n, t, c], target[n, t, c], 2.0) for n in range(5) for t in range(3) for c in range(2)
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


def test_a_constant_error_has_the_square_of_each_pixel():
    target = np.full((2, *SHAPE), 0.5, np.float32)
    predicted = target + np.float32(0.25)
    found = evaluate(predicted, target, metric=('mse', 'mae', 'rmse'))
    assert found == pytest.approx({'video/mse': 2 * 12 * 14 / 16, 'video/mae': 2 * 12 * 14 / 4, 'video/rmse': 21**0.5})
    found = evaluate(predicted, target, metric=('mse', 'mae', 'rmse'), spatial_norm=True)
    assert found == pytest.approx({'video/mse': 1 / 16, 'video/mae': 1 / 4, 'video/rmse': 1 / 4})


def test_the_range_of_one_gives_a_clearly_lower_similarity(frames):
    predicted, target = 0.1 * frames[0][0].clip(0, 1), 0.1 * frames[1][0]
    narrow = np.mean([ssim_written_out(p, t, 1.0) for p, t in zip(predicted[:, 0], target[:, 0], strict=True)])
    assert ssim(predicted[:, :1], target[:, :1]) > narrow + 0.01
    assert ssim(target, target) == pytest.approx(1)


def test_frames_predicted_to_the_bit_have_infinite_psnr(frames):
    assert psnr(frames[1][0], frames[1][0]) == math.inf


def test_weather_is_told_in_its_unit_by_variable_and_as_their_mean(frames):
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


def test_repeating_the_last_frame_is_told_beside(frames):
    _, target = frames
    inputs = torch.rand(5, 4, *SHAPE[1:])
    found = evaluate(*frames, inputs=inputs, metric=('mse',), copy_last=True)
    last = inputs[:, -1:].numpy().astype(np.float64)
    assert found['video/copy_last_mse'] == pytest.approx(((last - target) ** 2).sum((2, 3, 4)).mean())
    assert found['video/mse'] == evaluate(*frames, metric=('mse',))['video/mse']


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(metric=('lpips',)), "metric 'lpips' is unknown: choose from mse, mae"),
        (dict(metric=()), 'metric is empty'),
        (dict(groups=dict(t=2)), 'ssim and psnr are of whole frames'),
    ],
)
def test_wrong_settings_are_told(settings, message):
    with pytest.raises(UserError, match=message):
        VideoPredictionMetric(**settings)


def test_groups_that_do_not_add_up_are_told(frames):
    with pytest.raises(UserError, match='do not fit 2 channels'):
        evaluate(*frames, metric=('mse',), groups=dict(t=3))
