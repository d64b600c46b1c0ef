"""The trained network, fast in production."""

from .fuse import fuse

__all__ = ['fuse']
