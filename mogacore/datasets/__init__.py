"""Data sets, and steps of their pipelines, that no task library provides."""

from .arrays import LoadArray
from .class_folders import ClassFolders
from .coco_labels import CocoLabels
from .erasing import NormalizedRandomErasing
from .fast_dense import FastRandomCrop, LoadPolygons, RasterizePolygons
from .fast_transforms import FastRandAugment, FastRandomResizedCrop
from .frame_folders import KTH, FrameFolders
from .freihand import FreiHAND
from .idx import FashionMNISTFiles
from .imagenet_variants import ImageNetC, ImageNetSubset, ImageNetV2
from .kitti import KittiCaltech
from .moving import MovingDigits, MovingMNIST
from .sequences import SequenceFile
from .taxibj import TaxiBJ
from .weather import WeatherBench

__all__ = [
    'KTH',
    'ClassFolders',
    'CocoLabels',
    'FashionMNISTFiles',
    'FastRandAugment',
    'FastRandomCrop',
    'FastRandomResizedCrop',
    'FrameFolders',
    'FreiHAND',
    'ImageNetC',
    'ImageNetSubset',
    'ImageNetV2',
    'KittiCaltech',
    'LoadArray',
    'LoadPolygons',
    'MovingDigits',
    'MovingMNIST',
    'NormalizedRandomErasing',
    'RasterizePolygons',
    'SequenceFile',
    'TaxiBJ',
    'WeatherBench',
]
