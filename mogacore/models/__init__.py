"""Networks: the MogaNet backbone, and what is built from its block."""

from .factory import create_model, list_models
from .heatmap3d import RootRelativeHeatmap
from .iterative import IterativeHandHead
from .moganet import MogaNet, MogaNetClassifier
from .simvp import SimVP

__all__ = [
    'IterativeHandHead',
    'MogaNet',
    'MogaNetClassifier',
    'RootRelativeHeatmap',
    'SimVP',
    'create_model',
    'list_models',
]
