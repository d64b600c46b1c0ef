"""Metrics of video prediction as used in the published tables.

Arrays are (T, C, H, W), in the unit of the data. Source: the metrics of OpenSTL (chengtan9907/OpenSTL).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from mogacore.errors import UserError

from .perceptual import PerceptualDistance

# Metrics of whole frames, which cannot be split into groups of channels.
FRAME_METRICS = ('ssim', 'psnr', 'lpips')
NAMES = ('mse', 'mae', 'rmse', *FRAME_METRICS)
# For float images, scikit-image up to 0.19 used the width of -1..1 as the default range.
SSIM_DATA_RANGE = 2.0
SSIM_WINDOW = 7  # pixels


def channel_errors(predicted: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared and absolute error per channel, summed over the pixels and averaged over the frames; (C,) each."""
    difference = predicted.astype(np.float64) - target
    return (difference**2).sum((2, 3)).mean(0), np.abs(difference).sum((2, 3)).mean(0)


def ssim(predicted: np.ndarray, target: np.ndarray) -> float:
    """Structural similarity, averaged over the frames; predictions are clipped to 0..1.

    Uniform 7 x 7 window, sample covariance, K1 = 0.01, K2 = 0.03, without a border of 3 pixels, averaged over the
    channels. The **data range is 2**, as in the published values; with the actual range of 1, it would be lower.
    """
    from skimage.metrics import structural_similarity

    return float(
        np.mean(
            [
                structural_similarity(ours, theirs, win_size=SSIM_WINDOW, data_range=SSIM_DATA_RANGE, channel_axis=0)
                for ours, theirs in zip(_clipped(predicted), target.astype(np.float64), strict=True)
            ]
        )
    )


