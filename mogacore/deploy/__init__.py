"""Deployment: folding and export of trained networks."""

from .fuse import fuse, unfused

__all__ = ['fuse', 'unfused']
