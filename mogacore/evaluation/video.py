"""Metrics of video prediction as the published tables have them.

Arrays are (T, C, H, W), in the unit of the data. Source: the metrics of OpenSTL (chengtan9907/OpenSTL).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from mogacore.errors import UserError

NAMES = ('mse', 'mae', 'rmse', 'ssim', 'psnr')
# scikit-image up to 0.19 took the width of -1..1 for the range of float images that nobody gave one.
SSIM_DATA_RANGE = 2.0


def channel_errors(predicted: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared and absolute error of each channel, summed over the pixels of a frame, mean of the frames; (C,) each."""
    difference = predicted.astype(np.float64) - target
    return (difference**2).sum((2, 3)).mean(0), np.abs(difference).sum((2, 3)).mean(0)


def ssim(predicted: np.ndarray, target: np.ndarray) -> float:
    """Structural similarity, mean of the frames; predictions are clipped to 0..1.

    A uniform window of 7 x 7, sample covariance, K1 = 0.01, K2 = 0.03, the border of 3 pixels left out, mean of the
    channels, and **a data range of 2**, as in the published values; with the range 1 that pictures have it is lower.
    """
    from skimage.metrics import structural_similarity

    return float(
        np.mean(
            [
                structural_similarity(ours, theirs, data_range=SSIM_DATA_RANGE, channel_axis=0)
                for ours, theirs in zip(_clipped(predicted), target.astype(np.float64), strict=True)
            ]
        )
    )


def psnr(predicted: np.ndarray, target: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB with peak 1, mean of the frames; predictions are clipped to 0..1.

    Infinite where a frame is predicted to the bit.
    """
    from skimage.metrics import peak_signal_noise_ratio

    with np.errstate(divide='ignore'):
        return float(
            np.mean(
                [
                    peak_signal_noise_ratio(theirs, ours, data_range=1.0)
                    for ours, theirs in zip(_clipped(predicted), target.astype(np.float64), strict=True)
                ]
            )
        )


def _clipped(predicted: np.ndarray) -> np.ndarray:
    return np.clip(predicted.astype(np.float64), 0, 1)


@METRICS.register_module()
class VideoPredictionMetric(BaseMetric):
    """Metrics of predicted frames against the true ones, over a whole test set.

    ``mse`` and ``mae`` are the error of a frame, summed over its pixels and channels, mean of all frames; ``rmse`` is
    the root of that mean; ``ssim`` and ``psnr`` see :func:`ssim` and :func:`psnr`. Frames are first brought into the
    unit of the data by ``mean`` and ``std`` of the data set's meta.

    Args:
        metric: Names of the metrics, of ``mse, mae, rmse, ssim, psnr``.
        spatial_norm: Divide the sums by the number of pixels and channels: the ordinary mean, as for weather.
        groups: Number of channels of each variable, in order. Each metric is told for each variable, and the plain name
            is the mean of the variables. Not for ``ssim`` and ``psnr``.
        copy_last: Also tell the metrics of repeating the last input frame, as ``copy_last_mse`` and so on: what a
            prediction must beat.
        **kwargs: As of mmengine's BaseMetric.

    Raises:
        UserError: If a name is unknown or does not go with ``groups``; when ``groups`` do not add up to the channels.
    """

    default_prefix = 'video'

    def __init__(
        self,
        metric: Sequence[str] = ('mse', 'mae', 'ssim', 'psnr'),
        spatial_norm: bool = False,
        groups: Mapping[str, int] | None = None,
        copy_last: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        unknown = [name for name in metric if name not in NAMES]
        if unknown or not metric:
            found = f'metric {unknown[0]!r} is unknown' if unknown else 'metric is empty'
            raise UserError(f'{found}: choose from {", ".join(NAMES)}')
        if groups and {'ssim', 'psnr'} & set(metric):
            raise UserError('ssim and psnr are of whole frames: leave them or groups out')
        self.metrics, self.spatial_norm = tuple(metric), spatial_norm
        self.groups, self.copy_last = dict(groups or {}), copy_last

    def process(self, data_batch: Mapping, data_samples: Sequence[Mapping]) -> None:
        """Take the errors of a batch.

        Args:
            data_batch: ``inputs``, B times (T, C, H, W); only used with ``copy_last``.
            data_samples: B dicts with ``pred_frames`` and ``gt_frames``, (T, C, H, W) tensors.
        """
        for index, sample in enumerate(data_samples):
            target = self._in_unit(sample['gt_frames'])
            result = {'': self._errors(self._in_unit(sample['pred_frames']), target)}
            if self.copy_last:
                last = self._in_unit(data_batch['inputs'][index][-1:])
                result['copy_last_'] = self._errors(np.broadcast_to(last, target.shape), target)
            self.results.append(result)

    def _in_unit(self, frames) -> np.ndarray:
        meta = self.dataset_meta or {}
        mean, std = (
            np.reshape(np.asarray(meta.get(key, default), np.float64), (-1, 1, 1))
            for key, default in (('mean', 0.0), ('std', 1.0))
        )
        return frames.detach().cpu().numpy().astype(np.float64) * std + mean

    def _errors(self, predicted: np.ndarray, target: np.ndarray) -> dict:
        squared, absolute = channel_errors(predicted, target)
        if self.spatial_norm:
            squared, absolute = squared / target[0, 0].size, absolute / target[0, 0].size
        errors = {'squared': squared, 'absolute': absolute}
        for name, function in (('ssim', ssim), ('psnr', psnr)):
            if name in self.metrics:
                errors[name] = function(predicted, target)
        return errors

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Metric name to value, out of the errors of all sequences."""
        metrics = {}
        for prefix in results[0]:
            means = {key: np.mean([result[prefix][key] for result in results], axis=0) for key in results[0][prefix]}
            metrics |= {f'{prefix}{name}': float(value) for name, value in self._from_means(means).items()}
        return metrics

    def _from_means(self, means: dict) -> dict[str, float]:
        groups = self.groups or {'': len(means['squared'])}
        if sum(groups.values()) != len(means['squared']):
            raise UserError(f'groups {self.groups} do not fit {len(means["squared"])} channels: make them add up')
        by_group, start = {}, 0
        for group, size in groups.items():
            reduce = np.mean if self.spatial_norm else np.sum
            mse, mae = (reduce(means[key][start : start + size]) for key in ('squared', 'absolute'))
            by_group[group] = {'mse': mse, 'mae': mae, 'rmse': np.sqrt(mse)}
            start += size
        found = {name: np.mean([values[name] for values in by_group.values()]) for name in ('mse', 'mae', 'rmse')}
        found |= {name: means[name] for name in ('ssim', 'psnr') if name in means}
        told = {name: found[name] for name in self.metrics}
        if self.groups:
            told |= {f'{group}_{name}': by_group[group][name] for group in groups for name in self.metrics}
        return told
