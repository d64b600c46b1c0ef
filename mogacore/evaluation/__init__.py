"""Metrics that no task library has."""

from .video import VideoPredictionMetric

__all__ = ['VideoPredictionMetric']
