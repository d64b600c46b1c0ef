"""Metrics that no task library provides."""

from .confusion import ConfusionMatrixPlot
from .hand import HandJointMetric
from .robustness import CorruptionError, SubsetAccuracy
from .video import VideoPredictionMetric

__all__ = ['ConfusionMatrixPlot', 'CorruptionError', 'HandJointMetric', 'SubsetAccuracy', 'VideoPredictionMetric']