def psnr(predicted: np.ndarray, target: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB with peak 1, averaged over the frames; predictions are clipped to 0..1.

    It is infinite if a frame is predicted exactly.
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
    """Metrics of predicted frames, averaged over the whole test set.

    ``mse`` and ``mae`` are summed over the pixels and channels of a frame and averaged over all frames; ``rmse`` is the
    square root of ``mse``; for ``ssim``, ``psnr`` and ``lpips``, see :func:`ssim`, :func:`psnr` and
    :class:`PerceptualDistance`. Frames are first converted to the unit of the data with ``mean`` and ``std`` of the
    data set's metainfo.

    Args:
        metric: Names of the metrics, from ``mse, mae, rmse, ssim, psnr, lpips``, or a single one.
        spatial_norm: Divide the sums by the number of pixels and channels, which gives the usual mean, as for weather.
        groups: Number of channels of each variable, in order. Each metric is reported per variable; the plain name is
            the mean over the variables. Not available for ``ssim``, ``psnr`` and ``lpips``.
        copy_last: Also report the metrics of repeating the last input frame, as ``copy_last_mse`` etc.: the baseline.
        lpips_weights: Weight file of torchvision's AlexNet, required for ``lpips``.
        **kwargs: Passed to mmengine's BaseMetric.

    Raises:
        UserError: If a name is unknown or not available with ``groups``, ``groups`` do not add up to the number of
            channels, only one of ``lpips`` and ``lpips_weights`` is given, or :class:`PerceptualDistance` raises it.
    """

    default_prefix = 'video'

    def __init__(
        self,
        metric: str | Sequence[str] = ('mse', 'mae', 'ssim', 'psnr'),
        spatial_norm: bool = False,
        groups: Mapping[str, int] | None = None,
        copy_last: bool = False,
        lpips_weights: str | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        metric = [metric] if isinstance(metric, str) else metric
        unknown = [name for name in metric if name not in NAMES]
        if unknown or not metric:
            found = f'metric {unknown[0]!r} is unknown' if unknown else 'metric is empty'
            raise UserError(f'{found}: choose from {", ".join(NAMES)}')
        if groups and (whole := [name for name in FRAME_METRICS if name in metric]):
            names = ' and '.join(whole)
            raise UserError(f'{names} cannot be computed per group: remove groups, or {names} from metric')
        if 'lpips' in metric and lpips_weights is None:
            raise UserError(
                "the metric lpips needs lpips_weights: give the file of torchvision's AlexNet, see "
                'docs/video_prediction.md, or remove lpips from metric'
            )
        if 'lpips' not in metric and lpips_weights is not None:
            raise UserError(f'lpips_weights is {lpips_weights}, but metric does not contain lpips: add it')
        self.metrics, self.spatial_norm = tuple(metric), spatial_norm
        self.groups, self.copy_last = dict(groups or {}), copy_last
        self.frame_metrics: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
            name: function for name, function in (('ssim', ssim), ('psnr', psnr)) if name in metric
        }
        if lpips_weights is not None:
            self.frame_metrics['lpips'] = PerceptualDistance(lpips_weights)

    def process(self, data_batch: Mapping, data_samples: Sequence[Mapping]) -> None:
        """Compute the errors of a batch.

        Args:
            data_batch: ``inputs``, B times (T, C, H, W); only used with ``copy_last``.
            data_samples: B dicts with ``pred_frames`` and ``gt_frames``, (T, C, H, W) tensors.

        Raises:
            UserError: If predictions and targets have different shapes, or frames are too small for ``ssim``.
        """
        for index, sample in enumerate(data_samples):
            target = self._denormalize(sample['gt_frames'])
            predicted = self._denormalize(sample['pred_frames'])
            if predicted.shape != target.shape:
                raise UserError(
                    f'the predicted frames are {predicted.shape}, but the target frames {target.shape}: make '
                    'model.num_targets match the data'
                )
            result = {'': self._errors(predicted, target)}
            if self.copy_last:
                last = self._denormalize(data_batch['inputs'][index][-1:])
                result['copy_last_'] = self._errors(np.broadcast_to(last, target.shape), target)
            self.results.append(result)

    def _denormalize(self, frames) -> np.ndarray:
        meta = self.dataset_meta or {}
        mean, std = (
            np.reshape(np.asarray(meta.get(key, default), np.float64), (-1, 1, 1))
            for key, default in (('mean', 0.0), ('std', 1.0))
        )
        return frames.detach().cpu().numpy().astype(np.float64) * std + mean

    def _errors(self, predicted: np.ndarray, target: np.ndarray) -> dict:
        if 'ssim' in self.frame_metrics and min(target.shape[-2:]) < SSIM_WINDOW:
            raise UserError(
                f'frames of {target.shape[-2]} x {target.shape[-1]} px are smaller than the window of the metric ssim, '
                f'{SSIM_WINDOW} px: remove ssim from metric, or use larger frames'
            )
        squared, absolute = channel_errors(predicted, target)
        if self.spatial_norm:
            squared, absolute = squared / target[0, 0].size, absolute / target[0, 0].size
        errors: dict[str, np.ndarray | float] = {'squared': squared, 'absolute': absolute}
        return errors | {name: function(predicted, target) for name, function in self.frame_metrics.items()}

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Metrics by name, from the errors of all sequences."""
        metrics: dict[str, float] = {}
        for prefix in results[0]:
            means = {key: np.mean([result[prefix][key] for result in results], axis=0) for key in results[0][prefix]}
            metrics |= {f'{prefix}{name}': float(value) for name, value in self._from_means(means).items()}
        return metrics

    def _from_means(self, means: dict) -> dict[str, float]:
        groups = self.groups or {'': len(means['squared'])}
        if sum(groups.values()) != len(means['squared']):
            raise UserError(
                f'groups {self.groups} do not add up to the {len(means["squared"])} channels of the data: correct them'
            )
        by_group, start = {}, 0
        for group, size in groups.items():
            reduce = np.mean if self.spatial_norm else np.sum
            mse, mae = (reduce(means[key][start : start + size]) for key in ('squared', 'absolute'))
            by_group[group] = {'mse': mse, 'mae': mae, 'rmse': np.sqrt(mse)}
            start += size
        overall = {name: np.mean([values[name] for values in by_group.values()]) for name in ('mse', 'mae', 'rmse')}
        overall |= {name: means[name] for name in self.frame_metrics}
        selected = {name: overall[name] for name in self.metrics}
        if self.groups:
            selected |= {f'{group}_{name}': by_group[group][name] for group in groups for name in self.metrics}
        return selected
