"""Metrics that no task library provides."""

from .hand import HandJointMetric
from .video import VideoPredictionMetric

__all__ = ['HandJointMetric', 'VideoPredictionMetric']
