"""Replacements for mmcv's compiled operators, based on torchvision and torch.

If mmcv is installed without its compiled extension ``mmcv._ext``, this package replaces the extension: ``register``
does so in the running process, ``python -m mogacore.operators --install`` in an environment. The functions have the
names, arguments and in-place results that mmcv's Python code expects. Every operator runs on the device of its tensors.

Float16 and bfloat16 tensors are computed in float32 and rounded once, as torchvision does under autocast.
"""

from . import boxes, layers, losses, regions  # noqa: F401  (each adds to OPERATORS)
from ._extension import in_use, install, missing_operator, register
from ._table import OPERATORS

__all__ = ['OPERATORS', 'in_use', 'install', 'missing_operator', 'register']
