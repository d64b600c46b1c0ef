"""Metrics that no task library provides."""

from .confusion import ConfusionMatrixPlot
from .hand import HandJointMetric
from .video import VideoPredictionMetric

__all__ = ['ConfusionMatrixPlot', 'HandJointMetric', 'VideoPredictionMetric']
