"""Metrics that no task library has."""

from .hand import HandJointMetric
from .video import VideoPredictionMetric

__all__ = ['HandJointMetric', 'VideoPredictionMetric']
