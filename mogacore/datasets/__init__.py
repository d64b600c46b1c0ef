"""Data sets, and an augmentation, that no task library provides."""

from .erasing import NormalizedRandomErasing
from .freihand import FreiHAND
from .idx import FashionMNISTFiles
from .moving import MovingDigits, MovingMNIST
from .sequences import KTH, FrameFolders, KittiCaltech, SequenceFile, TaxiBJ
from .weather import WeatherBench

__all__ = [
    'KTH',
    'FashionMNISTFiles',
    'FrameFolders',
    'FreiHAND',
    'KittiCaltech',
    'MovingDigits',
    'MovingMNIST',
    'NormalizedRandomErasing',
    'SequenceFile',
    'TaxiBJ',
    'WeatherBench',
]
