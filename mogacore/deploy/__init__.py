"""Deployment: folding and export of trained networks."""

from .fuse import fuse

__all__ = ['fuse']
