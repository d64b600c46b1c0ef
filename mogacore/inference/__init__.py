"""Predictions for images and videos: JSON records, and drawings for every task."""
