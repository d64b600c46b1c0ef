"""Networks: the MogaNet backbone, and what is built from its block."""

from .factory import create_model, list_models
from .moganet import MogaNet, MogaNetClassifier
from .simvp import SimVP

__all__ = ['MogaNet', 'MogaNetClassifier', 'SimVP', 'create_model', 'list_models']
