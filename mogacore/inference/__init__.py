"""Predictions for a user's own images and videos: JSON records, and drawings of every task."""
