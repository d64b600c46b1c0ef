"""MogaNet, one fast and exact backbone for every vision task of the OpenMMLab 2.x stack."""

from .models import create_model, list_models
from .version import __version__

__all__ = ['__version__', 'create_model', 'list_models']
