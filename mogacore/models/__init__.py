"""Networks: the MogaNet backbone and what is built from its block."""

from .factory import create_model, list_models
from .moganet import MogaNet, MogaNetClassifier

__all__ = ['MogaNet', 'MogaNetClassifier', 'create_model', 'list_models']
