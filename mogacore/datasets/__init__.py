"""Data sets that no task library has."""

from .idx import FashionMNISTFiles

__all__ = ['FashionMNISTFiles']
