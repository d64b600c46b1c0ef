"""Statistics of the data of a config: classes, objects, sizes, and what may be wrong."""

from .run import statistics

__all__ = ['statistics']
