"""The operators that mmcv compiles, from torchvision's compiled ones and from torch.

Where mmcv is installed without its compiled extension ``mmcv._ext``, this package takes the extension's place:
``register`` does it for the running process, ``python -m mogacore.operators --install`` for an environment. The
functions have the names, arguments and in-place results that mmcv's Python code expects; every operator runs on the
device that its tensors are on.

Float16 and bfloat16 tensors are computed in float32 and rounded once, as torchvision does under autocast.
"""

from . import boxes, layers, losses, regions  # noqa: F401  (each fills OPERATORS)
from ._extension import in_use, install, missing_operator, register
from ._table import OPERATORS

__all__ = ['OPERATORS', 'in_use', 'install', 'missing_operator', 'register']
