"""Images and annotations as the network gets them: after the augmentations of a pipeline and the data preprocessor."""

from .run import browse

__all__ = ['browse']
