"""The corruptions of ImageNet-C, and the errors of AlexNet by which the mean corruption error is normalized."""

from __future__ import annotations

SEVERITIES = range(1, 6)
# Top-1 error of AlexNet, mean over the severities. Source: Hendrycks and Dietterich, arXiv 1903.12261, with the digits
# of the authors' repository, hendrycks/robustness.
ALEXNET_ERRORS = {
    'gaussian_noise': 0.886428,
    'shot_noise': 0.894468,
    'impulse_noise': 0.922640,
    'defocus_blur': 0.819880,
    'glass_blur': 0.826268,
    'motion_blur': 0.785948,
    'zoom_blur': 0.798360,
    'snow': 0.866816,
    'frost': 0.826572,
    'fog': 0.819324,
    'brightness': 0.564592,
    'contrast': 0.853204,
    'elastic_transform': 0.646056,
    'pixelate': 0.717840,
    'jpeg_compression': 0.606500,
}
