"""Networks: the MogaNet backbone, and models built from its block."""

from .ablations import AblatedMogaNet, AblatedMogaNetClassifier
from .classifier import MogaNetClassifier
from .factory import create_model, list_models
from .heatmap3d import RootRelativeHeatmap
from .iterative import IterativeHandHead
from .moganet import MogaNet
from .simvp import SimVP

__all__ = [
    'AblatedMogaNet',
    'AblatedMogaNetClassifier',
    'IterativeHandHead',
    'MogaNet',
    'MogaNetClassifier',
    'RootRelativeHeatmap',
    'SimVP',
    'create_model',
    'list_models',
]
